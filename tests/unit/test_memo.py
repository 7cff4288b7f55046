"""What is derived from a state: fresh while it is cheap, and not the cause of a standstill when it is dear."""

from __future__ import annotations

import pytest

from eventsched.projections.memo import Memo
from eventsched.projections.scheduling.fleet import Fleet

from ..support import ready


class _Clock:
    """Both clocks, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.thread_time", lambda: self.used)

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.used += seconds


@pytest.mark.parametrize(("cost_s", "kept_s"), [(0.0, 0.0), (0.001, 0.02), (0.04, 0.8), (3.0, 1.0)])
def test_it_is_kept_for_as_long_as_it_is_dear_a_second_at_most(
    cost_s: float, kept_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock(monkeypatch)
    made: list[int] = []
    kept: Memo[int] = Memo()

    def at(seq: int) -> int:
        def make() -> int:
            clock.work(cost_s)
            made.append(seq)
            return seq

        return kept.get(seq, make)

    assert [at(1), at(1), len(made)] == [1, 1, 1]
    if kept_s:
        clock.now += 0.9 * kept_s
        assert at(2) == 1
        clock.now += 0.2 * kept_s
    assert at(3) == 3
    clock.now += 1_000.0
    assert at(3) == 3, "nothing has happened since"
    assert made == [1, 3]


def test_a_busy_machine_makes_nothing_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    kept: Memo[int] = Memo()

    def interrupted() -> int:
        clock.now += 5.0
        return 1

    assert kept.get(1, interrupted) == 1
    assert kept.get(2, lambda: 2) == 2


def test_a_node_that_went_since_the_fleet_was_laid_out_is_no_failure() -> None:
    ledger = ready()
    fleet = Fleet(ledger.state, groups=False)
    del ledger.state.nodes["n1"]
    fleet.watch_groups(ledger.state)
    assert fleet.count == 1
