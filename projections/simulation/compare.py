"""A comparison: the same workload under several policies, with the same chances for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from eventsched.projections.simulation import chance
from eventsched.projections.simulation.engine import Options, Simulation, Sink
from eventsched.projections.simulation.metrics import details, measure, tenant_details
from eventsched.projections.simulation.progress import Progress
from eventsched.projections.simulation.reports import Runs
from eventsched.projections.simulation.workload import Workload


def compare(
    workload: Workload,
    policies: Sequence[str],
    seeds: int,
    options: Options,
    *,
    resample: bool = False,
    sink: Sink | None = None,
    progress: Progress | None = None,
) -> tuple[Runs, dict[str, dict[str, object]]]:
    """Metrics by policy and seed, and of each policy's first seed all its `jobs` and `tenants`.

    resample: every seed draws the jobs again, with replacement, at the same times of submission.
    """
    runs: Runs = {policy: [] for policy in policies}
    stories: dict[str, dict[str, object]] = {}
    for seed in range(seeds):
        chances = dataclasses.replace(options, seed=seed)
        played = resampled(workload, seed) if resample else workload
        for policy in policies:
            label = f"{policy} · seed {seed}" if seeds > 1 else policy
            simulation = Simulation(played, policy, chances, sink)
            total = len(played.jobs)
            tell = None if progress is None else _teller(progress, label, total)
            outcome = simulation.run(tell)
            if progress is not None:
                progress(label, total, total)
            runs[policy].append(measure(outcome))
            if seed == 0:
                stories[policy] = {"jobs": details(outcome), "tenants": tenant_details(outcome)}
    return runs, stories


def _teller(progress: Progress, label: str, total: int) -> Callable[[int], None]:
    return lambda ended: progress(label, min(ended, total), total)


def resampled(workload: Workload, seed: int) -> Workload:
    """Jobs drawn from a workload, with replacement: the times of submission stay, the rest is drawn.

    They are named by their place. None waits for another: a job that is drawn comes without the one it waited for.
    """
    jobs = []
    for index, job in enumerate(workload.jobs):
        drawn = workload.jobs[chance.below(len(workload.jobs), seed, "resample", index)]
        alone = replace(drawn.spec, after_ok=(), after_any=())
        jobs.append(replace(drawn, submit_ms=job.submit_ms, job_id=f"r{index}", spec=alone))
    return Workload(jobs, workload.nodes, workload.notes)
