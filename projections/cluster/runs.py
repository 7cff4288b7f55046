"""Folding runs: an assign opens one, reports move it, and closing it is the only way its
resources come back.

A run holds its resources until it is closed, whatever was recorded between the decision's
basis and its commit; an assign that has become unwanted still opens a run, and owes its stop.
"""

from __future__ import annotations

from eventsched.events import FinishOrdered, RunAssigned, RunEnded, RunStarted, RunStarting, StopOrdered
from eventsched.ids import job_key, member_id
from eventsched.projections.cluster import gangs
from eventsched.projections.cluster.admitting import admit
from eventsched.projections.cluster.anomalies import anomaly
from eventsched.projections.cluster.arrays import reach_member
from eventsched.projections.cluster.finishing import finish
from eventsched.projections.cluster.gone import note_gone
from eventsched.projections.cluster.money import charge, rate_of
from eventsched.projections.cluster.rounds import in_round
from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job, Node, Run
from eventsched.recorded import Recorded

BACKOFF_MAX_MS = 300_000
TRIES_KEPT = 16


def run_assigned(state: ClusterState, recorded: Recorded, order: RunAssigned) -> None:
    """Open a run on the node named by the subject."""
    if not in_round(state, recorded, order):
        return
    node = state.nodes.get(recorded.subject[len("ev.assign.") :])
    key = job_key(order.tenant, order.job)
    job = state.jobs.get(key)
    if job is not None and not job.admitted:
        admit(state, job)
    if order.member >= 0:
        job = reach_member(state, job, order.member) if job is not None else None
        key = member_id(key, order.member)
    if node is None or node.session != order.session:
        state.void_assigns += 1  # the agent ignores it too
        if job is not None:
            state.changes.jobs[job.key] = None
            unit = gangs.unit_of(state, job)
            if unit is not job:
                gangs.void(state, unit, order.round)
        return
    run = Run(
        recorded.seq,
        node.node_id,
        order.session,
        key,
        order.attempt,
        order.cpu_millis,
        order.memory_bytes,
        order.gpus,
        order.gpu_millis,
        assigned_ms=state.clock_ms,
    )
    _take(state, node, run)
    rate = rate_of(state.prices, node, run)
    if rate:
        state.rates[run.seq] = rate
    if job is None or job.state != "pending" or job.run in state.runs:
        gangs.owe_stop(state, run, "unwanted")
        return
    _attach(state, job, run, order.round)
    if job.held:
        gangs.owe_stop(state, run, "requeued")


def _take(state: ClusterState, node: Node, run: Run) -> None:
    state.runs[run.seq] = run
    node.runs[run.seq] = None
    node.cpu_free_millis -= run.cpu_millis
    node.memory_free_bytes -= run.memory_bytes
    for uuid in run.gpus:
        if run.gpu_millis:
            node.gpu_shares[uuid] = node.gpu_shares.get(uuid, 0) + run.gpu_millis
        else:
            node.gpu_runs[uuid] = run.seq
    state.changes.nodes[node.node_id] = None


def _attach(state: ClusterState, job: Job, run: Run, round_: int) -> None:
    job.state = "assigned"
    job.reason = ""
    job.detail = ""
    job.run = run.seq
    job.node = run.node
    job.attempt = run.attempt
    job.assigned_ms = state.clock_ms
    job.started_ms = 0
    job.not_before_ms = 0
    job.promised = ""
    if job.tries is None:
        job.tries = [(run.seq, run.node, -1)]
    else:
        job.tries.append((run.seq, run.node, -1))
        del job.tries[:-TRIES_KEPT]
    state.changes.jobs[job.key] = None
    if job.member >= 0:
        parent = state.jobs.get(job.parent_key)
        if parent is not None:
            parent.promised = ""
            if parent.state == "pending":
                parent.state = "running"
                parent.assigned_ms = state.clock_ms
    unit = gangs.unit_of(state, job)
    if unit is not job:
        gangs.attached(state, unit, run, round_)


