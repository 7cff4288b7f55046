"""Filters: which nodes can take a job at all. Each refuses for one reason code.

A filter returns a mask over the rows, True = passes. Their order is the order in which
reasons are reported.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eventsched.projections.scheduling.fleet import DRIVER_BITS, Mask, Trial
from eventsched.projections.scheduling.needs import Need

Filter = Callable[[Trial, Need], Mask]


def usable(trial: Trial, need: Need) -> Mask:
    """In a session, heard of lately, not cordoned."""
    return trial.fleet.usable


def driver(trial: Trial, need: Need) -> Mask:
    """Offers the job's driver."""
    offered: Mask = (trial.fleet.drivers & DRIVER_BITS[need.driver]) != 0
    return offered


def cpu(trial: Trial, need: Need) -> Mask:
    """Enough cpu is free."""
    return trial.cpu_free >= need.cpu_millis


def memory(trial: Trial, need: Need) -> Mask:
    """Enough memory is free; a job without a limit reserves none."""
    return trial.memory_free >= need.memory_bytes


def gpu_model(trial: Trial, need: Need) -> Mask:
    """Has devices of the model at all."""
    total = trial.fleet.gpu_total.get(need.gpu_model)
    return np.zeros(len(trial.fleet.names), dtype=np.bool_) if total is None else total > 0


def gpu(trial: Trial, need: Need) -> Mask:
    """Enough devices of the model are free."""
    return trial.gpu_free(need.gpu_model) >= need.gpus


def filters_for(need: Need) -> list[tuple[str, Filter]]:
    """The filters that matter for a need, with their reason codes."""
    chain: list[tuple[str, Filter]] = [("no_nodes", usable), ("driver", driver), ("cpu", cpu)]
    if need.memory_bytes:
        chain.append(("memory", memory))
    if need.gpus:
        chain.append(("gpu_model", gpu_model))
        chain.append(("gpu", gpu))
    return chain


def feasible(trial: Trial, need: Need) -> Mask:
    """Rows that pass every filter; a node to avoid passes only when it is the last one left."""
    mask = usable(trial, need)
    for _, one in filters_for(need)[1:]:
        mask = mask & one(trial, need)
    row = trial.fleet.row.get(need.avoid) if need.avoid else None
    if row is not None and mask[row] and np.count_nonzero(mask) > 1:
        mask[row] = False
    return mask
