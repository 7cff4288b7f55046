"""Arrays: one submission, n members. A member becomes an object only when something happens to it."""

from __future__ import annotations

from eventsched.ids import member_id
from eventsched.projections.cluster.state import ArrayState, ClusterState, Job


def member_key(parent: Job, index: int) -> str:
    """The key of member `index`."""
    return member_id(parent.key, index)


def is_unreached(array: ArrayState, index: int) -> bool:
    """True when the member is still part of the range: never run, never touched."""
    return index >= array.next and index not in array.taken


def unreached(job: Job) -> int:
    """How many members of an array are still part of its range; of any other job, none."""
    array = job.array
    return 0 if array is None else job.spec.array - array.next - len(array.taken)


def reach_member(state: ClusterState, parent: Job, index: int) -> Job | None:
    """The member as a job, made now if it was part of the range; None if it is unknown or forgotten."""
    if parent.array is None or not 0 <= index < parent.spec.array:
        return None
    if is_unreached(parent.array, index):
        return _materialise(state, parent, index)
    return state.jobs.get(member_key(parent, index))


def live_members(state: ClusterState, job: Job) -> list[Job]:
    """The job itself, or the members of an array that exist and have not ended."""
    if job.array is None:
        return [job]
    return [state.jobs[member_key(job, index)] for index in job.array.live]


def _materialise(state: ClusterState, parent: Job, index: int) -> Job:
    array = parent.array
    assert array is not None
    member = Job(
        member_key(parent, index),
        parent.seq,
        parent.spec,
        parent.submitted_ms,
        admitted=True,
        held=parent.held,
        member=index,
        abort_seq=parent.abort_seq,
    )
    state.jobs[member.key] = member
    array.live[index] = None
    array.taken[index] = None
    _advance(array)
    state.changes.jobs[member.key] = None
    state.changes.jobs[parent.key] = None
    return member


def _advance(array: ArrayState) -> None:
    """Move `next` past members that exist already."""
    while array.next in array.taken:
        del array.taken[array.next]
        array.next += 1
