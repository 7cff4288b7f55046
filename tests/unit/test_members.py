"""Every member of an array can be asked about for ever: those that ran, and those that never did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventsched.errors import NotFound
from eventsched.events import AbortRequested
from eventsched.projections.queries import Queries
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..desk import Desk

ARRAY = JobSpec(driver="fake", array=8)
LARGE = JobSpec(driver="fake", array=8, resources=Resources(cpu_millis=64_000), queue_timeout_ms=1_000)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.history.close()


def _states(desk: Desk, array: str = "a") -> list[str]:
    """Of all members, one by one; the list must agree, on pages of any size."""
    states = [desk.get(f"{array}.{index}").state for index in range(8)]
    for limit in (1, 3, 8, 100):
        assert desk.pages(array=f"t/{array}", limit=limit) == [f"{array}.{index}" for index in range(8)]
    assert [view.state for view in desk.page(array=f"t/{array}").jobs] == states
    for state in dict.fromkeys(states):
        fitting = [f"{array}.{index}" for index in range(8) if states[index] == state]
        assert desk.pages(array=f"t/{array}", states=[state], limit=2) == fitting
    return states


def _let_the_array_go(desk: Desk, array: str = "a") -> None:
    desk.ran("x", "y", "z")
    assert f"t/{array}" not in desk.ledger.state.jobs


def test_a_forgotten_member_keeps_its_own_end(desk: Desk) -> None:
    desk.submit("a", spec=ARRAY)
    desk.finish(7)
    desk.finish(1, exit_code=1)
    assert desk.ledger.job("a").state == "failed", "it is in the state, and most of its members are not"
    assert _states(desk) == ["succeeded"] * 7 + ["failed"]
    _let_the_array_go(desk)
    assert _states(desk) == ["succeeded"] * 7 + ["failed"]


def test_members_that_were_never_reached_are_aborted_and_do_not_vanish(desk: Desk) -> None:
    desk.submit("a", spec=ARRAY)
    desk.finish(2)  # four may run at a time: two have ended, four run, two wait
    desk.ledger.ask("a", "abort_requested", AbortRequested(reason="enough"))
    assert desk.ledger.job("a").state == "running", "its runs have to be stopped"
    assert _states(desk)[:2] + _states(desk)[6:] == ["succeeded", "succeeded", "aborted", "aborted"]
    desk.ledger.settle()
    for run in list(desk.ledger.state.runs):
        desk.ledger.ended(run, "stopped", None, "aborted")
    desk.tell()
    expected = ["succeeded"] * 2 + ["aborted"] * 6
    assert _states(desk) == expected
    assert desk.get("a").members == {"succeeded": 2, "aborted": 6}
    _let_the_array_go(desk)
    assert _states(desk) == expected
    ran, never = desk.get("a.5"), desk.get("a.7")
    assert (ran.node, ran.attempt, ran.reason) == ("n1", 1, "aborted")
    assert (never.node, never.attempt, never.reason, never.started_ms) == ("", 0, "aborted", None)
    assert desk.pages(array="t/a", node="n1") == [f"a.{index}" for index in range(6)], "it was on no node"
    for index in (8, 100_000):
        with pytest.raises(NotFound):
            desk.get(f"a.{index}")


def test_members_of_an_array_that_ended_as_one_tell_its_reason(desk: Desk) -> None:
    desk.submit("a", spec=LARGE)
    desk.ledger.settle(desk.ledger.state.clock_ms + 2_000)
    desk.tell()
    desk.submit("b", spec=ARRAY)
    desk.ledger.ask("b", "abort_requested", AbortRequested(member=7))
    desk.ledger.ask("b", "abort_requested", AbortRequested(member=6))
    desk.finish()
    for _ in range(2):
        assert _states(desk) == ["expired"] * 8
        assert (desk.get("a.3").reason, desk.get("a.3").detail) == ("queue_timeout", "waited longer than 1000 ms")
        assert _states(desk, "b") == ["succeeded"] * 6 + ["aborted"] * 2
        _let_the_array_go(desk)


def test_an_array_may_expire_in_part(desk: Desk) -> None:
    spec = JobSpec(driver="fake", array=8, queue_timeout_ms=1_000)
    desk.submit("a", spec=spec)
    desk.ledger.settle(desk.ledger.state.clock_ms + 2_000)
    desk.finish(4)
    for _ in range(2):
        assert _states(desk) == ["succeeded"] * 4 + ["expired"] * 4
        assert desk.get("a.6").reason == "queue_timeout"
        _let_the_array_go(desk)


def test_a_waiting_member_says_what_its_array_waits_for(desk: Desk) -> None:
    desk.submit("a", spec=LARGE)
    assert (desk.get("a.3").state, desk.get("a.3").reason) == ("pending", "too_big")
    assert {view.reason for view in desk.page(array="t/a").jobs} == {"too_big"}


def test_a_member_of_an_earlier_array_of_that_name_is_not_taken_for_one_of_the_present(desk: Desk) -> None:
    """Only a hand-typed event can use an id again."""
    desk.submit("a", spec=ARRAY)
    desk.finish(exit_code=1)
    _let_the_array_go(desk)
    desk.submit("a", spec=ARRAY)
    assert _states(desk) == ["assigned"] * 4 + ["pending"] * 4


def test_without_a_history_nothing_wrong_is_said_about_what_is_forgotten(desk: Desk) -> None:
    desk.queries = Queries(desk.ledger.state, None)
    desk.submit("good", spec=ARRAY)
    desk.finish()
    assert _states(desk, "good") == ["succeeded"] * 8, "they all ended alike"
    desk.submit("a", spec=ARRAY)
    desk.finish(4)
    desk.finish(4, exit_code=1)
    listed: list[Any] = [(view.job_id, view.state) for view in desk.page(array="t/a").jobs]
    assert listed == [("a.6", "failed"), ("a.7", "failed")]
    assert desk.ids() == ["a"], "what the state still holds"
    with pytest.raises(NotFound):
        desk.get("a.0")
