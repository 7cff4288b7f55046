"""Scores: how good a feasible node is, in integer points, higher is better.

Equal points go to the smallest node id (rows are in id order). A score's rule is part of the
name and version of every policy that uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eventsched.projections.scheduling.fleet import Ints, Trial
from eventsched.projections.scheduling.needs import Need


@dataclass(frozen=True, slots=True)
class Draw:
    """What makes a random choice: the policy's seed, and a number no other choice has."""

    seed: int = 0
    number: int = 0


Points = Callable[[Trial, Need, Ints, Draw], Ints]


@dataclass(frozen=True, slots=True)
class Score:
    """One score: a summary, and points for rows."""

    summary: str
    points: Points


def first_fit(trial: Trial, need: Need, rows: Ints, draw: Draw) -> Ints:
    """All alike: the smallest node id wins."""
    return np.zeros(len(rows), dtype=np.int64)


def best_fit(trial: Trial, need: Need, rows: Ints, draw: Draw) -> Ints:
    """The less is left over, the better: minus the sum of what stays free, in thousandths of the
    node's own cpu, memory and GPUs, each counted only if the job asks for it."""
    return -_left(trial, need, rows)


def spread(trial: Trial, need: Need, rows: Ints, draw: Draw) -> Ints:
    """The more is left over, the better: the opposite of best-fit."""
    return _left(trial, need, rows)


def _left(trial: Trial, need: Need, rows: Ints) -> Ints:
    fleet = trial.fleet
    left = (trial.cpu_free[rows] - need.cpu_millis) * 1000 // np.maximum(fleet.cpu_total[rows], 1)
    if need.memory_bytes:
        # in MiB, so that the product stays far below 2^63
        free, total = (trial.memory_free[rows] - need.memory_bytes) >> 20, fleet.memory_total[rows] >> 20
        left = left + free * 1000 // np.maximum(total, 1)
    if need.gpus:
        left = left + (trial.gpu_free("")[rows] - need.gpus) * 1000 // np.maximum(fleet.gpu_total[""][rows], 1)
    return left


def dot_product(trial: Trial, need: Need, rows: Ints, draw: Draw) -> Ints:
    """The smaller the product of what is free and what is asked, the better (Tetris turned around, as in
    the FGD study): each in thousandths of the largest node, so that products stay small."""
    fleet = trial.fleet
    points = _product(trial.cpu_free[rows], need.cpu_millis, fleet.cpu_total)
    if need.memory_bytes:
        points = points + _product(trial.memory_free[rows] >> 20, need.memory_bytes >> 20, fleet.memory_total >> 20)
    if need.gpus:
        points = points + _product(trial.gpu_free("")[rows], need.gpus, fleet.gpu_total[""])
    return -points


def _product(free: Ints, asked: int, total: Ints) -> Ints:
    largest = max(1, int(total.max()))
    return (free * 1000 // largest) * (asked * 1000 // largest)


def random(trial: Trial, need: Need, rows: Ints, draw: Draw) -> Ints:
    """Every node alike, drawn by counter: the same seed and choice give the same node for ever."""
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64((draw.seed * 0xD1342543DE82EF95 + draw.number * 0xBF58476D1CE4E5B9) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    points: Ints = (mixed >> np.uint64(12)).astype(np.int64)  # 52 bits: what an event may carry
    return points


SCORES: dict[str, Score] = {
    "first-fit": Score("the first node that fits, by id", first_fit),
    "best-fit": Score("the node with the least left over", best_fit),
    "spread": Score("the node with the most left over", spread),
    "dot-product": Score("the node whose free resources match the request least (keeps the rest useful)", dot_product),
    "random": Score("any node, drawn by counter", random),
}
