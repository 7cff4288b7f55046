"""Two schedulers and five agents in a bad world, for many seeds.

A failure prints its seed: `pytest tests/simulation --seed N` plays it again.
"""

from __future__ import annotations

import pytest

from .story import Story

SEEDS = 200


def test_stories_end_well(seed_range: range) -> None:
    for seed in seed_range:
        Story(seed).play()


@pytest.fixture(params=range(8), ids=lambda part: f"part{part}")
def seed_range(request: pytest.FixtureRequest) -> range:
    chosen = request.config.getoption("--seed")
    if chosen is not None:
        return range(chosen, chosen + 1) if request.param == 0 else range(0)
    count = request.config.getoption("--seeds") or SEEDS
    return range(request.param * count // 8, (request.param + 1) * count // 8)


def test_a_story_is_a_function_of_its_seed() -> None:
    first, second = Story(7), Story(7)
    first.play()
    second.play()
    assert first.world.log.entries == second.world.log.entries
    other = Story(8)
    other.play()
    assert first.world.log.entries != other.world.log.entries
