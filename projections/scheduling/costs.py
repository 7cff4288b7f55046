"""Scores in money: the cost-aware score of an earlier scheduler, exactly, and the expected cost of a run."""

from __future__ import annotations

import numpy as np

from eventsched.projections.cluster.state import Job
from eventsched.projections.scheduling.diary import Ints
from eventsched.projections.scheduling.filters import Rows
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import Need

ONE = 10**12
"""The cost-aware score counts in such parts of 1, so that its ranking is that of exact numbers."""
_SHOWN = 10**6
_PRICE_MAX = 2**40
_GIB = 2**30


class Resources:
    """Per row, (free cpu + free GiB + free GPUs) / (all of them), in parts of ONE / 10; kept in step."""

    def __init__(self, fleet: Fleet) -> None:
        self.points: Ints = np.zeros(fleet.count, dtype=np.int64)
        self._now = -1

    def sync(self, fleet: Fleet) -> None:
        """Look at the rows that changed; in Python's integers, as the products pass 2^63."""
        known = fleet.diary.reaches(self._now)
        changed = fleet.diary.since(self._now).tolist() if known else range(fleet.count)
        self._now = fleet.diary.now
        for row in changed:
            free = _mixed(int(fleet.cpu_free[row]), int(fleet.memory_free[row]), int(fleet.gpu_millis[row]))
            total = _mixed(int(fleet.cpu_total[row]), int(fleet.memory_total[row]), int(fleet.gpu_devices[row]) * WHOLE)
            self.points[row] = ONE // 10 * max(0, free) // max(1, total)


def _mixed(cpu_millis: int, memory_bytes: int, gpu_millis: int) -> int:
    """Cores + GiB + GPUs, in thousandths of 2^-30."""
    return (cpu_millis + gpu_millis) * _GIB + memory_bytes * 1_000


def _resources(fleet: Fleet) -> Ints:
    found = fleet.memo("resources", Resources)
    found.sync(fleet)
    return found.points


def _cost(fleet: Fleet, rows: Rows) -> Ints:
    """0.2 x (1 - price per minute / 5.00)."""
    price: Ints = np.minimum(fleet.price[rows], _PRICE_MAX)
    return ONE // 5 - price * 2_000 // 3


def _sla(fleet: Fleet, need: Need, rows: Rows) -> Ints:
    """0.2 x (-1 for latency_sensitive on spot, 0.5 for batch on spot, else 0)."""
    weight = {"latency_sensitive": -ONE // 5, "batch": ONE // 10}.get(need.sla, 0)
    return fleet.spot[rows] * np.int64(weight)


def cost_aware_points(fleet: Fleet, need: Need, rows: Rows) -> Ints:
    """What differs between nodes; `cost_aware_terms` adds what a job has everywhere."""
    return _cost(fleet, rows) + _sla(fleet, need, rows) + _resources(fleet)[rows]


def cost_aware_terms(fleet: Fleet, need: Need, row: int, job: Job) -> dict[str, int]:
    """The five terms, weighted, in millionths."""
    rows = np.array([row], dtype=np.int64)
    return {
        "cost": int(_cost(fleet, rows)[0]) // _SHOWN,
        "priority": 30_000 * job.spec.priority,
        "sla": int(_sla(fleet, need, rows)[0]) // _SHOWN,
        "reschedule": 200_000 if job.evictions or job.spec.rescheduled else 0,
        "resource": int(_resources(fleet)[row]) // _SHOWN,
    }


RESTART_S = 60
"""What an eviction costs besides the work lost: time to start again."""
_PPM = 10**6
_PRICE_KEPT = 2**34
"""Prices above (17,000 an hour) are alike to this score, so that its points stay small."""


def expected_cost_points(fleet: Fleet, need: Need, rows: Rows) -> Ints:
    """Minus the price per hour of useful work: the node's own, raised on nodes that may be taken away by the
    chance of that within the estimate, times the half of the work that is lost on average, and a restart."""
    hazard = np.minimum(fleet.hazard[rows], _PPM)
    chance = np.minimum(hazard * need.estimate_s // 3_600, _PPM)
    lost = (need.estimate_s // 2 + RESTART_S) * 1_000 // need.estimate_s
    price = np.minimum(fleet.price[rows], _PRICE_KEPT)
    found: Ints = -(price + price // 1_000 * (chance * lost // 1_000) // 1_000)
    return found