def stop_ordered(state: ClusterState, recorded: Recorded, order: StopOrdered) -> None:
    """The node has been told to stop the run; it goes on holding its resources."""
    if not in_round(state, recorded, order):
        return
    run = state.runs.get(order.run)
    if run is None:
        return
    state.stops_owed.pop(run.seq, None)
    run.stop_owed = ""
    run.stop_reason = order.reason
    run.stop_detail = order.detail
    favoured = state.jobs.get(order.in_favour_of)
    if favoured is not None and favoured.state not in TERMINAL:
        favoured.promised = run.node
        state.changes.jobs[favoured.key] = None
    if run.state != "unknown":
        run.state = "stopping"
    disturb_gang(state, run)


def disturb_gang(state: ClusterState, run: Run) -> None:
    """A run is being stopped to go back into the queue: what belongs to it need not go on meanwhile."""
    job = state.jobs.get(run.key)
    unit = gangs.unit_of(state, job) if job is not None and job.run == run.seq else job
    if unit is job or unit is None or run.stop_reason not in ("preempted", "drained", "requeued"):
        return
    if gangs.is_doomed(unit) or gangs.is_restarting(unit) or unit.abort_seq:
        return
    if _is_one_too_many(unit, run.stop_reason):
        gangs.end(state, unit, "failed", "gang_failed", f"a member was {run.stop_reason} once too often")
    else:
        gangs.restart(state, unit)


def finish_ordered(state: ClusterState, recorded: Recorded, order: FinishOrdered) -> None:
    """The node has been told to end a manual run."""
    if in_round(state, recorded, order):
        state.finishes_owed.pop(order.run, None)


# ---- reports ----------------------------------------------------------------------------


def _reported_run(state: ClusterState, recorded: Recorded, seq: int) -> Run | None:
    run = state.runs.get(seq)
    if run is None:
        state.late_reports += 1
        return None
    if recorded.subject[len("ev.run.") :] != run.node:
        anomaly(state, recorded, "foreign_report", f"run {seq} is on {run.node}")
        return None
    return run


def run_starting(state: ClusterState, recorded: Recorded, report: RunStarting) -> None:
    """The start takes a while."""
    run = _reported_run(state, recorded, report.run)
    if run is None or run.state != "assigned":
        return
    run.state = "starting"
    job = state.jobs.get(run.key)
    if job is not None and job.run == run.seq:
        job.state = "starting"
        job.detail = report.phase[:100]


def run_started(state: ClusterState, recorded: Recorded, report: RunStarted) -> None:
    """The run's process runs."""
    run = _reported_run(state, recorded, report.run)
    if run is None or run.started_ms:
        return
    run.started_ms = state.clock_ms
    if run.state in ("assigned", "starting"):
        run.state = "running"
    job = state.jobs.get(run.key)
    if job is None or job.run != run.seq:
        return
    job.state = "running"
    job.started_ms = state.clock_ms
    if not job.abort_seq:
        job.detail = ""
    if job.member >= 0:
        parent = state.jobs.get(job.parent_key)
        if parent is not None and not parent.started_ms:
            parent.started_ms = state.clock_ms


def run_ended(state: ClusterState, recorded: Recorded, report: RunEnded) -> None:
    """The run is over."""
    run = _reported_run(state, recorded, report.run)
    if run is not None:
        close_run(state, run, report.outcome, report.reason, report.detail, report.exit_code, report.log_chunks)


