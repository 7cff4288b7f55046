"""Questions about jobs, answered from a state and a history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventsched.errors import Ambiguous, EventschedError, NotFound
from eventsched.events import AbortRequested
from eventsched.projections.queries import FITTING_MAX
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..desk import KEEP, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.history.close()


# ---- one job ------------------------------------------------------------------------------------


def test_a_job_is_got_by_its_id_from_its_first_to_its_last_state(desk: Desk) -> None:
    desk.ledger.submit("j")
    assert (desk.get("j").state, desk.get("j").reason) == ("pending", "unjudged")
    desk.ledger.settle()
    assert (desk.get("j").state, desk.get("j").node) == ("assigned", "n1")
    desk.ledger.started(desk.get("j").run)
    assert (desk.get("j").state, desk.get("j").run_state) == ("running", "running")
    desk.finish(exit_code=4)
    last = desk.get("j")
    assert (last.state, last.exit_code) == ("failed", 4)
    desk.ran("a", "b", "c")
    assert "t/j" not in desk.ledger.state.jobs
    assert desk.get("j") == last, "the history says what the state said"


def test_the_beginning_of_an_id_is_enough_while_it_fits_one_job(desk: Desk) -> None:
    desk.ran("alpha-1", "beta-1", "gamma-1", "delta-1")
    desk.submit("alpine", "train")
    assert "t/alpha-1" not in desk.ledger.state.jobs
    assert desk.get("alpi").job_id == "alpine"
    assert desk.get("alph").job_id == "alpha-1", "also of one that has left the state"
    assert desk.get("d").job_id == "delta-1", "in the state and in the history, and one job all the same"
    with pytest.raises(Ambiguous) as raised:
        desk.get("alp")
    assert sorted(raised.value.message.partition(": ")[2].split(", ")) == ["t/alpha-1", "t/alpine"]


def test_a_whole_id_wins_over_a_longer_one(desk: Desk) -> None:
    desk.submit("train", "train-2")
    assert desk.get("train").job_id == "train"
    desk.finish()
    desk.ran("x", "y", "z")
    assert desk.get("train").job_id == "train"


def test_an_id_of_two_tenants_needs_the_tenant(desk: Desk) -> None:
    desk.ran("j", tenant="a")
    desk.submit("j", tenant="b")
    with pytest.raises(Ambiguous) as raised:
        desk.get("j")
    assert raised.value.message == "'j' fits several jobs: a/j, b/j"
    assert "--tenant" in raised.value.hint
    assert (desk.get("j", "a").state, desk.get("j", "b").state) == ("succeeded", "assigned")
    with pytest.raises(NotFound):
        desk.get("j", "c")


def test_an_unknown_id_brings_near_ones_to_mind_live_or_long_gone(desk: Desk) -> None:
    desk.ran("train-resnet", "x", "y", "z", tenant="u")
    desk.submit("train-vgg")
    assert "u/train-resnet" not in desk.ledger.state.jobs

    def hint(job_id: str, tenant: str = "") -> str:
        with pytest.raises(NotFound, match=f"no job '{job_id}'") as raised:
            desk.get(job_id, tenant)
        return raised.value.hint

    assert "did you mean train-vgg" in hint("train-vgh")
    assert "train-resnet" in hint("train-resnetx")
    assert "train-resnet" not in hint("train-resnetx", "t"), "not a job of another tenant"
    assert hint("quite-different") == "`eventsched jobs --all` lists all jobs"


WAITING = {
    "held": JobSpec(driver="fake", hold=True),
    "dependency": JobSpec(driver="fake", after_ok=("first",)),
    "too_big": JobSpec(driver="fake", resources=Resources(cpu_millis=64_000)),
    "cpu": JobSpec(driver="fake", resources=Resources(cpu_millis=4_000)),
    "gpu_model": JobSpec(driver="fake", resources=Resources(gpus=1, gpu_model="H100")),
}


@pytest.mark.parametrize("reason", WAITING)
def test_a_waiting_job_says_why(desk: Desk, reason: str) -> None:
    desk.submit("first")
    desk.submit("j", spec=WAITING[reason])
    view = desk.get("j")
    assert (view.state, view.reason) == ("pending", reason)
    assert view.detail
    assert desk.page().jobs[0] == view, "the list says the same"


# ---- many jobs ----------------------------------------------------------------------------------


def test_the_list_is_newest_first_and_holds_each_job_once(desk: Desk) -> None:
    desk.ran("j0", "j1", "j2", "j3", "j4")
    desk.submit("j5", "j6", "j7")
    desk.finish(1)
    assert len(desk.ledger.state.jobs) == KEEP + 2, "ended jobs are in the state and in the history"
    answer = desk.page()
    assert [(view.job_id, view.state) for view in answer.jobs] == [
        ("j7", "assigned"),
        ("j6", "assigned"),
        *((f"j{number}", "succeeded") for number in (5, 4, 3, 2, 1, 0)),
    ]
    assert (answer.cursor, answer.seq) == ("", desk.ledger.state.seq)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 11, 12, 13])
def test_pages_cover_every_job_exactly_once(desk: Desk, limit: int) -> None:
    desk.ran(*(f"j{number:02}" for number in range(6)))
    desk.submit(*(f"j{number:02}" for number in range(6, 12)))
    assert desk.pages(limit=limit) == [f"j{number:02}" for number in reversed(range(12))]


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_pages_stay_whole_while_jobs_come_and_end_between_them(desk: Desk, limit: int) -> None:
    desk.ran(*(f"j{number:02}" for number in range(4)))
    desk.submit(*(f"j{number:02}" for number in range(4, 12)))
    added: list[str] = []

    def meanwhile() -> None:
        added.append(f"new{len(added)}")
        desk.finish(1)
        desk.submit(added[-1])

    assert desk.pages(meanwhile, limit=limit) == [f"j{number:02}" for number in reversed(range(12))]
    assert added


def test_a_page_has_at_least_one_job_whatever_limit_is_asked(desk: Desk) -> None:
    desk.ran("a", "b")
    assert desk.ids(limit=0) == desk.ids(limit=-7) == ["b"]
    assert desk.ids(limit=10**9) == ["b", "a"]


@pytest.fixture
def mixed(desk: Desk) -> Desk:
    """Of tenants t and u: ended well, ended badly, on n1, on n2, and waiting."""
    desk.ledger.join("n2", cpus=16)
    desk.ledger.settle()
    desk.ran("ok-t")
    desk.ran("bad-u", tenant="u", exit_code=1)
    desk.ran("ok-u", tenant="u")
    desk.submit("large-u", tenant="u", spec=JobSpec(driver="fake", resources=Resources(cpu_millis=16_000)))
    desk.submit("small-t")
    desk.submit("held-t", spec=JobSpec(driver="fake", hold=True, labels={"team": "red", "of": "t"}))
    return desk


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["held-t", "small-t", "large-u", "ok-u", "bad-u", "ok-t"]),
    ({"tenant": "u"}, ["large-u", "ok-u", "bad-u"]),
    ({"tenant": "nobody"}, []),
    ({"states": ["pending"]}, ["held-t"]),
    ({"states": ["assigned", "failed"]}, ["small-t", "large-u", "bad-u"]),
    ({"tenant": "u", "states": ["succeeded"]}, ["ok-u"]),
    ({"labels": {"team": "red"}}, ["held-t", "ok-u", "bad-u", "ok-t"]),  # those that ended are not picked by label
    ({"labels": {"team": "red", "of": "nobody"}, "since_ms": -1}, []),
    ({"node": "n2"}, ["large-u"]),
    ({"node": "n1"}, ["small-t", "ok-u", "bad-u", "ok-t"]),
    ({"since_ms": -1}, ["held-t", "small-t", "large-u"]),
    ({"since_ms": -1, "tenant": "t"}, ["held-t", "small-t"]),
    ({"since_ms": 2**50}, ["held-t", "small-t", "large-u"]),
]


@pytest.mark.parametrize(("fields", "expected"), FILTERS)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_filters_hold_on_every_page(mixed: Desk, fields: dict[str, Any], expected: list[str], limit: int) -> None:
    assert mixed.pages(limit=limit, **fields) == expected
    ended: dict[str, Any] = {"since_ms": mixed.get("ok-u").finished_ms, "states": ["succeeded", "failed"]}
    assert mixed.pages(limit=limit, **ended) == ["ok-u"], "what ended earlier is left out"


# ---- arrays -------------------------------------------------------------------------------------


@pytest.fixture
def array(desk: Desk) -> Desk:
    desk.submit_array()
    return desk


MEMBERS = ["succeeded", "assigned", "assigned", "assigned", "assigned", "pending", "pending", "pending"]


def test_an_array_is_one_line_in_the_list_and_its_members_are_asked_for(array: Desk) -> None:
    assert array.ids() == ["a"]
    assert array.get("a").members == {"succeeded": 1, "assigned": 4, "pending": 3}
    answer = array.page(array="t/a")
    assert [(view.job_id, view.state) for view in answer.jobs] == [(f"a.{n}", MEMBERS[n]) for n in range(8)]
    assert array.get("a.6").reason == "held"
    assert [array.get(f"a.{number}").state for number in range(8)] == MEMBERS
    for unknown in ("a.8", "a.x", "b.0"):
        with pytest.raises(NotFound):
            array.get(unknown)


@pytest.mark.parametrize("limit", [1, 3, 8, 100])
def test_pages_of_members_cover_each_once_and_keep_to_filters(array: Desk, limit: int) -> None:
    assert array.pages(array="t/a", limit=limit) == [f"a.{number}" for number in range(8)]
    assert array.pages(array="t/a", limit=limit, states=["pending"]) == ["a.5", "a.6", "a.7"]
    assert array.pages(array="t/a", limit=limit, states=["succeeded", "assigned"]) == [f"a.{n}" for n in range(5)]
    assert array.pages(array="t/a", limit=limit, node="n1") == [f"a.{number}" for number in range(5)]


def test_members_are_listed_while_and_after_their_array_leaves_the_state(array: Desk) -> None:
    array.ledger.ask("a", "abort_requested", AbortRequested(member=6))
    array.finish(3)
    assert "t/a.0" not in array.ledger.state.jobs, "a member is gone, its array is live"
    assert array.get("a.0").state == "succeeded"
    assert len(array.ids(array="t/a")) == 8
    array.finish()
    array.ran("x", "y", "z")
    assert "t/a" not in array.ledger.state.jobs
    states = [view.state for view in array.page(array="t/a").jobs]
    assert states == ["succeeded"] * 6 + ["aborted", "succeeded"]
    assert array.get("a.6").state == "aborted"


def test_members_of_what_is_no_array_are_not_found(array: Desk) -> None:
    with pytest.raises(NotFound, match="no array 'aa'"):
        array.page(array="t/aa")
    array.ran("single")
    assert array.ids(array="t/single") == []


# ---- questions that are none, and many answers to one --------------------------------------------


@pytest.mark.parametrize("cursor", ["²", "٣", "-1", "1.5", "x", " 1", "9" * 19, "9" * 5_000])
def test_a_cursor_that_is_none_of_ours_is_refused_by_name(array: Desk, cursor: str) -> None:
    """`"²".isdigit()` is true, and a number may be too large for the history."""
    for fields in ({}, {"array": "t/a"}):
        with pytest.raises(EventschedError, match="cursor") as raised:
            array.page(cursor=cursor, **fields)
        assert len(raised.value.message) < 100
        assert "first page" in raised.value.hint


def test_an_ambiguous_id_lists_five_and_says_how_many_more(desk: Desk) -> None:
    desk.ran("train-0", "train-1", "train-2", "train-3")
    desk.submit("train-4")
    with pytest.raises(Ambiguous) as raised:
        desk.get("train")
    assert raised.value.message == "'train' fits several jobs: " + ", ".join(f"t/train-{n}" for n in range(5))
    desk.submit("train-5", "train-6", "train-7")
    with pytest.raises(Ambiguous, match=r"t/train-4 and 3 more$"):
        desk.get("train")
    for number in range(8, FITTING_MAX + 5):
        desk.ledger.submit(f"train-{number}")
    with pytest.raises(Ambiguous, match=f"and at least {FITTING_MAX - 5} more$"):
        desk.get("train")


def test_the_beginning_of_an_array_s_id_is_enough_for_a_member(array: Desk) -> None:
    array.submit("axe", "bee", tenant="u")
    assert array.get("a.3").job_id == "a.3"
    array.submit("bees", spec=JobSpec(driver="fake", array=2))
    assert array.get("be.1").job_id == "bees.1", "of those that fit, only this one has such a member"


def test_tenants_that_come_later_are_found_without_naming_them(desk: Desk) -> None:
    for number in range(12):  # ended jobs leave the state in between
        desk.ran(f"j{number}", tenant=f"tenant{number}")
        assert desk.get(f"j{number}").tenant == f"tenant{number}"
        desk.submit(f"live{number}", tenant=f"other{number}")
        assert desk.get(f"live{number}").tenant == f"other{number}"
        desk.finish()
    for number in range(12):
        assert desk.get(f"j{number}").tenant == f"tenant{number}"
        assert desk.get(f"live{number}").tenant == f"other{number}"
