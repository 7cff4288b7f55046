"""A ranking that follows changes says what a plain look at every row says, however many changes there were."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsched.projections.scheduling import ranking
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.ranking import Rankings, best_of
from eventsched.projections.scheduling.scores import NOBODY, SCORES
from eventsched.projections.scheduling.trial import Trial, chosen_devices, tightest

from ..support import Ledger

KEPT = [name for name, score in SCORES.items() if score.points is None]
NEEDS = (
    Need("fake", 1_000, 1 << 30, 0, 0, ()),
    Need("fake", 3_000, 0, 0, 0, (), tolerations=("slow",)),
    Need("fake", 1_000, 1 << 30, 1, 0, (), estimate_s=60),
    Need("fake", 500, 1 << 30, 0, 250, (), sla="batch", estimate_s=7),
    Need("fake", 500, 2 << 30, 0, 400, ("t4", "a100")),
    Need("fake", 1_000, 1 << 30, 2, 0, ("a100",)),
    Need("fake", 500, 0, 0, 0, (), group="g", per_node=2),
)
"""Plain, past a taint, whole devices, shares, by model, with a limit per node."""


def _fleet(with_gpus: bool) -> Fleet:
    ledger = Ledger()
    ledger.lead()
    for index in range(24):
        gpus = (("A100", "T4")[index % 2],) * (index % 5) if with_gpus else ()
        taints = ("slow",) if index % 7 == 0 else ()
        ledger.join(f"n{index:02}", cpus=2 + index % 6, memory=(2 + index % 4) << 30, gpus=gpus, taints=taints)
    return Fleet(ledger.state)


def _plain(fleet: Fleet, need: Need, name: str) -> tuple[int, tuple[int, int, int, int]]:
    """How many rows have room, and the two best, row by row by the filters and the score."""
    score, fits = SCORES[name], feasible(fleet, need)
    one_by_one = [int(score.rank(fleet, _asking(need), np.array([row]))[0]) for row in range(fleet.count)]
    rank = np.where(fits, np.array(one_by_one, dtype=np.int64), NOBODY)
    return int(fits.sum()), best_of(score, rank)


def _asking(need: Need) -> Need:
    """An estimate is always there for a score that looks at it."""
    return need if need.estimate_s else need._replace(estimate_s=3_600)


@pytest.mark.parametrize("name", KEPT)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32), with_gpus=st.booleans(), few=st.sampled_from((0, 8, 64)), many=st.sampled_from((0, 2))
)
def test_what_follows_changes_is_what_a_look_at_all_rows_says(
    name: str, seed: int, with_gpus: bool, few: int, many: int
) -> None:
    dice, fleet = random.Random(seed), _fleet(with_gpus)
    trial, kept = Trial(fleet), Rankings(fleet, SCORES[name])
    needs = [_asking(need) for need in NEEDS if with_gpus or not (need.gpus or need.gpu_millis)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "FEW", few)
        patch.setattr(ranking, "MANY", many)
        for _ in range(25):
            need = dice.choice(needs)
            followed = kept.of(need)
            count, best = _plain(fleet, need, name)
            assert (followed.count(), followed.best()) == (count, best)
            assert followed.fits.tolist() == feasible(fleet, need).tolist()
            for _ in range(dice.choice((1, 1, 2, 5, 30))):
                _change(dice, trial, dice.choice(needs))


def _change(dice: random.Random, trial: Trial, need: Need) -> None:
    """A run begins somewhere, or what was begun is given back to a mark."""
    rows = np.flatnonzero(feasible(trial.fleet, need)).tolist()
    if rows and dice.random() < 0.7:
        row = dice.choice(rows)
        assert need.gpus + bool(need.gpu_millis) == len(chosen_devices(trial.fleet, row, need, tightest))
        trial.commit(row, need)
    elif trial.mark():
        trial.undo(max(0, trial.mark() - dice.randrange(1, 4)))
