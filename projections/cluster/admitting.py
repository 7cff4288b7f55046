"""Accepting a submission: from here on the job may be scheduled, once its parents allow it."""

from __future__ import annotations

from eventsched.ids import job_key
from eventsched.projections.cluster.demand import count
from eventsched.projections.cluster.finishing import doom, resolve_parent
from eventsched.projections.cluster.state import TERMINAL, ArrayState, ClusterState, Job


def admit(state: ClusterState, job: Job) -> None:
    """Accept a submission: from here on it may be scheduled."""
    job.admitted = True
    state.unjudged.pop(job.seq, None)
    state.changes.jobs[job.key] = None
    spec = job.spec
    count(state, spec)
    if spec.array and job.state not in TERMINAL:  # it may have been aborted just before its first assign
        job.array = ArrayState()
    if spec.after_ok or spec.after_any:
        _link_parents(state, job)


def _link_parents(state: ClusterState, job: Job) -> None:
    rules = dict.fromkeys(spec_parents(job, job.spec.after_any), "any")
    rules.update(dict.fromkeys(spec_parents(job, job.spec.after_ok), "ok"))
    waiting: dict[str, str] = {}
    for key, rule in rules.items():
        parent = state.jobs.get(key)
        if parent is None:  # forgotten between the leader's look and this commit
            doom(state, job, key.partition("/")[2])
        elif parent.state in TERMINAL:
            resolve_parent(state, job, parent, rule)
        else:
            waiting[key] = rule
            if parent.dependents is None:
                parent.dependents = []
            parent.dependents.append(job.key)
    job.waiting_on = waiting or None


def spec_parents(job: Job, parents: tuple[str, ...]) -> list[str]:
    """Keys of the parents a spec names: jobs of the same tenant."""
    return [job_key(job.tenant, parent) for parent in parents]
