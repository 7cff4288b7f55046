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
from eventsched.spec import JobSpec

Key = tuple[int | str, ...]

EVICTIONS_MAX = 10
"""A job that had to give way is worth one priority more each time, up to this many."""


def expected_ms(spec: JobSpec) -> int:
    """How long a run will probably take; 0 = nobody said."""
    return spec.estimate_ms or spec.max_runtime_ms


def priority_of(job: Job) -> int:
    """The priority in an order: raised for a job that had to give way."""
    return job.spec.priority + min(job.evictions, EVICTIONS_MAX)


def standing(job: Job) -> Key:
    """Who gives way to whom, larger is higher: best effort to all others, then priority, then batch to
    latency_sensitive. Nothing that changes counts, so that a victim never drives out its preemptor."""
    spec = job.spec
    return (int(spec.sla != "best_effort"), spec.priority, int(spec.sla == "latency_sensitive"))


def width(job: Job) -> int:
    """How much of a cluster one run takes, in thousandths: GPUs, or cpus where none is asked for."""
    asked = job.spec.resources
    return asked.gpus * 1000 + asked.gpu_millis or asked.cpu_millis


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
    return (-priority_of(job), job.seq, job.member)


def _by_submission(job: Job) -> Key:
    return (job.seq, job.member)


def _by_time(job: Job) -> Key:
    return (job.submitted_ms, job.job_id)


def _aged(moment: Moment, job: Job) -> Key:
    waited_ms = max(0, moment.now_ms - job.submitted_ms)
    return (-(priority_of(job) + waited_ms // moment.aging_ms), *_by_time(job))


def _by_work(job: Job) -> Key:
    """Time x GPUs, or time x cpus where none is asked for, in thousandths; of a gang all members count."""
    work = expected_ms(job.spec) * width(job) * (job.spec.array if job.spec.gang else 1)
    return (int(not work), work, *_by_priority(job))


def _by_deadline(job: Job) -> Key:
    wished = job.spec.deadline_ms
    return (int(not wished), job.submitted_ms + wished if wished else 0, *_by_priority(job))


def _fair(moment: Moment, job: Job) -> Key:
    return (moment.shares.dominant(job.tenant), job.tenant, *_by_priority(job))


ORDERS: dict[str, Order] = {
    "priority": Order(
        "higher priority first (+1 for each time it gave way), then order of submission",
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
        lambda job: (priority_of(job),),  # jobs of one priority never overtake each other
        _by_time,
        _aged,
    ),
    "srsf": Order(
        "the least work first: expected runtime x GPUs (x cpus without GPUs); unknown last; then as priority",
        lambda job: (),
        _by_work,
        lambda moment, job: _by_work(job),
    ),
    "edf": Order(
        "the earliest deadline first, none last; then as priority",
        lambda job: (),
        _by_deadline,
        lambda moment, job: _by_deadline(job),
    ),
    "drf": Order(
        "the tenant with the smallest dominant share (by weight) first; then as priority",
        lambda job: (),
        _by_priority,
        _fair,
        moving=True,
    ),
}
