"""The earlier systems' words: states, and the names their clients look for in jobs, nodes and numbers."""

from __future__ import annotations

from typing import Any

import msgspec

from eventsched.views import JobView, NodeView, Stats

GIB = 1 << 30
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
_STATUS_BY_HAND = {"pending": "WAITING", "assigned": "RUNNING", "starting": "RUNNING", "running": "RUNNING"}


def status_of(state: str, by_hand: bool) -> str:
    """A state in the earlier systems' words; jobs finished by hand are WAITING, RUNNING, COMPLETED."""
    if by_hand:
        return _STATUS_BY_HAND.get(state) or ("COMPLETED" if state == "succeeded" else _STATUS[state])
    return _STATUS[state]


def is_by_hand(view: JobView) -> bool:
    """True for jobs that were submitted to be finished by hand."""
    return view.driver == "manual"


def job_body(view: JobView) -> dict[str, Any]:
    """A job: our fields, and beside them those that clients of the earlier systems read."""
    body: dict[str, Any] = msgspec.to_builtins(view)
    body |= {
        "status": status_of(view.state, is_by_hand(view)),
        "tenant_id": view.tenant,
        "docker_image": view.image or None,
        "cpu_cores": view.cpu_millis / 1000,
        "memory_gb": view.memory_bytes / GIB,
        "gpu_type": view.gpu_model or ("any" if view.gpus else None),
        "executor_id": view.node or None,
    }
    if "submitted_at" in view.labels:
        body["submitted_at"] = int(view.labels["submitted_at"])
    return body


def executor_body(view: NodeView) -> dict[str, Any]:
    """A node as an executor."""
    total, free = view.capacity, view.free
    return {
        "executor_id": view.node,
        "status": "ONLINE" if view.state in ("ready", "suspect") else "OFFLINE",
        "state": view.state,
        "cordoned": view.cordoned,
        "total_cpu_cores": total["cpu_millis"] / 1000,
        "available_cpu_cores": free["cpu_millis"] / 1000,
        "total_memory_gb": total["memory_bytes"] / GIB,
        "available_memory_gb": free["memory_bytes"] / GIB,
        "total_gpus": total["gpus"],
        "available_gpus": free["gpus"],
        "running_jobs": [f"{run['tenant']}/{run['job_id']}" for run in view.runs],
        "cpu_percent": view.cpu_percent,
        "memory_used_gb": None if view.memory_used_bytes is None else view.memory_used_bytes / GIB,
        "last_heartbeat_ms_ago": view.heartbeat_age_ms,
        "labels": view.labels,
        "drivers": view.drivers,
    }


def stats_body(stats: Stats, reason: str = "") -> dict[str, Any]:
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
        "online_executors": stats.nodes.get("ready", 0),
        "gpus": {
            model: {"capacity": count, "free": stats.free["gpus"].get(model, 0)}
            for model, count in stats.capacity["gpus"].items()
        },
        "cpu_utilization": _share(stats.capacity["cpu_millis"], stats.free["cpu_millis"]),
        "memory_utilization": _share(stats.capacity["memory_bytes"], stats.free["memory_bytes"]),
        "reason": reason,
    }
    return body


def _share(capacity: int, free: int) -> float:
    return round((capacity - free) / capacity, 4) if capacity > 0 else 0.0
