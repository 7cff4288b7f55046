"""Batsim workloads: rigid jobs of `res` machines; how long one takes stands in its delay profile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eventsched.projections.simulation.readers.source import BadField, Row, Source
from eventsched.projections.simulation.workload import SimJob
from eventsched.resources import Resources
from eventsched.spec import GANG_MAX, JobSpec


def looks_like(source: Source) -> bool:
    """A JSON object with profiles or subtimes."""
    return source.head.lstrip().startswith("{") and ('"subtime"' in source.head or '"profiles"' in source.head)


def read(source: Source) -> Iterator[SimJob]:
    """One core a machine; several machines are a gang."""
    content = source.json()
    if not isinstance(content, dict) or not isinstance(content.get("jobs"), list):
        raise source.fatal('no list "jobs" in it', "a Batsim workload is an object with jobs and profiles")
    profiles = content.get("profiles")
    if not isinstance(profiles, dict):
        raise source.fatal('no object "profiles" in it', "a Batsim workload is an object with jobs and profiles")
    items = ((f"job {number}", one) for number, one in enumerate(content["jobs"], 1))
    return source.each(items, lambda one: _job(one, profiles))


def _job(one: Any, profiles: dict[str, Any]) -> SimJob:
    if not isinstance(one, dict):
        raise BadField("job", "is not an object")
    row = Row(one)
    row.known(("id", "profile", "res", "subtime", "walltime", "user", "workload"))
    width = row.integer("res", 1, GANG_MAX)
    spec = JobSpec(
        driver="fake",
        resources=Resources(cpu_millis=1_000),
        estimate_ms=row.seconds_ms("walltime", 0),
        array=width if width > 1 else 0,
        gang=width > 1,
    )
    name = row.text("profile")
    profile = profiles.get(name)
    if not isinstance(profile, dict) or "delay" not in profile:
        raise BadField(
            "profile", f"{name[:80]!r} is not among the profiles, or has no delay; only those can be simulated"
        )
    return SimJob(
        row.seconds_ms("subtime"), row.ident("user", "default"), row.ident("id"), spec, Row(profile).seconds_ms("delay")
    )
