"""The shim behind process runs: killed, left alone, full of history."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from eventsched.agents import processes
from eventsched.agents.drivers import process, shim_client
from eventsched.agents.drivers.base import Place, StartFailed
from eventsched.agents.drivers.process import ProcessDriver
from eventsched.agents.effects import Launch
from eventsched.agents.process_runs import JOURNAL, RUNS, RunRecord, read_journal
from eventsched.agents.processes import (
    MARK,
    boot_id,
    boot_ticks,
    is_alive,
    live_process_runs,
    look_at,
    mark_of,
    marked,
    start_time,
    tree_usage,
)
from eventsched.agents.shim import COMPACT_BYTES, LOCK_FILE, Shim, _Client
from eventsched.new_ids import new_ulid

from ..processes import launch, process_driver, quiet, until


def _shims(directory: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", f"agents.shim {directory}"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[ProcessDriver]:
    async with process_driver(tmp_path) as driver:
        yield driver
    assert not _shims(tmp_path), "a shim with nothing to do leaves with its agent"


async def test_a_killed_shim_is_replaced_and_says_what_it_cannot_know(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(launch(1, "sh", "-c", "sleep 0.6; exit 5"), quiet)
    (shim,) = _shims(tmp_path)
    os.kill(shim, signal.SIGKILL)
    ended = await driver.wait(1)
    assert (ended.outcome, ended.reason) == ("lost", "engine_lost"), "only its parent would have known the code"
    await driver.start(launch(2, "true"), quiet)
    assert (await driver.wait(2)).exit_code == 0
    assert _shims(tmp_path) != [shim]


async def test_a_run_under_a_new_shim_can_still_be_stopped(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(launch(1, "sleep", "60"), quiet)
    pid = read_journal(tmp_path)[1].pid
    os.kill(_shims(tmp_path)[0], signal.SIGKILL)
    await until(lambda: _shims(tmp_path))
    await driver.stop(1, 1_000)
    assert (await driver.wait(1)).outcome == "stopped"
    assert start_time(pid) is None


async def test_a_shim_killed_before_it_wrote_the_pid_down(driver: ProcessDriver, tmp_path: Path) -> None:
    """The process is found by the mark in its environment."""
    process = subprocess.Popen(["sleep", "60"], env={MARK: mark_of(tmp_path, 7)}, start_new_session=True)
    asked = {
        "run": 7,
        "launch": _encoded(launch(7, "sleep", "60")),
        "grace_ms": 1000,
        "keep": False,
        "boot": boot_id(),
    }
    (tmp_path / JOURNAL).write_text(json.dumps(asked) + '\n{"run": 7, "pi')  # torn, too
    (known,) = await driver.inventory()
    assert (known.launch.run, known.ended) == (7, None)
    assert read_journal(tmp_path)[7].pid == process.pid
    await driver.stop(7, 1_000)
    assert process.wait(5) == -signal.SIGTERM


async def test_a_pid_that_is_somebody_elses_now_is_left_alone(driver: ProcessDriver, tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    born = boot_ticks() - 1_000
    lines = [
        {"run": 3, "launch": _encoded(launch(3, "sleep", "60")), "grace_ms": 0, "keep": False, "boot": boot_id()},
        {"run": 3, "pid": stranger.pid, "born": [born, born]},
    ]
    (tmp_path / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    await driver.stop(3, 0)
    assert (await driver.wait(3)).outcome == "lost"
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


async def test_what_a_command_leaves_behind_ends_with_it(driver: ProcessDriver, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    script = f"while true; do date >{marker}; sleep 0.02; done & sleep 0.2"
    await driver.start(launch(1, "sh", "-c", script), quiet)
    assert (await driver.wait(1)).exit_code == 0
    marker.unlink(missing_ok=True)
    await asyncio.sleep(0.3)
    assert not marker.exists()


async def test_the_journal_does_not_grow_for_ever(driver: ProcessDriver, tmp_path: Path) -> None:
    big = {"LETTERS": "x" * 50_000}
    await driver.start(launch(1, "sleep", "60"), quiet)
    for run in range(2, 30):
        await driver.start(launch(run, "true", env=big), quiet)
        assert (await driver.wait(run)).exit_code == 0
        await driver.remove(run)
    assert (tmp_path / JOURNAL).stat().st_size < COMPACT_BYTES
    assert list(read_journal(tmp_path)) == [1], "what is live survives"
    assert os.listdir(tmp_path / RUNS) == ["1"]
    assert oct((tmp_path / JOURNAL).stat().st_mode & 0o777) == "0o600", "environments stand in it"


async def test_two_shims_of_one_directory(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(launch(1, "sleep", "60"), quiet)
    second = [sys.executable, "-m", "eventsched.agents.shim", str(tmp_path)]
    assert (await asyncio.to_thread(subprocess.run, second, timeout=10, check=False)).returncode == 0
    assert len(_shims(tmp_path)) == 1


async def _without_pids(driver: ProcessDriver, directory: Path) -> None:
    """Kill the shim; the journal is left as if it had been killed right after each start."""
    await driver.close()
    os.kill(_shims(directory)[0], signal.SIGKILL)
    journal = directory / JOURNAL
    lines = [line for line in journal.read_bytes().splitlines() if b'"pid"' not in line]
    journal.write_bytes(b"".join(line + b"\n" for line in lines))


async def test_a_pid_is_written_down_before_anything_else_happens(tmp_path: Path) -> None:
    """Not at the end of the loop's turn: the shim may be killed in between."""
    (tmp_path / RUNS).mkdir()
    launch = {"path": "/bin/sleep", "argv": ["sleep", "60"], "env": {}, "cwd": "/", "launch": "", "grace_ms": 0}
    shim = Shim(tmp_path)
    shim.handle(_Client(shim), {"do": "start", "run": 5, "keep": False, **launch})
    record = read_journal(tmp_path)[5]
    assert is_alive(record, boot_id())
    os.kill(record.pid, signal.SIGKILL)
    os.waitpid(record.pid, 0)


