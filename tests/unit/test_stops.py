"""Why runs were stopped, on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

from eventsched.agents.stops import REWRITE_LINES, STOPS_FILE, StopReasons


async def test_the_first_reason_is_there_for_whoever_comes_next(tmp_path: Path) -> None:
    stops = StopReasons(tmp_path)
    await asyncio.gather(*(stops.note(run, "drained") for run in range(1, 50)))
    await stops.note(7, "timed_out")
    stops.forget(8)
    again = StopReasons(tmp_path)
    assert [again.get(run) for run in (1, 7, 49, 50)] == ["drained", "drained", "drained", ""]
    again.keep_only([7, 99])
    assert (again.get(7), again.get(1)) == ("drained", "")


async def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / STOPS_FILE).write_text("\n5 aborted\n12")
    stops = StopReasons(tmp_path)
    await stops.note(6, "preempted")
    again = StopReasons(tmp_path)
    assert (again.get(5), again.get(6), again.get(12)) == ("aborted", "preempted", "")


async def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    stops = StopReasons(tmp_path)
    await stops.note(1, "drained")
    for run in range(2, 2 * REWRITE_LINES, 500):
        await asyncio.gather(*(stops.note(one, "aborted") for one in range(run, run + 500)))
        for one in range(run, run + 500):
            stops.forget(one)
    assert len((tmp_path / STOPS_FILE).read_text().splitlines()) < 2 * REWRITE_LINES
    assert StopReasons(tmp_path).get(1) == "drained"


async def test_a_disk_that_takes_nothing_keeps_no_run_alive(tmp_path: Path) -> None:
    (tmp_path / STOPS_FILE).mkdir()
    stops = StopReasons(tmp_path)
    await stops.note(1, "drained")
    assert stops.get(1) == "drained"
