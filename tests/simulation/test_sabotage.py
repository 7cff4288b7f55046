"""A world that is broken on purpose: a few seeds must notice each breakage, or the checks are worth nothing."""

from __future__ import annotations

import pytest

from .story import Story, break_fence
from .world import Sabotage

SEEDS = 60


def _caught_by(sabotage: Sabotage, first: int) -> str:
    """What a seed noticed. first: to begin with, as it is known to notice; the others are tried after it."""
    for seed in (first, *range(SEEDS)):
        try:
            Story(seed, sabotage).play()
        except AssertionError as error:
            return str(error)
    raise LookupError(f"{SEEDS} seeds did not notice {sabotage}")


def test_a_broken_fence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    break_fence(monkeypatch)
    what = _caught_by(Sabotage(fence=True), 12)
    assert "runs twice" in what or "stuck" in what


def test_a_start_that_is_not_deduplicated_is_caught() -> None:
    what = _caught_by(Sabotage(dedup=True), 0)
    assert "started twice" in what or "runs twice" in what


def test_a_leash_that_does_not_bite_is_caught() -> None:
    what = _caught_by(Sabotage(leash=True), 6)
    assert "runs twice" in what


def test_an_agent_that_does_not_adopt_is_caught() -> None:
    what = _caught_by(Sabotage(adopt=True), 17)
    assert "runs twice" in what
