"""The earlier systems' words: states, and the names their clients look for in jobs, nodes and numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from eventsched.projections.http.auth import Caller
from eventsched.projections.http.bodies import joined
from eventsched.projections.http.errors import ApiError
from eventsched.views import JobView, NodeView, Stats

GIB = 1 << 30
ONLINE = ("ready", "suspect", "draining", "drained")
"""States of a node whose agent is there, whether or not it takes work."""
_STATUS = {
    "pending": "PENDING",
    "assigned": "ASSIGNED",
    "starting": "ASSIGNED",
    "running": "RUNNING",
    "succeeded": "SUCCEEDED",
    "aborted": "ABORTED",
    "failed": "FAILED",
    "timed_out": "FAILED",
    "rejected": "FAILED",
    "expired": "FAILED",
}
STATES = tuple(_STATUS)
_STATUS_BY_HAND = {"pending": "WAITING", "assigned": "RUNNING", "starting": "RUNNING", "running": "RUNNING"}


def status_of(state: str, by_hand: bool) -> str:
    """A state in the earlier systems' words; jobs finished by hand are WAITING, RUNNING, COMPLETED."""
    if by_hand:
        return _STATUS_BY_HAND.get(state) or ("COMPLETED" if state == "succeeded" else _STATUS[state])
    return _STATUS[state]


class Extra(Struct):
    """What a job's body has beside the fields of `JobView`: the names earlier systems' clients read."""

    status: str
    tenant_id: str
    docker_image: str | None
    cpu_cores: float
    memory_gb: float
    gpu_type: str | None
    executor_id: str | None
    submitted_at: int | None
    logs: str | None = None


def job_body(view: JobView, logs: str | None = None) -> bytes:
    """A job as JSON: our fields and, beside them, those of the earlier systems."""
    extra = Extra(
        status=status_of(view.state, view.driver == "manual"),
        tenant_id=view.tenant,
        docker_image=view.image or None,
        cpu_cores=view.cpu_millis / 1000,
        memory_gb=view.memory_bytes / GIB,
        gpu_type=view.gpu_model or ("any" if view.gpus else None),
        executor_id=view.node or None,
        submitted_at=_seconds(view.labels.get("submitted_at")),
        logs=logs,
    )
    return joined(view, extra)


def _seconds(label: str | None) -> int | None:
    """A person may have set that label to anything."""
    return int(label) if label is not None and label.isascii() and label.isdigit() and len(label) < 16 else None


def state_names(statuses: Iterable[str]) -> list[str]:
    """Our states that have one of these earlier names; ApiError 422 for a name that is none."""
    found: list[str] = []
    for status in statuses:
        wanted = status.upper()
        names = [state for state in _STATUS if wanted in (status_of(state, False), status_of(state, True))]
        if not names:
            known = ", ".join(dict.fromkeys((*_STATUS.values(), *_STATUS_BY_HAND.values(), "COMPLETED")))
            raise ApiError(422, "VALIDATION_ERROR", f"status {status[:40]!r} is none of {known}")
        found += names
    return list(dict.fromkeys(found))


def executor_body(view: NodeView, caller: Caller) -> dict[str, Any]:
    """A node as an executor; of its jobs, those the caller may know about."""
    total, free = view.capacity, view.free
    return {
        "executor_id": view.node,
        "status": "ONLINE" if view.state in ONLINE else "OFFLINE",
        "state": view.state,
        "cordoned": view.cordoned,
        "total_cpu_cores": total["cpu_millis"] / 1000,
        "available_cpu_cores": free["cpu_millis"] / 1000,
        "total_memory_gb": total["memory_bytes"] / GIB,
        "available_memory_gb": free["memory_bytes"] / GIB,
        "total_gpus": total["gpus"],
        "available_gpus": free["gpus"],
        "running_jobs": [f"{run['tenant']}/{run['job_id']}" for run in view.runs if caller.sees(run["tenant"])],
        "cpu_percent": view.cpu_percent,
        "memory_used_gb": None if view.memory_used_bytes is None else view.memory_used_bytes / GIB,
        "last_heartbeat_ms_ago": view.heartbeat_age_ms,
        "labels": view.labels,
        "drivers": view.drivers,
    }


def stats_body(stats: Stats) -> dict[str, Any]:
    """The cluster in numbers: ours, and the earlier systems' counts."""
    body: dict[str, Any] = msgspec.to_builtins(stats)
    jobs, ended = stats.jobs, stats.ended
    waiting = jobs.get("pending", 0)
    running = sum(jobs.get(state, 0) for state in ("assigned", "starting", "running"))
    body |= {
        "total_jobs": waiting + running + sum(ended.values()),
        "queue_length": waiting,
        "pending_jobs": waiting,
        "waiting_jobs": waiting,
        "running_jobs": running,
        "completed_jobs": sum(ended.values()),
        "succeeded_jobs": ended.get("succeeded", 0),
        "failed_jobs": sum(ended.get(state, 0) for state in ("failed", "timed_out", "rejected", "expired")),
        "aborted_jobs": ended.get("aborted", 0),
        "executors": sum(stats.nodes.values()),
        "online_executors": sum(stats.nodes.get(state, 0) for state in ONLINE),
        "gpus": {
            model: {"capacity": count, "free": stats.free["gpus"].get(model, 0)}
            for model, count in stats.capacity["gpus"].items()
        },
        "cpu_utilization": _share(stats.capacity["cpu_millis"], stats.free["cpu_millis"]),
        "memory_utilization": _share(stats.capacity["memory_bytes"], stats.free["memory_bytes"]),
        "reason": "" if stats.nodes_open else "no_nodes",
    }
    return body


def _share(capacity: int, free: int) -> float:
    return round((capacity - free) / capacity, 4) if capacity > 0 else 0.0
