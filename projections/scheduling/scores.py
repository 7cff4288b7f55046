"""Scores: how good a feasible node is, in integer points, higher is better.

Equal points go to the smallest node id (rows are in id order). A score's rule is part of the
name and version of every policy that uses it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eventsched.projections.scheduling.fleet import Ints, Trial
from eventsched.projections.scheduling.needs import Need

Score = Callable[[Trial, Need, Ints], Ints]


def first_fit(trial: Trial, need: Need, rows: Ints) -> Ints:
    """All alike: the smallest node id wins."""
    return np.zeros(len(rows), dtype=np.int64)


def best_fit(trial: Trial, need: Need, rows: Ints) -> Ints:
    """The less is left over, the better: minus the sum of what stays free, in thousandths of the
    node's own cpu, memory and GPUs, each counted only if the job asks for it."""
    fleet = trial.fleet
    left = (trial.cpu_free[rows] - need.cpu_millis) * 1000 // np.maximum(fleet.cpu_total[rows], 1)
    if need.memory_bytes:
        # in MiB, so that the product stays far below 2^63
        free, total = (trial.memory_free[rows] - need.memory_bytes) >> 20, fleet.memory_total[rows] >> 20
        left = left + free * 1000 // np.maximum(total, 1)
    if need.gpus:
        left = left + (trial.gpu_free("")[rows] - need.gpus) * 1000 // np.maximum(fleet.gpu_total[""][rows], 1)
    return -left