async def test_a_run_nobody_wrote_down_is_seen_and_adopted(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(launch(1, "sh", "-c", "exec >/dev/null 2>&1; sleep 60"), quiet)
    await until(lambda: marked(tmp_path))
    pid = read_journal(tmp_path)[1].pid
    await _without_pids(driver, tmp_path)
    assert list(live_process_runs(tmp_path)) == [1], "the leash sees it"
    (known,) = await driver.inventory()
    assert (known.ended, read_journal(tmp_path)[1].pid) == (None, pid)
    await driver.stop(1, 1_000)
    assert (await driver.wait(1)).outcome == "stopped"
    assert start_time(pid) is None


async def test_what_a_dead_command_left_behind_under_a_dead_shim_is_killed(
    driver: ProcessDriver, tmp_path: Path
) -> None:
    await driver.start(launch(1, "sh", "-c", "setsid sleep 60 & sleep 60 & wait"), quiet)
    await until(lambda: len(marked(tmp_path).get(1, ())) == 3)
    pid = read_journal(tmp_path)[1].pid
    await driver.close()
    os.kill(_shims(tmp_path)[0], signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: len(marked(tmp_path).get(1, ())) == 2)
    live = live_process_runs(tmp_path)[1]
    assert (live.led, len(live.others)) == (False, 2), "the leash sees them"
    ended = await driver.wait(1)
    assert (ended.outcome, ended.reason) == ("lost", "engine_lost")
    assert not marked(tmp_path), "it is not over before they are gone"


@contextlib.contextmanager
def _disk_full(shim: int, size: int) -> Iterator[None]:
    """A limit on file sizes stands for it; it cuts a write in the middle, as a full disk may."""
    resource.prlimit(shim, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(shim, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def test_a_full_disk_fails_a_start_and_not_the_shim(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(launch(1, "sleep", "60"), quiet)
    (shim,) = _shims(tmp_path)
    second = launch(2, "sleep", "60")
    asked = RunRecord(2, _encoded(second), second.spec.stop_grace_ms, boot=boot_id()).asked_line()
    before = (tmp_path / JOURNAL).stat().st_size
    for room in (20, len(asked) + 20):  # within what was asked; within the pid
        with _disk_full(shim, before + room):
            with pytest.raises(StartFailed, match="File too large"):
                await driver.start(second, quiet)
        assert (tmp_path / JOURNAL).stat().st_size == before, "nothing half written is left"
        await until(lambda: list(marked(tmp_path)) == [1])
    with _disk_full(shim, before):
        waiting = asyncio.ensure_future(driver.wait(1))
        os.kill(read_journal(tmp_path)[1].pid, signal.SIGKILL)
        await until(lambda: not marked(tmp_path))
        with pytest.raises(StartFailed, match="File too large"):  # answered although an end could not be written
            await driver.start(second, quiet)
        assert not waiting.done(), "nobody is told what is not written"
    assert (await waiting).exit_code == 137
    await driver.start(second, quiet)
    assert _shims(tmp_path) == [shim]


async def test_a_full_disk_puts_off_the_clearing_of_the_journal(driver: ProcessDriver, tmp_path: Path) -> None:
    big = {f"LETTERS_{index}": "x" * 100_000 for index in range(7)}
    await driver.start(launch(1, "sleep", "60", env=big), quiet)
    await driver.start(launch(2, "true", env=big), quiet)
    await driver.wait(2)
    (shim,) = _shims(tmp_path)
    assert (tmp_path / JOURNAL).stat().st_size > COMPACT_BYTES
    with _disk_full(shim, 500_000):
        removing = asyncio.ensure_future(driver.remove(2))
        await until(lambda: not (tmp_path / RUNS / "2").exists())
    await removing
    assert _shims(tmp_path) == [shim]
    assert list(read_journal(tmp_path)) == [1]
    assert not list(tmp_path.glob("*.new"))


async def test_a_run_that_lives_is_not_forgotten(driver: ProcessDriver, tmp_path: Path) -> None:
    for run in (1, 2):
        await driver.start(launch(run, "sleep", "60"), quiet)
    with pytest.raises(OSError, match="16"):
        await driver.remove(1)
    records = read_journal(tmp_path)
    (shim,) = _shims(tmp_path)
    os.kill(shim, signal.SIGSTOP)
    for record in records.values():  # both ends are seen at once
        os.kill(record.pid, signal.SIGKILL)
    os.kill(shim, signal.SIGCONT)
    assert [(await driver.wait(run)).reason for run in (1, 2)] == ["killed", "killed"]


async def test_what_a_dead_agent_had_asked_for_is_in_the_next_one_s_inventory(
    driver: ProcessDriver, tmp_path: Path
) -> None:
    await driver.start(launch(1, "true"), quiet)
    await driver.wait(1)
    (shim,) = _shims(tmp_path)
    os.kill(shim, signal.SIGSTOP)
    starting = asyncio.ensure_future(driver.start(launch(2, "sleep", "60"), quiet))
    await asyncio.sleep(0)
    starting.cancel()
    await driver.close()
    looking = asyncio.ensure_future(driver.inventory())
    await asyncio.sleep(0.05)
    os.kill(shim, signal.SIGCONT)
    assert [(known.launch.run, known.ended is None) for known in await looking] == [(1, False), (2, True)]


async def test_a_start_the_shim_never_read_is_asked_again(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(launch(1, "true"), quiet)
    await driver.wait(1)
    (shim,) = _shims(tmp_path)
    os.kill(shim, signal.SIGSTOP)
    starting = asyncio.ensure_future(driver.start(launch(2, "sh", "-c", "exit 7"), quiet))
    await asyncio.sleep(0)
    os.kill(shim, signal.SIGKILL)
    await starting
    assert (await driver.wait(2)).exit_code == 7


async def test_a_start_that_came_through_before_the_shim_died_is_not_asked_again(
    driver: ProcessDriver, tmp_path: Path
) -> None:
    await driver.start(launch(1, "true"), quiet)
    await driver.wait(1)
    (shim,) = _shims(tmp_path)
    starting = asyncio.ensure_future(driver.start(launch(2, "sh", "-c", "echo once; sleep 60"), quiet))
    await asyncio.sleep(0)
    while not (tmp_path / RUNS / "2").exists() or (tmp_path / RUNS / "2").read_text() != "once\n":
        time.sleep(0.01)  # not awaited: the answer must not be read
    os.kill(shim, signal.SIGKILL)
    await starting
    await driver.stop(2, 1_000)
    assert (await driver.wait(2)).outcome == "stopped"
    assert (tmp_path / RUNS / "2").read_text() == "once\n"


async def test_a_shim_that_cannot_be_replaced_at_once_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shim_client, "CONNECT_S", 0.3)
    failures: list[StartFailed] = []

    class Watched(ProcessDriver):
        async def _refresh(self) -> None:
            try:
                await super()._refresh()
            except StartFailed as failure:
                failures.append(failure)
                raise

    driver = Watched(Place(new_ulid(), "node-1", tmp_path))
    await driver.open()
    await driver.start(launch(1, "sleep", "60"), quiet)
    await driver.start(launch(2, "true"), quiet)
    os.kill(_shims(tmp_path)[0], signal.SIGKILL)
    lock = os.open(tmp_path / LOCK_FILE, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.kill(read_journal(tmp_path)[1].pid, signal.SIGKILL)
    await until(lambda: len(failures) >= 2)
    monkeypatch.setattr(shim_client, "CONNECT_S", 10.0)
    os.close(lock)
    async with asyncio.timeout(10):
        assert (await driver.wait(1)).outcome == "lost"
    for run in (1, 2):
        await driver.remove(run)
    await driver.leave()


async def test_many_runs_are_measured_and_stopped_without_reading_everything_again(
    driver: ProcessDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 25
    for run in range(1, count + 1):
        await driver.start(launch(run, "sleep", "60"), quiet)
    pids = [record.pid for record in read_journal(tmp_path).values()]
    await until(lambda: all(one is not None and one.memory_bytes for one in map(look_at, pids)))  # not in an exec
    looks, reads = [], []
    monkeypatch.setattr(processes, "look_at", lambda pid, look=processes.look_at: looks.append(pid) or look(pid))
    monkeypatch.setattr(process, "read_journal", lambda path, read=read_journal: reads.append(path) or read(path))
    there = sum(name.isdigit() for name in os.listdir("/proc"))
    usage = await driver.usage(range(1, count + 1))
    assert len(usage) == count
    assert all(one.memory_bytes > 0 for one in usage.values())
    assert len(looks) < there + 2 * count + 100, "the process table is read once"
    await asyncio.gather(*(driver.stop(run, 1_000) for run in range(1, count + 1)))
    assert [(await driver.wait(run)).outcome for run in range(1, count + 1)] == ["stopped"] * count
    assert not reads


async def test_usage_counts_all_that_a_run_has_started(driver: ProcessDriver, tmp_path: Path) -> None:
    busy = "while :; do :; done"
    await driver.start(launch(1, "sh", "-c", f"setsid sh -c '{busy}' & sh -c '{busy}' & wait"), quiet)
    await driver.start(launch(2, "sleep", "60"), quiet)
    await until(lambda: len(marked(tmp_path).get(1, ())) == 3)
    leaders = {record.pid: record.run for record in read_journal(tmp_path).values()}
    parts = [process for process in map(look_at, marked(tmp_path)[1]) if process is not None]
    await until(lambda: all(tree_usage(leaders)[1][0] >= 2 + (look_at(part.pid) or part).busy for part in parts))
    assert tree_usage(leaders)[1][1] > max(part.memory_bytes for part in parts)
    assert tree_usage(leaders)[2][0] <= 2
    for pid in marked(tmp_path)[1]:
        os.kill(pid, signal.SIGKILL)
    assert (await driver.wait(1)).reason == "killed"


def _encoded(launch: Launch) -> str:
    return msgspec.json.encode(launch).decode()
