"""Finish-time fairness: how much longer a job took than with its fair share of the cluster to itself.

rho = JCT / the time in isolation (Themis, NSDI 2020): as long as its longest run, or as its work takes on
1 / N of the cluster, whichever is longer; N is the mean number of jobs in the system while it was there.
Where runs take different times on different GPU models, rho is the mean over the models it may run on,
weighted by how many devices there are of each (Sia, SOSP 2023). Floats: nothing decides by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from eventsched.projections.cluster.tenants import limits_of
from eventsched.projections.scheduling.needs import models_of
from eventsched.projections.simulation.accounts import Amounts
from eventsched.projections.simulation.outcome import Outcome, Record
from eventsched.projections.simulation.workload import SimJob

UNFAIR = 1.05
"""Above this a job counts as treated unfairly, as others count it."""


class Isolation:
    """The cluster as one job would have had a share of it: mean capacities, devices by model."""

    def __init__(self, outcome: Outcome) -> None:
        span_ms = max(1, outcome.end_ms - outcome.start_ms)
        self.capacity = [amount / span_ms for amount in outcome.accounts.capacity_time]
        self.models = Counter(gpu.model.lower() for node in outcome.nodes for gpu in node.joined.capacity.gpus)

    def rho(self, record: Record) -> float | None:
        """Finish-time fairness of a job that has run to its end; None where it took no time."""
        jct_ms = record.finished_ms - record.submitted_ms
        jobs = record.crowd_ms / jct_ms if jct_ms else 0.0
        shares = self._shares(record.job)
        alone_ms = {model: self._alone_ms(record.job, model, jobs) for model in shares}
        if not jct_ms or not all(alone_ms.values()):
            return None
        whole = sum(shares.values())
        return sum(share / whole * jct_ms / alone_ms[model] for model, share in shares.items())

    def _shares(self, job: SimJob) -> Mapping[str, int]:
        """How many devices there are of each model on which the job would take another time."""
        if not job.model_ms:
            return {"": 1}
        wanted = models_of(job.spec.resources.gpu_model)
        return {model: count for model, count in self.models.items() if not wanted or model in wanted} or {"": 1}

    def _alone_ms(self, job: SimJob, model: str, jobs: float) -> float:
        spec = job.spec
        count = max(1, spec.array)
        limit_ms = spec.max_runtime_ms or float("inf")
        runs_ms = [min(job.takes_ms(member, model), limit_ms) for member in (range(count) if job.member_ms else [-1])]
        work_ms = sum(runs_ms) * (1 if job.member_ms else count)
        asked = spec.resources
        amounts: Amounts = (asked.cpu_millis, asked.memory_bytes, asked.gpu_millis or 1000 * asked.gpus)
        shared = [
            work_ms * amount * jobs / capacity
            for amount, capacity in zip(amounts, self.capacity, strict=True)
            if capacity
        ]
        return max([*runs_ms, *shared])


def tenant_shares(outcome: Outcome) -> list[float]:
    """What each tenant got of what it was entitled to: its dominant share of the cluster, averaged over the time
    it had jobs in the system, by its weight. Up to a factor all have alike."""
    books = outcome.accounts
    found = []
    for name, one in books.tenants.items():
        limits = limits_of(outcome.state, name)
        shares = [
            held / capacity for held, capacity in zip(one.held_time, books.capacity_time, strict=True) if capacity
        ]
        if one.active_ms:
            found.append(max(shares, default=0.0) / one.active_ms / (limits.weight if limits else 1))
    return found
