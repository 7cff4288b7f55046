"""When workers that die are given up."""

from __future__ import annotations

from eventsched.projections.http.command import DEATHS_WITHIN_S, Deaths


def test_workers_that_keep_dying_are_given_up_and_those_that_die_now_and_then_are_not() -> None:
    keep_dying = Deaths(2)
    assert [keep_dying.too_many(float(at_s)) for at_s in range(4)] == [False, False, True, True]
    now_and_then = Deaths(2)
    assert not any(now_and_then.too_many(at * DEATHS_WITHIN_S * 0.4) for at in range(0, 1_000, 2))
