"""The history beside a scheduler: whatever befalls it, the scheduler goes on."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest

from eventsched import codec
from eventsched.events import AbortRequested, ClusterCreated, DigestRecorded
from eventsched.log.port import Outgoing
from eventsched.projections.leader.records import HELD_MAX, RENEWALS_MAX, WRITE_AT, Records
from eventsched.projections.leader.shell import WATCHERS_MAX, Scheduler
from eventsched.spec import JobSpec

from ..support import Ledger, ready


def _records() -> Records:
    return Records(cast(Any, None))


def _keep(ledger: Ledger, records: Records, path: Path) -> Records:
    """As a scheduler does before it folds the first event."""
    records.keep(ledger.state, path)
    records._start_seq = 0
    return records


def _end(ledger: Ledger, records: Records, *job_ids: str) -> None:
    for job_id in job_ids:
        ledger.submit(job_id)
        ledger.settle()
        ledger.ended(ledger.job(job_id).run)
    records.take(ledger.state.changes.ended)
    ledger.state.changes.ended.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def test_without_a_place_nothing_is_kept_in_memory_either() -> None:
    ledger, records = ready(), _records()
    _end(ledger, records, *(f"j{number}" for number in range(5)))
    assert (records.status, records.current(ledger.state.seq)) == ("not kept", None)
    assert not [held for held in vars(records).values() if isinstance(held, list) and held]


def test_a_long_replay_is_written_as_it_goes_and_not_at_its_end(path: Path) -> None:
    ledger, records = ready(), _records()
    _keep(ledger, records, path)
    _end(ledger, records, "a")
    assert records.history is not None
    assert records.history.pending == 1
    records.take([ledger.job("a")] * WRITE_AT)
    assert (records.history.pending, records.history.base) == (0, ledger.state.seq)
    records.close(ledger.state.seq)


def test_what_a_busy_disk_refuses_is_held_and_written_later(path: Path) -> None:
    ledger, records = ready(), _records()
    _keep(ledger, records, path)
    _end(ledger, records, "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    records.flush(ledger.state.seq)
    assert records.history is not None
    assert records.history.find("a") == []
    other.execute("ROLLBACK")
    other.close()
    assert records.current(ledger.state.seq) is records.history
    assert [view.job_id for view in records.history.find("a")] == ["a"]
    records.close(ledger.state.seq)


def test_a_disk_that_takes_nothing_ends_the_history_and_says_so(path: Path) -> None:
    ledger, records = ready(), _records()
    _keep(ledger, records, path)
    _end(ledger, records, "a")
    assert records.history is not None
    job = ledger.job("a")
    records.history.take([job] * HELD_MAX)
    records.troubled(sqlite3.OperationalError("database or disk is full"))
    assert records.status == "not kept: database or disk is full"
    _end(ledger, records, "b")
    records.close(ledger.state.seq)
    again = _records()
    again.keep(ledger.state, path)
    again._fill_up_to = lambda gap: None  # type: ignore[method-assign]
    again.open()
    assert again.status == f"being rebuilt up to sequence {ledger.state.seq}", "the next start fills in what is missing"
    again.close(ledger.state.seq)


def test_a_file_that_proves_damaged_is_made_anew_some_times_only(path: Path) -> None:
    ledger, records = ready(), _records()
    gaps: list[int] = []
    records._fill_up_to = gaps.append  # type: ignore[method-assign]
    _keep(ledger, records, path)
    _end(ledger, records, "a")
    for _ in range(RENEWALS_MAX):
        records.troubled(sqlite3.DatabaseError("database disk image is malformed"))
        assert records.status == f"being rebuilt up to sequence {ledger.state.seq}"
    assert gaps == [0] + [ledger.state.seq] * RENEWALS_MAX
    assert path.with_name("history.sqlite.damaged").exists()
    records.troubled(sqlite3.DatabaseError("database disk image is malformed"))
    assert records.status == "not kept: database disk image is malformed"


def test_a_mistake_of_ours_is_not_taken_for_damage(path: Path) -> None:
    ledger, records = ready(), _records()
    _keep(ledger, records, path)
    _end(ledger, records, "a")
    records.troubled(sqlite3.ProgrammingError("wrong number of bindings"))
    assert not path.with_name("history.sqlite.damaged").exists()
    records.close(ledger.state.seq)


async def test_an_image_is_saved_only_once_its_own_digest_is_recorded() -> None:
    """A later one may be waiting when the record of an earlier digest is acknowledged."""
    scheduler = Scheduler(cast(Any, None), "s1", created=ClusterCreated(cluster_id="c"))
    saved: list[tuple[int, bytes]] = []

    class Saving:
        async def save(self, cluster_id: str, seq: int, image: bytes) -> None:
            saved.append((seq, image))

    scheduler.snapshots = cast(Any, Saving())

    async def recorded(at_seq: int) -> None:
        event = DigestRecorded(epoch=1, at_seq=at_seq, digest="d")
        scheduler._save_image_of(Outgoing(codec.decision_subject(event), codec.encode(event)))
        await asyncio.gather(*scheduler._background)

    scheduler._image = (20, b"later")
    await recorded(10)
    assert saved == []
    await recorded(20)
    await recorded(20)
    assert saved == [(20, b"later")]


@pytest.mark.parametrize("times", [1, 20])
async def test_waiting_ends_also_for_what_has_left_the_state_or_never_entered_it(times: int) -> None:
    """Also when so many wait that not all of them look at every fold."""
    ledger = ready(finished_keep=1)
    scheduler = Scheduler(cast(Any, None), "s1", created=ClusterCreated(cluster_id="c"))
    scheduler.core.state = ledger.state
    ledger.submit("a", JobSpec(driver="fake", array=8))
    ledger.submit("j", JobSpec(driver="fake", hold=True))
    ledger.settle()
    asked = ("j", "a.0", "a.6", "a.7") * times
    assert times == 1 or len(asked) > 2 * WATCHERS_MAX
    waiting = [asyncio.create_task(scheduler.moved("t", job_id, 60)) for job_id in asked]
    await asyncio.sleep(0)
    assert not any([await scheduler.moved("t", job_id, 0) for job_id in asked[:4]])
    ledger.ended(ledger.job("a.0").run)
    for job_id, member in (("a", 6), ("j", -1), ("a", -1)):
        ledger.ask(job_id, "abort_requested", AbortRequested(member=member))
    assert not [job_id for job_id in asked[1:4] if f"t/{job_id}" in ledger.state.jobs], "forgotten, or never a job"
    async with scheduler._folded:
        scheduler._folded.notify_all()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [True] * len(asked)
    assert scheduler._watchers == 0
