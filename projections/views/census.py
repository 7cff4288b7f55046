"""The cluster counted: what metrics show, in one pass over the state. Pure; costs time with the live jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

from eventsched.projections.cluster.arrays import unreached
from eventsched.projections.cluster.money import cost_between
from eventsched.projections.cluster.state import TERMINAL, ClusterState
from eventsched.projections.views.present import node_state

_NEVER = 2**62


@dataclass(slots=True)
class Stock:
    """What usable nodes have of something, and how much of it runs hold."""

    total: int = 0
    held: int = 0


@dataclass(slots=True)
class Census:
    """Counts of live things. Members of arrays are jobs, arrays are not.

    waiting: jobs without a run, by tenant. oldest_ms: when the first of those was submitted that neither
    is held nor waits for others. spent_micros: by tenant, open runs included.
    gpu_millis: by model; 1000 = a whole device.
    """

    jobs: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    oldest_ms: dict[str, int] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    cpu_millis: Stock = field(default_factory=Stock)
    memory_bytes: Stock = field(default_factory=Stock)
    gpu_millis: dict[str, Stock] = field(default_factory=dict)
    spent_micros: dict[str, int] = field(default_factory=dict)


def take_census(state: ClusterState, now_ms: int) -> Census:
    """Count everything."""
    census = Census()
    _count_jobs(census, state)
    for run in state.runs.values():
        census.runs[run.state] = census.runs.get(run.state, 0) + 1
    _count_nodes(census, state)
    census.spent_micros = {tenant: account.total_micros for tenant, account in state.accounts.items()}
    for seq, rate in state.rates.items():
        run = state.runs[seq]
        tenant = run.key.partition("/")[0]
        cost = cost_between(rate, run.assigned_ms, run.assigned_ms, now_ms)
        census.spent_micros[tenant] = census.spent_micros.get(tenant, 0) + cost
    return census


def _count_jobs(census: Census, state: ClusterState) -> None:
    """One plain loop: there may be a million jobs, and nobody is answered meanwhile."""
    jobs, waiting, oldest_ms = census.jobs, census.waiting, census.oldest_ms
    for job in state.jobs.values():
        shown, count = job.state, 1
        if job.array is not None and shown not in TERMINAL:  # its other members are jobs of their own
            shown, count = "pending", unreached(job)
        if shown == "pending" and count:
            tenant = job.key.partition("/")[0]
            waiting[tenant] = waiting.get(tenant, 0) + count
            since_ms = job.submitted_ms
            if since_ms < oldest_ms.get(tenant, _NEVER) and not job.held and not job.waiting_on:
                oldest_ms[tenant] = since_ms
        jobs[shown] = jobs.get(shown, 0) + count
    for ended in TERMINAL:
        jobs.pop(ended, None)
    if not jobs.get("pending"):
        jobs.pop("pending", None)


def _count_nodes(census: Census, state: ClusterState) -> None:
    for node in state.nodes.values():
        shown = node_state(node)
        census.nodes[shown] = census.nodes.get(shown, 0) + 1
        if not node.session:
            continue
        capacity = node.capacity
        census.cpu_millis.total += capacity.cpu_millis
        census.cpu_millis.held += capacity.cpu_millis - node.cpu_free_millis
        census.memory_bytes.total += capacity.memory_bytes
        census.memory_bytes.held += capacity.memory_bytes - node.memory_free_bytes
        for gpu in capacity.gpus:
            stock = census.gpu_millis.setdefault(gpu.model, Stock())
            stock.total += 1000
            stock.held += 1000 if gpu.uuid in node.gpu_runs else node.gpu_shares.get(gpu.uuid, 0)
