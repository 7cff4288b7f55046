"""Folding what clients ask for, and the leader's verdicts on waiting jobs."""

from __future__ import annotations

from eventsched.events import (
    AbortRequested,
    Admitted,
    CompleteRequested,
    Concluded,
    HoldRequested,
    Keyed,
    ReleaseRequested,
    RequeueRequested,
)
from eventsched.ids import job_key
from eventsched.projections.cluster import gangs
from eventsched.projections.cluster.admitting import admit
from eventsched.projections.cluster.anomalies import anomaly
from eventsched.projections.cluster.arrays import live_members, member_key, reach_member
from eventsched.projections.cluster.finishing import end_unreached, finish
from eventsched.projections.cluster.rounds import in_round
from eventsched.projections.cluster.runs import close_run
from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.recorded import Recorded
from eventsched.spec import JobSpec

_UNREADABLE_SPEC = JobSpec()


def submitted(state: ClusterState, recorded: Recorded, spec: JobSpec, fault: tuple[str, str] | None = None) -> None:
    """A new job waits to be judged. A second submission of a known id never touches the first."""
    _, _, tenant, job_id, _ = recorded.subject.split(".")
    key = job_key(tenant, job_id)
    if key in state.jobs:
        anomaly(state, recorded, "duplicate_submission", key)
        return
    if state.job_id_scope == "cluster":
        if job_id in state.job_ids:
            anomaly(state, recorded, "duplicate_submission", state.job_ids[job_id])
            return
        state.job_ids[job_id] = key
    when = state.clock_ms
    if state.clock_mode == "manual" and spec.submitted_ms is not None:
        when = spec.submitted_ms  # may be long ago, or to come: ages are clamped at 0
    state.jobs[key] = Job(key, recorded.seq, spec, when, held=spec.hold, fault=fault)
    state.unjudged[recorded.seq] = key
    state.changes.jobs[key] = None


def submitted_unreadable(state: ClusterState, recorded: Recorded, code: str, path: str) -> None:
    """A submission nobody can read: the job exists, so that its rejection can be seen."""
    submitted(state, recorded, _UNREADABLE_SPEC, (code, path))


def admitted(state: ClusterState, recorded: Recorded, verdict: Admitted) -> None:
    """The leader judged every submission up to `upto`."""
    if not in_round(state, recorded, verdict):
        return
    rejected = {rejection.seq: rejection for rejection in verdict.rejected}
    for seq in [seq for seq in state.unjudged if seq <= verdict.upto]:
        job = state.jobs[state.unjudged[seq]]
        rejection = rejected.get(seq)
        if rejection is None:
            admit(state, job)
        else:
            text = f"{rejection.path}: {rejection.detail}" if rejection.path else rejection.detail
            finish(state, job, "rejected", rejection.code, text)


def concluded(state: ClusterState, recorded: Recorded, verdict: Concluded) -> None:
    """Waiting jobs that end without a run. One that has got a run meanwhile is left alone."""
    if not in_round(state, recorded, verdict):
        return
    for conclusion in verdict.jobs:
        job = state.jobs.get(job_key(conclusion.tenant, conclusion.job))
        if job is not None and conclusion.member >= 0:
            job = state.jobs.get(member_key(job, conclusion.member))
        if job is None or job.state in TERMINAL:
            continue
        if job.array is not None and job.spec.gang:
            if not job.array.open:
                gangs.end(state, job, conclusion.state, conclusion.reason, conclusion.detail)
        elif job.array is not None:
            end_unreached(state, job, conclusion.state, conclusion.reason, conclusion.detail)
        elif job.state == "pending":
            finish(state, job, conclusion.state, conclusion.reason, conclusion.detail)


# ---- requests about a job ---------------------------------------------------------------


def _target(state: ClusterState, recorded: Recorded, member: int) -> Job | None:
    """The job a request aims at; None (and an anomaly) when it is unknown or has ended."""
    _, _, tenant, job_id, _ = recorded.subject.split(".")
    job = state.jobs.get(job_key(tenant, job_id))
    if job is None:
        anomaly(state, recorded, "unknown_job", f"{tenant}/{job_id}")
        return None
    if member >= 0:
        job = reach_member(state, job, member)
    if job is None or job.state in TERMINAL:
        anomaly(state, recorded, "job_ended" if job else "unknown_job", f"{tenant}/{job_id}")
        return None
    return job


def abort_requested(state: ClusterState, recorded: Recorded, request: AbortRequested) -> None:
    """A waiting job ends at once; one with a run ends when the run does."""
    job = _target(state, recorded, request.member)
    if job is None:
        return
    job.abort_seq = recorded.seq
    for one in live_members(state, job):
        one.abort_seq = recorded.seq
        run = state.runs.get(one.run)
        if run is None:
            finish(state, one, "aborted", "aborted", request.reason[:500])
            _tell_gang(state, one)
        else:
            one.reason = "aborted"
            one.detail = request.reason[:500]
            gangs.owe_stop(state, run, "aborted")
    if job.array is not None and job.state not in TERMINAL:
        end_unreached(state, job, "aborted", "aborted", request.reason[:500])


def _tell_gang(state: ClusterState, member: Job) -> None:
    gang = gangs.unit_of(state, member)
    if gang is not member:
        gangs.member_ended(state, gang, member)


def hold_requested(state: ClusterState, recorded: Recorded, request: HoldRequested) -> None:
    """A held job is not started; a run in progress goes on."""
    _set_held(state, _target(state, recorded, request.member), True)


def release_requested(state: ClusterState, recorded: Recorded, request: ReleaseRequested) -> None:
    """Undo a hold."""
    _set_held(state, _target(state, recorded, request.member), False)


def _set_held(state: ClusterState, job: Job | None, held: bool) -> None:
    if job is None:
        return
    job.held = held
    state.changes.jobs[job.key] = None
    if job.array is not None:
        for member in live_members(state, job):
            member.held = held
            state.changes.jobs[member.key] = None


def requeue_requested(state: ClusterState, recorded: Recorded, request: RequeueRequested) -> None:
    """Stop the run and wait again; a waiting job loses its backoff."""
    job = _target(state, recorded, request.member)
    if job is None:
        return
    unit = gangs.unit_of(state, job)
    unit.not_before_ms = 0
    state.changes.jobs[unit.key] = None
    for one in live_members(state, job):
        one.not_before_ms = 0
        state.changes.jobs[one.key] = None
        run = state.runs.get(one.run)
        if run is None:
            continue
        if run.state == "unknown":
            if request.force:
                close_run(state, run, "stopped", "requeued")
            else:
                anomaly(state, recorded, "run_unknown", f"run {run.seq}: only with force")
        else:
            gangs.owe_stop(state, run, "requeued")


def complete_requested(state: ClusterState, recorded: Recorded, request: CompleteRequested) -> None:
    """A job of the manual driver is finished by hand."""
    job = _target(state, recorded, request.member)
    if job is None:
        return
    run = state.runs.get(job.run)
    if job.spec.driver != "manual" or run is None or run.state not in ("assigned", "starting", "running"):
        anomaly(state, recorded, "not_completable", f"{job.key} is {job.state}, driver {job.spec.driver}")
        return
    state.finishes_owed[run.seq] = request.exit_code


def keyed(state: ClusterState, recorded: Recorded, event: Keyed) -> None:
    """A key of a submission: it is for who asks the log, and says nothing about the cluster."""
