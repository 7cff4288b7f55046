"""Order: which job is looked at first.

Jobs of one group keep their order among each other for ever, by `key`; across groups it is `rank`
that counts, which may depend on the time and on what tenants hold. So queues stay sorted, and only
their heads are compared. Smaller comes first; every key ends in something unique.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eventsched.projections.cluster.state import Job
from eventsched.projections.scheduling.usage import Shares

Key = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """What a rank may depend on besides the job. aging_ms: waiting so long is worth one priority."""

    now_ms: int
    shares: Shares
    aging_ms: int


@dataclass(frozen=True, slots=True)
class Order:
    """One order. moving: ranks change while a round places jobs (they only ever grow)."""

    summary: str
    group: Callable[[Job], Key]
    key: Callable[[Job], Key]
    rank: Callable[[Moment, Job], Key]
    moving: bool = False


def _by_priority(job: Job) -> Key:
    return (-job.spec.priority, job.seq, job.member)


def _by_submission(job: Job) -> Key:
    return (job.seq, job.member)


def _by_time(job: Job) -> Key:
    return (job.submitted_ms, job.job_id)


def _aged(moment: Moment, job: Job) -> Key:
    waited_ms = max(0, moment.now_ms - job.submitted_ms)
    return (-(job.spec.priority + waited_ms // moment.aging_ms), *_by_time(job))


def _fair(moment: Moment, job: Job) -> Key:
    return (moment.shares.dominant(job.tenant), job.tenant, *_by_priority(job))


ORDERS: dict[str, Order] = {
    "priority": Order(
        "higher priority first, then order of submission",
        lambda job: (),
        _by_priority,
        lambda moment, job: _by_priority(job),
    ),
    "fifo": Order(
        "order of submission",
        lambda job: (),
        _by_submission,
        lambda moment, job: _by_submission(job),
    ),
    "aging": Order(
        "priority + waited // aging_ms, then earlier submitted, then job id",
        lambda job: (job.spec.priority,),  # jobs of one priority never overtake each other
        _by_time,
        _aged,
    ),
    "drf": Order(
        "the tenant with the smallest dominant share (by weight) first; then as priority",
        lambda job: (),
        _by_priority,
        _fair,
        moving=True,
    ),
}
