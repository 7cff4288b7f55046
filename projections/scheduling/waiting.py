"""Why a job waits: the pipeline asked about one job, each refusal with its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.gangs import unit_of
from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.projections.cluster.tenants import limits_of
from eventsched.projections.scheduling.filters import feasible, filters_for
from eventsched.projections.scheduling.fleet import Fleet, Trial
from eventsched.projections.scheduling.gang import gang_may_start, how_many_fit, members_to_start
from eventsched.projections.scheduling.needs import Need, need_of
from eventsched.projections.scheduling.quota import BUDGET, LENT_OUT, POOL, Quotas, Refusal, mildest
from eventsched.projections.scheduling.usage import CPU, GPUS, MEMORY, RUNS, Usage
from eventsched.units import format_bytes, format_cpus, format_money, format_ms

_NOT_FOR_ROOM = ("quota", "budget", "lent_out", "held", "no_nodes", "too_big")
"""What no reservation helps against."""


class Why(NamedTuple):
    """A stable reason code and words with numbers."""

    code: str
    detail: str


def why_waiting(
    state: ClusterState,
    fleet: Fleet,
    usage: Usage,
    job: Job,
    now_ms: int,
    forecast: Callable[[], dict[str, Why]] = dict,
) -> Why | None:
    """Why `job` has no run now; None when it has one or has ended.

    forecast: what reservations say (see `forecast`); asked for only if room is what it waits for.
    """
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
    if job.promised:
        return _why_promised(state, job)
    need, unit = need_of(job), unit_of(state, job)
    quotas = Quotas(state, usage, now_ms)
    if unit.spec.gang and unit.array is not None:
        why = _why_gang(state, fleet, quotas, unit, now_ms)
    else:
        refused = quotas.refusal(job.tenant, need)
        if refused is not None:
            return _why_refused(state, job.tenant, refused, now_ms)
        why = _why_no_node(state, fleet, quotas, job.tenant, need, now_ms)
    return why if why.code in _NOT_FOR_ROOM else forecast().get(unit.key, why)


def _why_promised(state: ClusterState, job: Job) -> Why:
    node = state.nodes[job.promised]
    stopping = sum(state.runs[seq].stop_reason == "preempted" for seq in node.runs)
    return Why("promised", f"{stopping} runs on {node.node_id} are being stopped for it")


def _why_gang(state: ClusterState, fleet: Fleet, quotas: Quotas, gang: Job, now_ms: int) -> Why:
    """Of a gang, or of its member: all wait for the same."""
    need, trial = need_of(gang), Trial(fleet)
    if gang.array is None or gang.array.open or gang.array.fate is not None:
        return Why("gang_forming", "waits until what is left of its last start has been stopped")
    if not gang_may_start(state, gang):
        return Why("held", "a member is held: release it with `eventsched release`")
    count = members_to_start(gang)
    trying = quotas.copy()
    for fit in range(count):
        refused = trying.refusal(gang.tenant, need)
        if refused is not None:
            why = _why_refused(state, gang.tenant, refused, now_ms)
            return Why(why.code, f"{fit} of {count} members: {why.detail}")
        trying.take(gang.tenant, need, ())
    fit = how_many_fit(trial, need, count)
    if fit == count:
        return Why("turn", "it fits; it starts with the next round")
    if not fit:
        return _why_no_node(state, fleet, quotas, gang.tenant, need, now_ms)
    return Why("gang_forming", f"{fit} of {count} members fit")


def _why_refused(state: ClusterState, tenant: str, refused: Refusal, now_ms: int) -> Why:
    limits = limits_of(state, tenant)
    if limits is None:
        return Why("quota", f"tenant {tenant} has no quota, and this cluster gives nothing without one")
    if refused.cause == BUDGET:
        spent = f"tenant {tenant} has spent {format_money(refused.held)} of {format_money(refused.limit)}"
        until = f"; the next period begins in {format_ms(refused.until_ms - now_ms)}" if refused.until_ms else ""
        return Why("budget", spent + until)
    whose = f"tenant {tenant}" if tenant in state.tenants else f"tenant {tenant} (limits of *)"
    asked, held, limit = (_amount(refused.kind, number) for number in (refused.asked, refused.held, refused.limit))
    text = f"asks {asked} {_kind(refused.kind)}; {whose} holds {held} of {limit}"
    if refused.cause == LENT_OUT:
        return Why("lent_out", f"{text}; more than they own hold: {', '.join(refused.borrowers) or 'nobody'}")
    if refused.cause == POOL:
        text += f", and cohort {limits.cohort} has no more to lend"
    return Why("quota", text)


def _kind(kind: str) -> str:
    names = {RUNS: "run", CPU: "cpus", MEMORY: "of memory", GPUS: "GPUs"}
    return names.get(kind) or kind.removeprefix(f"{GPUS}:").upper()


def _amount(kind: str, number: int) -> str:
    if kind == MEMORY:
        return format_bytes(number)
    return str(number) if kind == RUNS else format_cpus(number)


def _models_refused(trial: Trial, quotas: Quotas, tenant: str, need: Need) -> Refusal | None:
    """The tenant may have none of the devices that are free, by their models."""
    if not (need.gpus or need.gpu_millis) or not quotas.minds_models(tenant):
        return None
    refusals = []
    for row in np.flatnonzero(feasible(trial, need)):
        models = tuple(gpu.model for gpu in trial.devices(int(row), need))
        refused = quotas.model_refusal(tenant, need, models)
        if refused is None:
            return None
        refusals.append(refused)
    return mildest(refusals)


def _why_no_node(state: ClusterState, fleet: Fleet, quotas: Quotas, tenant: str, need: Need, now_ms: int) -> Why:
    trial = Trial(fleet)
    if not len(fleet.names):
        return Why("no_nodes", "no node has joined")
    if feasible(trial, need).any():
        refused = _models_refused(trial, quotas, tenant, need)
        if refused is not None:
            return _why_refused(state, tenant, refused, now_ms)
        return Why("turn", "it fits; it starts with the next round")
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
