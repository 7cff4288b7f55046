"""The history: what ended is found for ever, however often it is told, and the file knows what it lacks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventsched.events import AbortRequested
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.history import History, open_history
from eventsched.projections.replica import Replica
from eventsched.projections.views.present import job_view
from eventsched.resources import Resources
from eventsched.spec import JobSpec
from eventsched.views import JobView

from ..support import FAKE, Ledger, ready

KEEP = 3
ALL = 2**62


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "history.sqlite"


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    made = History(path, "log.1")
    yield made
    made.close()


def _run(ledger: Ledger, job_id: str, exit_code: int = 0, tenant: str = "t", spec: JobSpec = FAKE) -> None:
    """One job from its submission to its end."""
    ledger.submit(job_id, spec, tenant)
    ledger.settle()
    while ledger.state.runs:
        run = next(iter(ledger.state.runs))
        ledger.started(run)
        ledger.ended(run, "exited", exit_code)
        ledger.settle()


def _tell(history: History, ledger: Ledger) -> None:
    """Hand over what has ended since, as a replica does, and write it."""
    ended = ledger.state.changes.ended
    history.take(ended)
    ended.clear()
    history.flush(ledger.state.seq)


def _page(
    history: History,
    before_seq: int = ALL,
    tenant: str = "",
    states: tuple[str, ...] = (),
    node: str = "",
    since_ms: int = 0,
    limit: int = 100,
) -> list[JobView]:
    return history.page(
        before_seq=before_seq, tenant=tenant, states=list(states), node=node, since_ms=since_ms, limit=limit
    )


def _ids(views: list[JobView]) -> list[str]:
    return [view.job_id for view in views]


def _rows(path: Path) -> list[tuple[object, ...]]:
    """Everything in the table of jobs."""
    with sqlite3.connect(path) as db:
        found = db.execute("SELECT * FROM jobs ORDER BY job_id, tenant, seq").fetchall()
    db.close()
    return found


# ---- finding ------------------------------------------------------------------------------------


def test_a_job_is_found_after_it_has_left_the_state(history: History) -> None:
    ledger = ready(finished_keep=KEEP)
    for number in range(10):
        _run(ledger, f"j{number}", number % 2)
        _tell(history, ledger)
    assert sorted(ledger.states()) == ["j7", "j8", "j9"]
    for number in range(10):
        (view,) = history.find(f"j{number}")
        expected = ("failed", 1) if number % 2 else ("succeeded", 0)
        assert (view.job_id, view.tenant, view.state, view.exit_code) == (f"j{number}", "t", *expected)
    assert history.find("j99") == []


def test_a_kept_job_tells_exactly_what_the_state_told(history: History) -> None:
    ledger = ready(finished_keep=KEEP)
    spec = JobSpec(driver="fake", name="train", priority=7, labels={"team": "a"}, retries=1, retry_backoff_ms=0)
    ledger.submit("j", spec)
    ledger.settle()
    ledger.started(next(iter(ledger.state.runs)))
    ledger.ended(next(iter(ledger.state.runs)), "exited", 3)
    ledger.settle(ledger.state.clock_ms + 1)
    ledger.ended(next(iter(ledger.state.runs)), "exited", 0)
    before = job_view(ledger.state, ledger.job("j"))
    assert (before.state, before.attempt, before.failures, len(before.tries)) == ("succeeded", 2, 1, 2)
    _tell(history, ledger)
    assert history.find("j") == [before]


def test_every_tenant_has_its_own_job_of_an_id(history: History) -> None:
    ledger = ready(finished_keep=KEEP)
    _run(ledger, "j", tenant="a")
    _run(ledger, "j", 1, tenant="b")
    _tell(history, ledger)
    assert {view.tenant: view.state for view in history.find("j")} == {"a": "succeeded", "b": "failed"}
    assert [view.state for view in history.find("j", "b")] == ["failed"]
    assert history.find("j", "c") == []


def test_of_an_id_that_was_used_again_the_newest_job_is_found(history: History) -> None:
    """Only a hand-typed event can do that, long after the first one left the state."""
    ledger = ready(finished_keep=1)
    _run(ledger, "j", 1)
    _run(ledger, "other")
    _run(ledger, "j", 0)
    _tell(history, ledger)
    assert [view.state for view in history.find("j")] == ["succeeded"]
    assert [(view.job_id, view.state) for view in _page(history)] == [
        ("j", "succeeded"),
        ("other", "succeeded"),
        ("j", "failed"),
    ]


def test_ids_are_found_by_their_beginning(history: History) -> None:
    ledger = ready(finished_keep=KEEP)
    for job_id in ("train-1", "train-2", "tram", "Train-3"):
        _run(ledger, job_id)
    _run(ledger, "train-9", tenant="u")
    _run(ledger, "train-a", spec=JobSpec(driver="fake", array=3))
    _tell(history, ledger)
    assert sorted(history.ids_starting("train-")) == [
        ("t", "train-1"),
        ("t", "train-2"),
        ("t", "train-a"),
        ("u", "train-9"),
    ], "an array without its members"
    assert history.ids_starting("train-", "u") == [("u", "train-9")]
    assert len(history.ids_starting("t", limit=2)) == 2
    assert history.ids_starting("x") == []


def test_members_are_kept_with_their_array_and_not_in_the_list(history: History) -> None:
    ledger = ready(finished_keep=KEEP)
    ledger.submit("a", JobSpec(driver="fake", array=5))
    ledger.settle()
    ledger.ask("a", "abort_requested", AbortRequested(member=4))
    while ledger.state.runs:
        ledger.ended(next(iter(ledger.state.runs)))
        ledger.settle()
    _run(ledger, "single")
    _tell(history, ledger)
    assert len(ledger.state.jobs) == KEEP
    assert _ids(_page(history)) == ["single", "a"]
    (parent,) = history.find("a")
    assert (parent.state, parent.members) == ("failed", {"aborted": 1, "succeeded": 4})
    states = {index: view.state for index, view in history.members("t/a", parent.seq)}
    assert states == {0: "succeeded", 1: "succeeded", 2: "succeeded", 3: "succeeded", 4: "aborted"}
    assert [view.state for view in history.find("a.4")] == ["aborted"]


# ---- pages --------------------------------------------------------------------------------------


@pytest.fixture
def many(history: History) -> Ledger:
    """Twelve ended jobs: every third of tenant u, every fourth failed, from the ninth too large for n1."""
    ledger = ready(finished_keep=KEEP)
    ledger.join("n2", cpus=8)
    ledger.settle()
    for number in range(12):
        spec = JobSpec(driver="fake", resources=Resources(cpu_millis=1000 if number < 8 else 6000))
        _run(ledger, f"j{number:02}", 0 if number % 4 else 1, "t" if number % 3 else "u", spec)
    _tell(history, ledger)
    return ledger


def test_a_page_is_newest_first_and_no_longer_than_asked(history: History, many: Ledger) -> None:
    assert _ids(_page(history)) == [f"j{number:02}" for number in reversed(range(12))]
    assert _ids(_page(history, limit=2)) == ["j11", "j10"]
    (sixth,) = history.find("j06")
    assert _ids(_page(history, before_seq=sixth.seq, limit=3)) == ["j05", "j04", "j03"]
    assert _page(history, before_seq=1) == []


def test_a_page_keeps_to_its_filters(history: History, many: Ledger) -> None:
    views = _page(history)
    assert _ids(_page(history, tenant="u")) == ["j09", "j06", "j03", "j00"]
    assert _ids(_page(history, states=("failed",))) == ["j08", "j04", "j00"]
    assert _ids(_page(history, states=("failed", "succeeded"))) == _ids(views)
    assert _page(history, states=("aborted",)) == []
    assert _ids(_page(history, tenant="u", states=("failed",))) == ["j00"]
    assert _ids(_page(history, node="n2")) == ["j11", "j10", "j09", "j08"]
    assert _ids(_page(history, node="n1")) == _ids(views[4:])


def test_since_counts_from_the_end_of_a_job_and_includes_the_moment(history: History, many: Ledger) -> None:
    views = _page(history)
    moment = views[4].finished_ms
    assert moment is not None
    assert _ids(_page(history, since_ms=moment)) == _ids(views[:5])
    assert _ids(_page(history, since_ms=moment + 1)) == _ids(views[:4])


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_pages_cover_everything_once_while_more_jobs_end(history: History, many: Ledger, size: int) -> None:
    before = _ids(_page(history))
    seen: list[str] = []
    cursor = ALL
    for turn in range(100):
        page = _page(history, before_seq=cursor, limit=size)
        if not page:
            break
        seen += _ids(page)
        cursor = page[-1].seq
        _run(many, f"later{turn}")
        _tell(history, many)
    assert seen == before


# ---- told twice, opened again -------------------------------------------------------------------


def test_the_same_log_folded_twice_is_written_once(history: History, path: Path, many: Ledger) -> None:
    once = _rows(path)
    assert len(once) == 12
    for _ in range(2):
        replica = Replica(ClusterState(), on_ended=history.take)
        replica.fold_entries(many.entries)
        history.flush(replica.state.seq)
    assert _rows(path) == once


def test_a_replay_in_small_steps_writes_the_same_rows(history: History, path: Path, many: Ledger) -> None:
    once = _rows(path)
    other = History(path.with_name("other.sqlite"), "log.1")
    replica = Replica(ClusterState(), on_ended=other.take)
    for start in range(0, len(many.entries), 7):
        replica.fold_entries(many.entries[start : start + 7])
        other.flush(replica.state.seq)
    other.close()
    assert _rows(other.path) == once


def test_what_was_written_is_there_when_the_file_is_opened_again(path: Path) -> None:
    ledger = ready(finished_keep=KEEP)
    first = History(path, "log.1")
    _run(ledger, "a")
    _tell(first, ledger)
    seq = ledger.state.seq
    _run(ledger, "b")
    first.take(ledger.state.changes.ended)  # noted, and lost with its process
    first.close()
    again = History(path, "log.1")
    assert (_ids(_page(again)), again.base) == (["a"], seq)
    again.close()


def test_a_file_of_another_log_is_begun_anew(path: Path) -> None:
    ledger = ready()
    first = History(path, "log.1")
    _run(ledger, "a")
    _tell(first, ledger)
    first.close()
    other = History(path, "log.2")
    assert (_page(other), other.find("a"), other.base, other.live_from) == ([], [], 0, 0)
    other.close()
    back = History(path, "log.1")
    assert _page(back) == []
    back.close()


@pytest.mark.parametrize("damage", ["no database", "cut short", "overwritten within"])
def test_a_damaged_file_is_set_aside_and_made_anew(path: Path, many: Ledger, damage: str) -> None:
    history = open_history(path, "log.1")
    history._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    history.close()
    data = path.read_bytes()
    broken = {
        "no database": b"not a database, for certain" * 100,
        "cut short": data[:5_000],
        "overwritten within": data[:100] + b"\xff" * 4_000 + data[4_100:],
    }[damage]
    path.write_bytes(broken)
    anew = open_history(path, "log.1")
    assert (_page(anew), anew.base) == ([], 0)
    assert path.with_name("history.sqlite.damaged").read_bytes() == broken
    _tell(anew, many)
    assert anew.base == many.state.seq
    anew.close()


def test_what_is_no_fault_of_the_file_sets_nothing_aside(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").mkdir()
    with pytest.raises(sqlite3.OperationalError):
        open_history(tmp_path / "history.sqlite", "log.1")
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.sqlite"]


def test_what_could_not_be_written_is_written_the_next_time(history: History, path: Path) -> None:
    ledger = ready(finished_keep=KEEP)
    _run(ledger, "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        _tell(history, ledger)
    assert (history.base, history.pending) == (0, 1)
    other.execute("ROLLBACK")
    other.close()
    history.flush(ledger.state.seq)
    assert (_ids(_page(history)), history.base, history.pending) == (["a"], ledger.state.seq, 0)


# ---- what the file lacks ------------------------------------------------------------------------


def test_a_second_process_fills_the_gap_beside_the_first(history: History, path: Path) -> None:
    ledger = ready(finished_keep=KEEP)
    for number in range(6):
        _run(ledger, f"old{number}")
    lost, seen_from = list(ledger.state.changes.ended), ledger.state.seq
    ledger.state.changes.ended.clear()
    assert history.start(seen_from) == seen_from
    _run(ledger, "new")
    _tell(history, ledger)
    assert _ids(_page(history)) == ["new"]
    filler = History(path, "log.1")
    filler.take(lost)
    filler.write_gap()
    filler.filled(seen_from)
    filler.close()
    assert _ids(_page(history)) == ["new", *(f"old{number}" for number in reversed(range(6)))]
    assert (history.base, history.live_from) == (ledger.state.seq, 0)
    _run(ledger, "newer")
    _tell(history, ledger)
    assert history.base == ledger.state.seq
