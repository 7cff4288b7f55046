"""Members of arrays that never became objects: they wait, or ended with their array as a range."""

from __future__ import annotations

from msgspec import structs

from eventsched.ids import member_id
from eventsched.projections.cluster.arrays import is_unreached
from eventsched.projections.cluster.state import Job
from eventsched.views import JobView

_REASONS = {"aborted": "aborted", "expired": "queue_timeout"}
PENDING = "pending"


def fate_of_range(parent: Job, index: int, known: dict[str, int]) -> str:
    """The state of a member that is no job of its own: pending, or how it ended; "" = it is neither.

    known: how many members are known to have ended in which state, as jobs of their own.
    """
    array = parent.array
    if array is None or not 0 <= index < parent.spec.array:
        return ""
    return PENDING if is_unreached(array, index) else range_end(parent, known)


def range_end(parent: Job, known: dict[str, int]) -> str:
    """The state in which those members of an array ended that are not among the `known` ones.

    They end all at once, so what the array counts beyond the known ends is of one state; "" when there
    are none, or when too little is known to say.
    """
    assert parent.array is not None
    rest = [state for state, count in parent.array.ended.items() if count > known.get(state, 0)]
    return rest[0] if len(rest) == 1 else ""


def view_of_range(view: JobView, parent: Job, index: int, state: str) -> JobView:
    """A member that is no job of its own, in this state; `view` is its array's."""
    member = structs.replace(
        view, job_id=member_id(parent.job_id, index), state=state, array=0, members={}, tries=[], exit_code=None
    )
    member.assigned_ms = member.started_ms = None
    if state == PENDING:
        member.finished_ms = None
    elif parent.array is not None and parent.array.ended.get(state) != parent.spec.array:  # the array says otherwise
        member.reason, member.detail = _REASONS.get(state, ""), ""
    return member
