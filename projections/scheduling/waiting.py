"""Why a job waits: the pipeline asked about one job, each refusal with its numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.projections.scheduling.filters import feasible, filters_for
from eventsched.projections.scheduling.fleet import Fleet, Trial
from eventsched.projections.scheduling.needs import Need, need_of
from eventsched.projections.scheduling.quota import Refusal, limits_of, model_refusal, refusal
from eventsched.projections.scheduling.usage import CPU, GPUS, MEMORY, RUNS, Shares, Usage
from eventsched.units import format_bytes, format_cpus


class Why(NamedTuple):
    """A stable reason code and words with numbers."""

    code: str
    detail: str


def why_waiting(state: ClusterState, fleet: Fleet, usage: Usage, job: Job, now_ms: int) -> Why | None:
    """Why `job` has no run now; None when it has one or has ended."""
    if job.state in TERMINAL or (job.state != "pending" and job.array is None):
        return None
    if not job.admitted:
        return Why("unjudged", "waits for a leader's look")
    if job.held:
        return Why("held", "release it with `eventsched release`")
    if job.waiting_on:
        parents = [key.partition("/")[2] for key in job.waiting_on]
        return Why("dependency", f"waits for {', '.join(parents[:3])}" + (" …" if len(parents) > 3 else ""))
    if job.not_before_ms > now_ms:
        return Why("backoff", f"tries again in {job.not_before_ms - now_ms} ms after: {job.reason or 'failure'}")
    need = need_of(job)
    return _why_quota(state, usage, job.tenant, need) or _why_no_node(state, fleet, usage, job.tenant, need)


def _why_quota(state: ClusterState, usage: Usage, tenant: str, need: Need) -> Why | None:
    refused = refusal(limits_of(state, tenant), Shares(usage, {}), tenant, need)
    return None if refused is None else Why("quota", _refused(state, tenant, refused))


def _refused(state: ClusterState, tenant: str, refused: Refusal) -> str:
    whose = f"tenant {tenant}" if tenant in state.tenants else f"tenant {tenant} (limits of *)"
    numbers = [_amount(refused.kind, number) for number in (refused.asked, refused.held, refused.limit)]
    return f"asks {numbers[0]} {_kind(refused.kind)}; {whose} holds {numbers[1]} of {numbers[2]}"


def _kind(kind: str) -> str:
    return {RUNS: "run", CPU: "cpus", MEMORY: "of memory", GPUS: "GPUs"}.get(kind) or kind.removeprefix("gpu:").upper()


def _amount(kind: str, number: int) -> str:
    return format_cpus(number) if kind == CPU else format_bytes(number) if kind == MEMORY else str(number)


def _why_models(state: ClusterState, trial: Trial, usage: Usage, tenant: str, need: Need) -> Why | None:
    """The tenant may have none of the devices that are free, by their models."""
    limits = limits_of(state, tenant)
    if limits is None or not limits.gpu_models or not need.gpus:
        return None
    refused = None
    for row in np.flatnonzero(feasible(trial, need)):
        models = tuple(gpu.model for gpu in trial.devices(int(row), need))
        refused = model_refusal(limits, Shares(usage, {}), tenant, models)
        if refused is None:
            return None
    return None if refused is None else Why("quota", _refused(state, tenant, refused))


def _why_no_node(state: ClusterState, fleet: Fleet, usage: Usage, tenant: str, need: Need) -> Why:
    trial = Trial(fleet)
    if not len(fleet.names):
        return Why("no_nodes", "no node has joined")
    if feasible(trial, need).any():
        models = _why_models(state, trial, usage, tenant, need)
        return models or Why("turn", "it fits; it starts with the next round")
    alive = fleet.usable
    if not alive.any():
        return Why("no_nodes", f"none of {len(fleet.names)} nodes can take work (lost, left, suspect or cordoned)")
    for code, one in filters_for(need)[1:]:
        if not (alive & one(trial, need)).any():
            return Why(*_sole_cause(code, fleet, trial, need))
    large = alive & (fleet.cpu_total >= need.cpu_millis) & (fleet.memory_total >= need.memory_bytes)
    if need.gpus:
        total = fleet.gpu_total.get(need.gpu_model)
        large = large & (total >= need.gpus) if total is not None else np.zeros_like(large)
    if not large.any():
        return Why("too_big", f"no node is large enough for {_asked(need)}")
    return Why("resources", f"no node has {_asked(need)} free at once")


def _sole_cause(code: str, fleet: Fleet, trial: Trial, need: Need) -> tuple[str, str]:
    """One filter refuses every node that can take work: say which, with the best any node offers."""
    alive = fleet.usable
    count = int(np.count_nonzero(alive))
    if code == "driver":
        return code, f"none of {count} nodes offers the {need.driver} driver"
    if code == "gpu_model":
        return code, f"none of {count} nodes has a GPU" + (f" {need.gpu_model.upper()}" if need.gpu_model else "")
    if code == "cpu":
        total, free = int(fleet.cpu_total[alive].max()), int(trial.cpu_free[alive].max())
        if total < need.cpu_millis:
            return "too_big", f"asks {format_cpus(need.cpu_millis)} cpus, the largest node has {format_cpus(total)}"
        return (
            code,
            f"asks {format_cpus(need.cpu_millis)} cpus, at most {format_cpus(free)} free on one of {count} nodes",
        )
    if code == "memory":
        total, free = int(fleet.memory_total[alive].max()), int(trial.memory_free[alive].max())
        if total < need.memory_bytes:
            return "too_big", f"asks {format_bytes(need.memory_bytes)}, the largest node has {format_bytes(total)}"
        return (
            code,
            f"asks {format_bytes(need.memory_bytes)}, at most {format_bytes(free)} free on one of {count} nodes",
        )
    free = int(trial.gpu_free(need.gpu_model)[alive].max())
    total = int(fleet.gpu_total[need.gpu_model][alive].max())
    name = need.gpu_model.upper() or "GPU"
    if total < need.gpus:
        return "too_big", f"asks {need.gpus} {name}, the largest node has {total}"
    return code, f"asks {need.gpus} {name}, at most {free} free on one of {count} nodes"


def _asked(need: Need) -> str:
    parts = [f"{format_cpus(need.cpu_millis)} cpus"]
    if need.memory_bytes:
        parts.append(format_bytes(need.memory_bytes))
    if need.gpus:
        parts.append(f"{need.gpus} {need.gpu_model.upper() or 'GPU'}")
    return " + ".join(parts)
