"""Explaining a waiting job: every stage of the pipeline is asked about this one job, as of now."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from eventsched.explanation import Ahead, Explanation, Holder, Nodes, Place, Quota, Refusal
from eventsched.ids import job_key, split_member
from eventsched.projections.cluster.gangs import unit_of
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.cluster.tenants import limits_of
from eventsched.projections.scheduling.allowance import disallowed
from eventsched.projections.scheduling.filters import feasible, refusals
from eventsched.projections.scheduling.gang import members_to_start
from eventsched.projections.scheduling.needs import need_of
from eventsched.projections.scheduling.order import Key, Moment
from eventsched.projections.scheduling.planner import Class, Planner
from eventsched.projections.scheduling.policies import POLICIES, complete
from eventsched.projections.scheduling.quota import MONEY, Quotas
from eventsched.units import format_bytes, format_cpus, format_money
from eventsched.views import JobView

FIRST_SHOWN = 5
HOLDERS_SHOWN = 5
_STAGES = {
    "unjudged": "admission",
    "held": "held",
    "dependency": "dependencies",
    "backoff": "backoff",
    "quota": "quota",
    "budget": "quota",
    "lent_out": "quota",
    "promised": "promise",
    "reserved": "promise",
    "backfill": "promise",
    "turn": "order",
}


def explain(state: ClusterState, planner: Planner, view: JobView, now_ms: int) -> Explanation:
    """A job: why it waits, as its view says, and what every stage says of it; of one that has a run or has
    ended, what is known of that.

    planner: of this very state.
    """
    found = Explanation(
        job_id=view.job_id,
        tenant=view.tenant,
        state=view.state,
        stage="ended" if view.ended else "running",
        code=view.reason,
        text=view.detail,
        policy=f"{state.policy.name}/{state.policy.version}",
        seq=state.seq,
    )
    waits = view.members.get("pending") if view.array else view.state == "pending"
    job = _job(state, view)
    if view.ended or not waits or job is None:
        return found
    found.stage = _STAGES.get(view.reason, "nodes")
    if found.stage not in ("admission", "held", "dependencies", "backoff"):
        found.place = _place(state, planner, unit_of(state, job), now_ms)
        found.quota = _quota(state, planner, job, now_ms)
        found.nodes = _nodes(planner, job)
    return found


def _job(state: ClusterState, view: JobView) -> Job | None:
    """The job; of a member of an array that is no job yet, its array."""
    job = state.jobs.get(job_key(view.tenant, view.job_id))
    member = split_member(view.job_id)
    return state.jobs.get(job_key(view.tenant, member[0])) if job is None and member is not None else job


# ---- order --------------------------------------------------------------------------------------


def _place(state: ClusterState, planner: Planner, job: Job, now_ms: int) -> Place | None:
    """Within a class jobs keep their order, so its queue is searched, not walked."""
    if job.key not in planner.places:
        return None
    order = planner.policy.order
    shares = Quotas(state, planner.usage, now_ms).shares
    moment = Moment(now_ms, shares, planner.policy.aging_ms)

    def rank(key: str) -> Key:
        return order.rank(moment, state.jobs[key])

    mine, position = rank(job.key), 1
    heads: list[tuple[Key, str, int, Class]] = []
    for alike, queue in planner.queues.items():
        position += bisect_left(queue.items, mine, lo=queue.start, key=lambda entry: rank(entry[1])) - queue.start
        head = queue.items[queue.start][1]
        heads.append((rank(head), head, queue.start, alike))
    first = [_ahead(state.jobs[key]) for key in islice(_merged(planner, heads, rank), FIRST_SHOWN) if rank(key) < mine]
    return Place(_order_name(state), position, sum(len(queue) for queue in planner.queues.values()), first)


def _order_name(state: ClusterState) -> str:
    policy = POLICIES.get(state.policy.name)
    return "as the policy says" if policy is None else str(complete(policy, state.policy.params)["order"])


def _merged(planner: Planner, heads: list[tuple[Key, str, int, Class]], rank: Callable[[str], Key]) -> Iterator[str]:
    """Keys of all waiting jobs in order."""
    heapq.heapify(heads)
    while heads:
        _, key, index, alike = heads[0]
        yield key
        items = planner.queues[alike].items
        if index + 1 < len(items):
            following = items[index + 1][1]
            heapq.heapreplace(heads, (rank(following), following, index + 1, alike))
        else:
            heapq.heappop(heads)


def _ahead(job: Job) -> Ahead:
    return Ahead(job.tenant, job.job_id, job.spec.priority, job.submitted_ms)


# ---- quota --------------------------------------------------------------------------------------


def _quota(state: ClusterState, planner: Planner, job: Job, now_ms: int) -> Quota | None:
    quotas = Quotas(state, planner.usage, now_ms)
    ceiling = quotas.ceiling(job.tenant)
    if ceiling is None:
        return None
    unit = unit_of(state, job)
    count = members_to_start(unit) if unit.spec.gang and unit.array is not None else 1
    refuses = disallowed(planner.fleet, quotas, job.tenant, need_of(job, planner.policy.looks), count) is not None
    prefix = f"{job.tenant}/"
    runs = [run for run in state.runs.values() if run.key.startswith(prefix)]
    runs.sort(key=lambda run: (-len(run.gpus) * (run.gpu_millis or 1000), -run.cpu_millis, -run.memory_bytes, run.seq))
    holders = [
        Holder(
            run.key.partition("/")[2],
            run.node,
            run.cpu_millis,
            run.memory_bytes,
            len(run.gpus) * (run.gpu_millis or 1000),
        )
        for run in runs[:HOLDERS_SHOWN]
    ]
    held = {kind: amount for kind, amount in sorted(quotas.shares.held(job.tenant).items()) if amount}
    owned, limits = dict(ceiling.owned), limits_of(state, job.tenant)
    if limits is not None and limits.budget_micros is not None:
        owned[MONEY] = limits.budget_micros
        held[MONEY] = quotas.spent(job.tenant, limits.budget_period_ms)
    return Quota(refuses, owned, held, holders, max(0, len(runs) - HOLDERS_SHOWN))


# ---- nodes --------------------------------------------------------------------------------------


def _nodes(planner: Planner, job: Job) -> Nodes:
    fleet, need = planner.fleet, need_of(job, planner.policy.looks)
    refused = []
    for one in refusals(fleet, need):
        asked, best = (_amount(one.code, number, need.gpu_millis) for number in (one.asked, one.best))
        refused.append(Refusal(one.code, one.nodes, asked, best))
    with_room = int(np.count_nonzero(feasible(fleet, need))) if fleet.count else 0
    return Nodes(fleet.count, with_room, refused)


def _amount(code: str, number: int, share: int) -> str:
    """A number of a filter, in words."""
    match code:
        case "cpu":
            return f"{format_cpus(max(0, number))} cpus"
        case "memory":
            return format_bytes(max(0, number))
        case "price":
            return f"{format_money(number)} an hour"
        case "gpu":
            return f"{number}/1000 GPU" if share else f"{number} GPUs"
    return ""
