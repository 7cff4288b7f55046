"""Why a job waits: the pipeline asked about one job, each refusal with its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.gangs import unit_of
from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.projections.cluster.tenants import limits_of
from eventsched.projections.scheduling.allowance import disallowed
from eventsched.projections.scheduling.diary import Ints
from eventsched.projections.scheduling.filters import Filter, feasible, filters_for, gpus_offered, refusals
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.gang import gang_may_start, how_many_fit, members_to_start
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import Need, need_of
from eventsched.projections.scheduling.policies import looks_of
from eventsched.projections.scheduling.quota import BUDGET, LENT_OUT, POOL, Quotas, Refusal
from eventsched.projections.scheduling.trial import Trial
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
        return Why(
            "backoff", f"tries again in {format_ms(job.not_before_ms - now_ms)} after: {job.reason or 'failure'}"
        )
    promised = _why_promised(state, job) if job.promised else None
    if promised is not None:
        return promised
    need, unit = need_of(job, looks_of(state)), unit_of(state, job)
    quotas = Quotas(state, usage, now_ms)
    if unit.spec.gang and unit.array is not None:
        why = _why_gang(state, fleet, quotas, unit, now_ms)
    else:
        refused = disallowed(fleet, quotas, job.tenant, need)
        if refused is not None:
            return _why_refused(state, job.tenant, refused.refusal, now_ms)
        why = _why_no_node(fleet, need)
    return why if why.code in _NOT_FOR_ROOM else forecast().get(unit.key, why)


def _why_promised(state: ClusterState, job: Job) -> Why | None:
    node = state.nodes.get(job.promised)
    stopping = sum(state.runs[seq].stop_reason == "preempted" for seq in node.runs) if node is not None else 0
    return Why("promised", f"runs on {job.promised} are being stopped for it: {stopping}") if stopping else None


def _why_gang(state: ClusterState, fleet: Fleet, quotas: Quotas, gang: Job, now_ms: int) -> Why:
    """Of a gang, or of its member: all wait for the same."""
    need, trial = need_of(gang, looks_of(state)), Trial(fleet)
    if gang.array is None or gang.array.open or gang.array.fate is not None:
        return Why("gang_forming", "waits until what is left of its last start has been stopped")
    if not gang_may_start(state, gang):
        return Why("held", "a member is held: release it with `eventsched release`")
    count = members_to_start(gang)
    refused = disallowed(fleet, quotas, gang.tenant, need, count)
    if refused is not None:
        real = refused.refusal
        if real.cause != BUDGET:  # what it holds now, without the members that would be let start
            real = real._replace(held=quotas.shares.held(gang.tenant).get(real.kind, 0))
        why = _why_refused(state, gang.tenant, real, now_ms, f" for each of {count} members")
        return Why(why.code, f"{why.detail}: enough for {refused.members} of them") if refused.members else why
    fit = how_many_fit(trial, need, count)
    if fit == count:
        return Why("turn", "it fits; it starts with the next round")
    if not fit:
        return _why_no_node(fleet, need)
    return Why("gang_forming", f"{fit} of {count} members fit")


def _why_refused(state: ClusterState, tenant: str, refused: Refusal, now_ms: int, each: str = "") -> Why:
    limits = limits_of(state, tenant)
    if limits is None:
        return Why("quota", f"tenant {tenant} has no quota, and this cluster gives nothing without one")
    if refused.cause == BUDGET:
        spent = f"tenant {tenant} has spent {format_money(refused.held)} of {format_money(refused.limit)}"
        until = f"; the next period begins in {format_ms(refused.until_ms - now_ms)}" if refused.until_ms else ""
        return Why("budget", spent + until)
    whose = f"tenant {tenant}" if tenant in state.tenants else f"tenant {tenant} (limits of *)"
    asked, held, limit = (_amount(refused.kind, number) for number in (refused.asked, refused.held, refused.limit))
    text = f"asks {asked} {_kind(refused.kind)}{each}; {whose} holds {held} of {limit}"
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


# ---- nodes ------------------------------------------------------------------------------------


def _why_no_node(fleet: Fleet, need: Need) -> Why:
    if not fleet.count:
        return Why("no_nodes", "no node has joined")
    if feasible(fleet, need).any():
        return Why("turn", "it fits; it starts with the next round")
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
    by = ", ".join(f"{one.nodes} {one.code}" for one in refusals(fleet, need))
    return Why("resources", f"no node has {_asked(need)} free at once; refused by: {by}")


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
            cheapest = format_money(int(fleet.price[alive].min()))
            text = f"pays {format_money(need.max_price)} an hour at most; the cheapest of {count} costs {cheapest}"
        case "gpu_model":
            text = f"none of {count} has a GPU {_models(need)}".rstrip()
        case "per_node":
            text = f"each of {count} has {need.per_node} of its group already (max_per_node)"
        case _:
            return _too_little(one.code, fleet, need, alive)
    return Why(one.code, text)


def _too_little(code: str, fleet: Fleet, need: Need, alive: Ints) -> Why:
    """Too little is free, or there is too little even on empty nodes."""
    if code == "cpu":
        asked, total, free = need.cpu_millis, int(fleet.cpu_total[alive].max()), int(fleet.cpu_free[alive].max())
        texts = [f"{format_cpus(asked)} cpus", format_cpus(total), format_cpus(max(0, free))]
    elif code == "memory":
        asked, total = need.memory_bytes, int(fleet.memory_total[alive].max())
        free = int(fleet.memory_free[alive].max())
        texts = [format_bytes(asked), format_bytes(total), format_bytes(max(0, free))]
    else:
        asked = need.gpu_millis or need.gpus
        total = WHOLE if need.gpu_millis else int(_most(fleet.gpu_total, need, alive).max())
        free = int(gpus_offered(fleet, need, alive).max())
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
