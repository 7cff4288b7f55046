"""From the state's records to views. Pure; a view is a copy, so it may outlive the state's next event."""

from __future__ import annotations

from typing import Any

from eventsched.projections.cluster.arrays import live_members, member_key, unreached
from eventsched.projections.cluster.money import cost_between
from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job, Node
from eventsched.resources import Capacity
from eventsched.views import JobView, NodeView, Stats, Try


def job_view(state: ClusterState, job: Job) -> JobView:
    """A job as people see it; `reason` of a waiting job is only what the state itself records."""
    spec, asked = job.spec, job.spec.resources
    run = state.runs.get(job.run)
    return JobView(
        job_id=job.job_id,
        tenant=job.tenant,
        state=job.state,
        reason=job.reason,
        detail=job.detail,
        name=spec.name,
        node=job.node,
        attempt=job.attempt,
        exit_code=job.exit_code,
        submitted_ms=job.submitted_ms,
        assigned_ms=job.assigned_ms or None,
        started_ms=job.started_ms or None,
        finished_ms=job.finished_ms or None,
        seq=job.seq,
        run=job.run,
        run_state=run.state if run is not None and run.key == job.key else "",
        held=job.held,
        priority=spec.priority,
        failures=job.failures,
        losses=job.losses,
        evictions=job.evictions,
        cost_micros=job.cost_micros + _cost_of_open_runs(state, job),
        driver=spec.driver,
        image=spec.image,
        command=list(spec.command),
        cpu_millis=asked.cpu_millis,
        memory_bytes=asked.memory_bytes,
        gpus=asked.gpus,
        gpu_model=asked.gpu_model,
        labels=dict(spec.labels),
        waiting_on=[key.partition("/")[2] for key in job.waiting_on or {}],
        array=spec.array if job.array is not None else 0,
        members=_members(state, job),
        tries=[Try(*one) for one in job.tries or []],
        submitted_by=spec.submitted_by,
    )


def _cost_of_open_runs(state: ClusterState, job: Job) -> int:
    """What runs that go on have cost up to the state's clock."""
    cost = 0
    for one in live_members(state, job) if state.rates else ():
        run = state.runs.get(one.run)
        if run is not None and run.key == one.key:
            cost += cost_between(state.rates.get(run.seq, 0), run.assigned_ms, run.assigned_ms, state.clock_ms)
    return cost


def _members(state: ClusterState, job: Job) -> dict[str, int]:
    array = job.array
    if array is None:
        return {}
    counts = dict(array.ended)
    for index in array.live:
        member = state.jobs[member_key(job, index)]
        counts[member.state] = counts.get(member.state, 0) + 1
    if waiting := unreached(job):
        counts["pending"] = counts.get("pending", 0) + waiting
    return counts


def capacity_dict(cpu_millis: int, memory_bytes: int, gpus: dict[str, int]) -> dict[str, Any]:
    """Amounts as views carry them."""
    return {"cpu_millis": cpu_millis, "memory_bytes": memory_bytes, "gpus": gpus}


def _gpu_counts(capacity: Capacity, busy: dict[str, int] | None = None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for gpu in capacity.gpus:
        counts[gpu.model] = counts.get(gpu.model, 0) + (busy is None or gpu.uuid not in busy)
    return counts


def node_state(node: Node) -> str:
    """A node's state as people see it: a drain says more than that the agent is well."""
    if node.state != "ready" or not node.draining:
        return node.state
    return "draining" if node.runs else "drained"


def node_view(state: ClusterState, node: Node) -> NodeView:
    """A node as people see it, without what only heartbeats know."""
    capacity = node.capacity
    return NodeView(
        node=node.node_id,
        state=node_state(node),
        capacity=capacity_dict(capacity.cpu_millis, capacity.memory_bytes, _gpu_counts(capacity)),
        free=capacity_dict(node.cpu_free_millis, node.memory_free_bytes, _gpu_counts(capacity, node.gpu_runs)),
        cordoned=node.cordoned,
        draining=node.draining,
        drivers=list(node.drivers),
        labels=dict(node.labels),
        session=node.session,
        machine_id=node.machine_id,
        leash=node.leash,
        joined_ms=node.joined_ms or None,
        runs=[
            {
                "run": run.seq,
                "tenant": run.key.partition("/")[0],
                "job_id": run.key.partition("/")[2],
                "state": run.state,
                "cpu_millis": run.cpu_millis,
                "memory_bytes": run.memory_bytes,
                "gpus": list(run.gpus),
                "started_ms": run.started_ms or None,
            }
            for run in (state.runs[seq] for seq in node.runs)
        ],
        gpus=[
            {"uuid": gpu.uuid, "model": gpu.model, "variant": gpu.variant, "run": node.gpu_runs.get(gpu.uuid, 0)}
            for gpu in capacity.gpus
        ],
    )


def stats(state: ClusterState, answered_by: str, role: str) -> Stats:
    """The cluster in numbers. Members of arrays count as jobs, the arrays themselves do not."""
    jobs: dict[str, int] = {}
    for job in state.jobs.values():
        if job.array is not None:
            waiting = unreached(job)
            if waiting and job.state not in TERMINAL:
                jobs["pending"] = jobs.get("pending", 0) + waiting
        elif job.state not in TERMINAL:
            jobs[job.state] = jobs.get(job.state, 0) + 1
    nodes: dict[str, int] = {}
    nodes_open = 0
    total = {"cpu_millis": 0, "memory_bytes": 0}
    free = {"cpu_millis": 0, "memory_bytes": 0}
    gpus: dict[str, int] = {}
    gpus_free: dict[str, int] = {}
    for node in state.nodes.values():
        shown = node_state(node)
        nodes[shown] = nodes.get(shown, 0) + 1
        if not node.session:
            continue
        nodes_open += node.state == "ready" and not node.cordoned
        total["cpu_millis"] += node.capacity.cpu_millis
        total["memory_bytes"] += node.capacity.memory_bytes
        free["cpu_millis"] += node.cpu_free_millis
        free["memory_bytes"] += node.memory_free_bytes
        for model, count in _gpu_counts(node.capacity).items():
            gpus[model] = gpus.get(model, 0) + count
        for model, count in _gpu_counts(node.capacity, node.gpu_runs).items():
            gpus_free[model] = gpus_free.get(model, 0) + count
    return Stats(
        cluster_id=state.cluster_id,
        seq=state.seq,
        clock_ms=state.clock_ms,
        leader=state.leader,
        epoch=state.epoch,
        answered_by=answered_by,
        role=role,
        rounds=state.rounds,
        policy=f"{state.policy.name}/{state.policy.version}",
        jobs=jobs,
        ended=dict(state.ended),
        nodes=nodes,
        nodes_open=nodes_open,
        capacity={**total, "gpus": gpus},
        free={**free, "gpus": gpus_free},
        runs=len(state.runs),
        anomalies=dict(state.anomalies),
        recent_anomalies=[
            {"seq": one.seq, "kind": one.kind, "subject": one.subject, "detail": one.detail}
            for one in state.recent_anomalies
        ],
        late_reports=state.late_reports,
        void_assigns=state.void_assigns,
        clock_mode=state.clock_mode,
    )
