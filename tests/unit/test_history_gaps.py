"""The history knows what it lacks: up to where it is complete, and from where on it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventsched.projections.history import History


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "history.sqlite", "log.1")
    yield made
    made.close()


def test_a_fold_from_the_start_or_from_within_leaves_no_gap(history: History) -> None:
    assert (history.base, history.start(0)) == (0, 0)
    history.flush(40)
    assert history.base == 40
    assert history.start(40) == 0
    assert history.start(25) == 0, "an older snapshot: what comes again is written again"
    history.flush(30)
    assert history.base == 40, "and what was complete stays so meanwhile"
    history.flush(50)
    assert history.base == 50


def test_a_start_behind_the_end_of_the_file_is_a_gap_until_it_is_filled(history: History) -> None:
    history.flush(40)
    assert history.start(100) == 100
    history.flush(120)
    assert (history.base, history.live_from) == (40, 100), "complete only up to the gap"
    history.write_gap()
    assert history.live_from == 100, "writing into a gap does not close it"
    history.filled(99)
    assert history.live_from == 100, "and neither does the better half of it"
    history.filled(100)
    assert (history.base, history.live_from) == (120, 0)


def test_a_restart_goes_on_with_the_same_gap_and_a_later_one_widens_it(history: History) -> None:
    history.flush(40)
    history.start(100)
    history.flush(120)
    history.close()
    again = History(history.path, "log.1")
    assert again.start(110) == 100
    again.flush(130)
    assert again.start(200) == 200, "nothing is known of what lies between 130 and 200"
    again.flush(210)
    again.filled(100)
    assert (again.base, again.live_from) == (40, 200), "what filled the old gap is too little now"
    again.filled(200)
    assert (again.base, again.live_from) == (210, 0)
    again.close()


def test_a_later_start_forgets_how_far_an_earlier_part_reached(history: History) -> None:
    history.flush(40)
    history.start(200)
    history.flush(300)
    assert history.start(150) == 150, "an older snapshot than before"
    history.flush(160)
    history.close()
    again = History(history.path, "log.1")
    again.filled(150)
    assert (again.base, again.live_from) == (160, 0), "of 160 to 200 nothing is known"
    assert again.start(1_500) == 1_500
    again.filled(1_500)
    assert (again.base, again.live_from) == (1_500, 0), "filled before anything was written behind it"
    again.close()
