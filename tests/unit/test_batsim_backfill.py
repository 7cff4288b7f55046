"""Backfill on a published workload: 801 jobs, each a gang of one-core nodes, on 32 of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..workload import Play

TRACE = Path(__file__).parents[1] / "data" / "batsim-medium" / "medium_late.json.gz"


def jobs() -> list[tuple[int, str, JobSpec, int]]:
    trace = json.loads(gzip.decompress(TRACE.read_bytes()))
    found = []
    for job in trace["jobs"]:
        width = job["res"]
        spec = JobSpec(
            driver="fake",
            resources=Resources(cpu_millis=1000),
            estimate_ms=round(job["walltime"] * 1000),
            array=width if width > 1 else 0,
            gang=width > 1,
        )
        delay = round(trace["profiles"][job["profile"]]["delay"] * 1000)
        found.append((round(job["subtime"] * 1000), f"j{job['id']}", spec, delay))
    return found


@pytest.mark.parametrize(("policy", "wait_s"), [("backfill", 9.52), ("backfill-conservative", 9.86)])
def test_published_makespan_and_mean_wait_are_reached(policy: str, wait_s: float) -> None:
    trace = jobs()
    play = Play(32, policy)
    play.run(trace)
    assert len(play.ended) == len(trace) == 801
    first = min(one[0] for one in trace)
    makespan_s = (max(play.ended.values()) - first) / 1000
    waits = [play.started[job_id] - submitted for submitted, job_id, _, _ in trace]
    mean_s = sum(waits) / len(waits) / 1000
    assert makespan_s == pytest.approx(16_088.51, abs=0.02)
    assert mean_s <= wait_s
