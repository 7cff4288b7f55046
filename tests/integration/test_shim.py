"""The shim behind process runs: killed, left alone, full of history."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from eventsched.agents.drivers.base import Place
from eventsched.agents.drivers.process import ProcessDriver
from eventsched.agents.effects import Launch
from eventsched.agents.process_runs import JOURNAL, RUNS, boot_id, boot_ticks, read_journal, start_time
from eventsched.agents.shim import COMPACT_BYTES
from eventsched.new_ids import new_ulid
from eventsched.spec import JobSpec


def _launch(run: int, *command: str, **fields: object) -> Launch:
    return Launch(run, "acme", "job", 1, (), JobSpec(driver="process", command=command, **fields))  # type: ignore[arg-type]


def _shims(directory: Path) -> list[int]:
    found = subprocess.run(["pgrep", "-f", f"agents.shim {directory}"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def _quiet(_: str) -> None:
    pass


async def _until(claim: Callable[[], object], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[ProcessDriver]:
    driver = ProcessDriver(Place(new_ulid(), "node-1", tmp_path))
    await driver.open()
    yield driver
    for known in await driver.inventory():
        await driver.stop(known.launch.run, 0)
        await driver.remove(known.launch.run)
    await driver.leave()
    assert not _shims(tmp_path), "a shim with nothing to do leaves with its agent"


async def test_a_killed_shim_is_replaced_and_says_what_it_cannot_know(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(_launch(1, "sh", "-c", "sleep 0.6; exit 5"), _quiet)
    (shim,) = _shims(tmp_path)
    os.kill(shim, signal.SIGKILL)
    ended = await driver.wait(1)
    assert (ended.outcome, ended.reason) == ("lost", "engine_lost"), "only its parent would have known the code"
    await driver.start(_launch(2, "true"), _quiet)
    assert (await driver.wait(2)).exit_code == 0
    assert _shims(tmp_path) != [shim]


async def test_a_run_under_a_new_shim_can_still_be_stopped(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(_launch(1, "sleep", "60"), _quiet)
    pid = read_journal(tmp_path)[1].pid
    os.kill(_shims(tmp_path)[0], signal.SIGKILL)
    await _until(lambda: _shims(tmp_path))
    await driver.stop(1, 1_000)
    assert (await driver.wait(1)).outcome == "stopped"
    assert start_time(pid) is None


async def test_a_shim_killed_before_it_wrote_the_pid_down(driver: ProcessDriver, tmp_path: Path) -> None:
    """The process is found by the file its output goes to."""
    with (tmp_path / RUNS / "7").open("wb") as output:
        process = subprocess.Popen(["sleep", "60"], stdout=output, start_new_session=True)
    asked = {
        "run": 7,
        "launch": _encoded(_launch(7, "sleep", "60")),
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
        {"run": 3, "launch": _encoded(_launch(3, "sleep", "60")), "grace_ms": 0, "keep": False, "boot": boot_id()},
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
    await driver.start(_launch(1, "sh", "-c", script), _quiet)
    assert (await driver.wait(1)).exit_code == 0
    marker.unlink(missing_ok=True)
    await asyncio.sleep(0.3)
    assert not marker.exists()


async def test_the_journal_does_not_grow_for_ever(driver: ProcessDriver, tmp_path: Path) -> None:
    big = {"LETTERS": "x" * 50_000}
    await driver.start(_launch(1, "sleep", "60"), _quiet)
    for run in range(2, 30):
        await driver.start(_launch(run, "true", env=big), _quiet)
        assert (await driver.wait(run)).exit_code == 0
        await driver.remove(run)
    assert (tmp_path / JOURNAL).stat().st_size < COMPACT_BYTES
    assert list(read_journal(tmp_path)) == [1], "what is live survives"
    assert os.listdir(tmp_path / RUNS) == ["1"]
    assert oct((tmp_path / JOURNAL).stat().st_mode & 0o777) == "0o600", "environments stand in it"


async def test_two_shims_of_one_directory(driver: ProcessDriver, tmp_path: Path) -> None:
    await driver.start(_launch(1, "sleep", "60"), _quiet)
    second = [sys.executable, "-m", "eventsched.agents.shim", str(tmp_path)]
    assert (await asyncio.to_thread(subprocess.run, second, timeout=10, check=False)).returncode == 0
    assert len(_shims(tmp_path)) == 1


def _encoded(launch: Launch) -> str:
    return msgspec.json.encode(launch).decode()
