"""Order: which job is looked at first. A key of integers, smaller first, that ends in what is unique."""

from __future__ import annotations

from collections.abc import Callable

from eventsched.projections.cluster.state import Job

OrderKey = tuple[int, ...]
Order = Callable[[Job], OrderKey]


def by_priority(job: Job) -> OrderKey:
    """Higher priority first, then order of submission (sequence), then index in the array."""
    return (-job.spec.priority, job.seq, job.member)
