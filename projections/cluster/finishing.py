"""How a job ends: the one place that makes a state final, wakes dependents and forgets old jobs.

The state must not grow with history: the last `finished_keep` ended jobs stay (a count of
events, never time); older ones are answered from the history, which the same fold fills.
"""

from __future__ import annotations

from eventsched.projections.cluster.arrays import unreached
from eventsched.projections.cluster.state import TERMINAL, ArrayState, ClusterState, Job


def finish(
    state: ClusterState, job: Job, final: str, reason: str = "", detail: str = "", exit_code: int | None = None
) -> None:
    """Make `job` end in state `final`."""
    assert job.state not in TERMINAL, job.key
    assert final in TERMINAL, final
    if job.state == "pending" or job.array is not None:
        state.changes.jobs[job.key] = None
    job.state = final
    job.reason = reason
    job.detail = detail
    job.exit_code = exit_code
    job.finished_ms = state.clock_ms
    job.waiting_on = None
    if not job.admitted:
        state.unjudged.pop(job.seq, None)
    if job.doomed_by:
        state.doomed.pop(job.key, None)
    state.ended[final] = state.ended.get(final, 0) + 1
    ordinal = state.finished_total
    state.finished[ordinal] = job.key
    state.finished_total = ordinal + 1
    state.changes.ended.append(job)
    if job.dependents is not None:
        _wake_dependents(state, job)
    _forget(state, ordinal - state.finished_keep)
    if job.member >= 0:
        parent = state.jobs.get(job.parent_key)
        if parent is not None and parent.array is not None:
            parent.array.live.pop(job.member, None)
            _count_member(state, parent, final)


def _forget(state: ClusterState, ordinal: int) -> None:
    key = state.finished.pop(ordinal, None)
    if key is None:
        return
    job = state.jobs.pop(key, None)
    if job is not None and state.job_ids.get(job.job_id) == key:
        del state.job_ids[job.job_id]


def _wake_dependents(state: ClusterState, parent: Job) -> None:
    dependents, parent.dependents = parent.dependents or [], None
    for key in dependents:
        child = state.jobs.get(key)
        if child is None or child.waiting_on is None:
            continue
        rule = child.waiting_on.pop(parent.key, None)
        if rule is not None:
            resolve_parent(state, child, parent, rule)


def resolve_parent(state: ClusterState, child: Job, parent: Job, rule: str) -> None:
    """A parent has ended: release the child, or doom it when it needed a success."""
    satisfied = parent.state == "succeeded" or (rule == "any" and parent.state != "rejected")
    if not satisfied and not child.doomed_by:
        doom(state, child, parent.job_id)
    state.changes.jobs[child.key] = None


def doom(state: ClusterState, job: Job, parent_id: str) -> None:
    """Note that `job` can never start; the leader concludes it."""
    job.doomed_by = parent_id
    state.doomed[job.key] = None


def end_unreached(state: ClusterState, parent: Job, final: str, reason: str, detail: str) -> None:
    """End all members of an array that were never reached, without making objects of them."""
    array = parent.array
    assert array is not None
    count = unreached(parent)
    array.next = parent.spec.array
    array.taken.clear()
    if count:
        state.ended[final] = state.ended.get(final, 0) + count
        array.ended[final] = array.ended.get(final, 0) + count
    if array.ended.get(final) == parent.spec.array:
        finish(state, parent, final, reason, detail)
    else:
        _finish_array(state, parent, array)


def _count_member(state: ClusterState, parent: Job, final: str) -> None:
    array = parent.array
    if array is None:
        return
    array.ended[final] = array.ended.get(final, 0) + 1
    _finish_array(state, parent, array)


def _finish_array(state: ClusterState, parent: Job, array: ArrayState) -> None:
    """An array ends with its last member: succeeded only if all of them did."""
    state.changes.jobs[parent.key] = None
    if parent.state in TERMINAL or array.live or array.next < parent.spec.array:
        return
    if array.fate is not None:
        finish(state, parent, *array.fate)
        return
    failed = parent.spec.array - array.ended.get("succeeded", 0)
    text = f"{failed} of {parent.spec.array} members did not succeed"
    if not failed:
        finish(state, parent, "succeeded", exit_code=0)
    elif parent.abort_seq:
        finish(state, parent, "aborted", "aborted", text)
    else:
        finish(state, parent, "failed", "gang_failed" if parent.spec.gang else "members_failed", text)
