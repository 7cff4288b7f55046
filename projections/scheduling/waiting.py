"""Why a job waits: the pipeline asked about one job, each refusal with its numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.projections.scheduling.filters import Filter, feasible, filters_for, gpus_offered, refusals
from eventsched.projections.scheduling.fleet import Fleet, Ints
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import Need, need_of
from eventsched.projections.scheduling.policies import looks_of
from eventsched.projections.scheduling.quota import Refusal, limits_of, model_refusal, refusal
from eventsched.projections.scheduling.trial import Trial
from eventsched.projections.scheduling.usage import CPU, GPUS, MEMORY, RUNS, Shares, Usage
from eventsched.units import format_bytes, format_cpus, format_micros


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
    need = need_of(job, looks_of(state))
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


def _why_models(state: ClusterState, fleet: Fleet, usage: Usage, tenant: str, need: Need) -> Why | None:
    """The tenant may have none of the devices that are free, by their models."""
    limits = limits_of(state, tenant)
    if limits is None or not limits.gpu_models or not (need.gpus or need.gpu_millis):
        return None
    trial, refused = Trial(fleet), None
    for row in np.flatnonzero(feasible(fleet, need)).tolist():
        models = tuple(gpu.model for gpu in trial.devices(row, need))
        refused = model_refusal(limits, Shares(usage, {}), tenant, models)
        if refused is None:
            return None
    return None if refused is None else Why("quota", _refused(state, tenant, refused))


# ---- nodes ------------------------------------------------------------------------------------


def _why_no_node(state: ClusterState, fleet: Fleet, usage: Usage, tenant: str, need: Need) -> Why:
    if not fleet.count:
        return Why("no_nodes", "no node has joined")
    if feasible(fleet, need).any():
        models = _why_models(state, fleet, usage, tenant, need)
        return models or Why("turn", "it fits; it starts with the next round")
    alive = np.flatnonzero(fleet.ready & ~fleet.cordoned)
    if not len(alive):
        return Why("no_nodes", f"none of {fleet.count} nodes can take work (lost, left, suspect or cordoned)")
    for one in filters_for(need):
        if not one.passes(fleet, need, alive).any():
            return _sole_cause(one, fleet, need, alive)
    large = (fleet.cpu_total[alive] >= need.cpu_millis) & (fleet.memory_total[alive] >= need.memory_bytes)
    if need.gpus:
        large &= _most(fleet.gpu_total, need, alive) >= need.gpus
    if not large.any():
        return Why("too_big", f"no node is large enough for {_asked(need)}")
    refused = ", ".join(f"{one.nodes} {one.code}" for one in refusals(fleet, need))
    return Why("resources", f"no node has {_asked(need)} free at once; refused by: {refused}")


def _sole_cause(one: Filter, fleet: Fleet, need: Need, alive: Ints) -> Why:
    """One filter refuses every node that can take work: say which, with the best any node offers."""
    count = f"{len(alive)} nodes"
    match one.code:
        case "driver":
            text = f"none of {count} offers the {need.driver} driver"
        case "node_labels":
            text = f"none of {count} has the labels {', '.join(f'{name}={value}' for name, value in need.labels)}"
        case "taint":
            text = f"each of {count} has a taint it does not tolerate"
        case "spot":
            text = f"it may not run on spot nodes, and all of {count} are"
        case "price":
            cheapest = format_micros(int(fleet.price[alive].min()))
            text = f"pays {format_micros(need.max_price)} an hour at most; the cheapest of {count} costs {cheapest}"
        case "gpu_model":
            text = f"none of {count} has a GPU {_models(need).lower()!r}"
        case "per_node":
            text = f"each of {count} has {need.per_node} of its group already (max_per_node)"
        case _:
            return _too_little(one.code, fleet, need, alive)
    return Why(one.code, text)


def _too_little(code: str, fleet: Fleet, need: Need, alive: Ints) -> Why:
    """Too little is free, or there is too little even on empty nodes."""
    if code == "cpu":
        asked, total, free = need.cpu_millis, fleet.cpu_total[alive].max(), fleet.cpu_free[alive].max()
        texts = [f"{format_cpus(asked)} cpus", format_cpus(int(total)), format_cpus(max(0, int(free)))]
    elif code == "memory":
        asked, total, free = need.memory_bytes, fleet.memory_total[alive].max(), fleet.memory_free[alive].max()
        texts = [format_bytes(asked), format_bytes(int(total)), format_bytes(max(0, int(free)))]
    else:
        asked = need.gpu_millis or need.gpus
        total = WHOLE if need.gpu_millis else _most(fleet.gpu_total, need, alive).max()
        free = gpus_offered(fleet, need, alive).max()
        unit = "/1000 of a" if need.gpu_millis else ""
        texts = [f"{asked}{unit} {_models(need) or 'GPU'}", str(total), str(free)]
    if total < asked:
        return Why("too_big", f"asks {texts[0]}, the largest node has {texts[1]}")
    return Why(code, f"asks {texts[0]}, at most {texts[2]} free on one of {len(alive)} nodes")


def _most(table: dict[str, Ints], need: Need, rows: Ints) -> Ints:
    """The larger of what a table has under any of the names that will do."""
    found = np.zeros(len(rows), dtype=np.int64)
    for name in need.names:
        if name in table:
            found = np.maximum(found, table[name][rows])
    return found


def _models(need: Need) -> str:
    return "|".join(need.gpu_models).upper()


def _asked(need: Need) -> str:
    parts = [f"{format_cpus(need.cpu_millis)} cpus"]
    if need.memory_bytes:
        parts.append(format_bytes(need.memory_bytes))
    if need.gpus or need.gpu_millis:
        number = f"{need.gpu_millis}/1000 of a" if need.gpu_millis else str(need.gpus)
        parts.append(f"{number} {_models(need) or 'GPU'}")
    return " + ".join(parts)