def close_run(
    state: ClusterState,
    run: Run,
    outcome: str,
    reason: str = "",
    detail: str = "",
    exit_code: int | None = None,
    log_chunks: int = 0,
) -> None:
    """Free what the run held and settle its job. `outcome` as in `RunEnded`."""
    del state.runs[run.seq]
    charge(state, run)
    state.stops_owed.pop(run.seq, None)
    state.finishes_owed.pop(run.seq, None)
    node = state.nodes[run.node]
    node.runs.pop(run.seq, None)
    node.cpu_free_millis += run.cpu_millis
    node.memory_free_bytes += run.memory_bytes
    for uuid in run.gpus:
        if run.gpu_millis:
            left = node.gpu_shares.pop(uuid, 0) - run.gpu_millis
            if left > 0:
                node.gpu_shares[uuid] = left
        elif node.gpu_runs.get(uuid) == run.seq:
            del node.gpu_runs[uuid]
    state.changes.nodes[node.node_id] = None
    if not node.session:
        note_gone(state, node)
    job = state.jobs.get(run.key)
    if job is None or job.run != run.seq or job.state in TERMINAL:
        return
    if job.tries:
        job.tries[-1] = (run.seq, run.node, log_chunks)
    _settle(state, job, run, outcome, reason, detail[:500], exit_code)


def _settle(
    state: ClusterState, job: Job, run: Run, outcome: str, reason: str, detail: str, exit_code: int | None
) -> None:
    """What the end of its run means for the job, and for the gang it belongs to."""
    unit = gangs.unit_of(state, job)
    if job.abort_seq:
        finish(state, job, "aborted", "aborted", job.detail, exit_code)
    elif outcome == "exited" and exit_code == 0:
        finish(state, job, "succeeded", exit_code=0)
    elif unit is not job and gangs.is_doomed(unit):
        finish(state, job, "failed", "gang_failed", "", exit_code)
    elif unit is not job and gangs.is_restarting(unit):
        _wait_again(state, job, run.stop_reason or reason or "gang", detail, exit_code)
    elif outcome == "timed_out":
        finish(state, job, "timed_out", "max_runtime", detail, exit_code)
    elif outcome in ("exited", "oom", "start_failed"):
        _failed(state, unit, job, run, reason or "exit_code", detail, exit_code)
    elif outcome == "stopped":
        _put_back(state, unit, job, run.stop_reason or reason or "requeued", run.stop_detail or detail, exit_code)
    else:
        _put_back(state, unit, job, reason or "node_gone", detail, exit_code)
    if unit is not job:
        gangs.detached(state, unit, job)


def _failed(
    state: ClusterState, unit: Job, job: Job, run: Run, reason: str, detail: str, exit_code: int | None
) -> None:
    """The job's own failure: try again while `retries` last, preferably elsewhere."""
    unit.failures += 1
    if unit.failures > job.spec.retries:
        finish(state, job, "failed", reason, detail, exit_code)
        return
    _wait_again(state, job, reason, detail, exit_code)
    job.avoid_node = run.node
    backoff = min(job.spec.retry_backoff_ms << min(unit.failures - 1, 20), BACKOFF_MAX_MS)
    unit.not_before_ms = state.clock_ms + backoff


def _put_back(state: ClusterState, unit: Job, job: Job, reason: str, detail: str, exit_code: int | None) -> None:
    """Not the job's fault: it waits again; too many losses, or `on_lost: fail`, end it."""
    _wait_again(state, job, reason, detail, exit_code)
    if _is_one_too_many(unit, reason):
        finish(state, job, "failed", "node_lost", detail or reason, exit_code)


def _is_one_too_many(unit: Job, reason: str) -> bool:
    """Count a run that ended for no fault of its own."""
    if reason in ("requeued", "unwanted"):
        return False
    unit.losses += 1
    unit.evictions += reason == "preempted"
    lost = reason not in ("drained", "preempted")
    return unit.losses > unit.spec.max_lost or (lost and unit.spec.on_lost == "fail")


def _wait_again(state: ClusterState, job: Job, reason: str, detail: str, exit_code: int | None) -> None:
    job.state = "pending"
    state.changes.jobs[job.key] = None
    job.reason = reason
    job.detail = detail
    job.exit_code = exit_code
