"""Processes of this machine, as /proc shows them: which of them belong to which run, and signals to them.

A run's command leads a session and a process group of its own. Its processes also carry a mark in
their environment, which tells them when the leader is gone, or was never written down. A pid counts
only together with its start time, because numbers are reused. Standard library only: the shim and
the leash use this too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from eventsched.agents.process_runs import RUNS, RunRecord, read_journal

MARK = "EVENTSCHED_SHIM_RUN"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Process:
    """A line of the process table; times in clock ticks, `born` since boot."""

    pid: int
    parent: int
    session: int
    busy: int
    born: int
    memory_bytes: int


def boot_id() -> str:
    """Identity of this start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def boot_ticks() -> int:
    """Clock ticks since boot, as /proc counts process starts."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * CLOCK_TICKS)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def look_at(pid: int) -> Process | None:
    """One process; None when there is none or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    busy = sum(map(int, fields[11:15]))  # its own and of the children it has waited for
    return Process(pid, int(fields[1]), int(fields[3]), busy, int(fields[19]), int(fields[21]) * _PAGE_BYTES)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none or it is a zombie."""
    process = look_at(pid)
    return None if process is None else process.born


def is_alive(record: RunRecord, boot: str) -> bool:
    """True when that very process still runs."""
    if record.over or not record.pid or record.boot != boot:
        return False
    started = start_time(record.pid)
    return started is not None and record.born[0] - 1 <= started <= record.born[1] + 1


def signal_group(record: RunRecord, number: signal.Signals, boot: str) -> bool:
    """Send a signal to the process group of a run; False when its command is gone."""
    if not is_alive(record, boot):
        return False
    try:
        os.killpg(record.pid, number)
    except ProcessLookupError:
        return False
    return True


# ---- by their mark --------------------------------------------------------------------------


def mark_of(directory: Path, run: int) -> str:
    """What stands behind the name `MARK` in the environment of a run's processes: where its output goes."""
    return os.path.realpath(directory / RUNS / str(run))


def _environment(pid: int) -> bytes:
    """Its variables, each between zero bytes; empty for zombies, and for processes of others."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"\0" + file.read() + b"\0"
    except OSError:
        return b""


def marked(directory: Path) -> dict[int, list[int]]:
    """Run -> its live processes, for all runs of a directory."""
    begin = f"\0{MARK}={os.path.realpath(directory / RUNS)}/".encode()
    found: dict[int, list[int]] = {}
    for pid in _pids():
        _, is_ours, rest = _environment(pid).partition(begin)
        run = rest.partition(b"\0")[0]
        if is_ours and run.isdigit():
            found.setdefault(int(run), []).append(pid)
    return found


def signal_marked(directory: Path, run: int, pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes found by their mark, and to none that got the number of one meanwhile."""
    mark = f"\0{MARK}={mark_of(directory, run)}\0".encode()
    for pid in pids:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                if mark in _environment(pid):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def leader_of(pids: Iterable[int]) -> Process | None:
    """The process that leads the run: of those with a session of their own, the first one born."""
    leaders = [process for process in map(look_at, pids) if process is not None and process.session == process.pid]
    return min(leaders, key=lambda process: process.born, default=None)


# ---- what must stop ----------------------------------------------------------------------------


@dataclass(slots=True)
class LiveRun:
    """A run that has processes. led: its command still runs; others: what runs outside of that group."""

    record: RunRecord
    led: bool
    others: list[int] = field(default_factory=list)


def live_process_runs(directory: Path) -> dict[int, LiveRun]:
    """Runs that have processes and must stop when the lease is over."""
    boot = boot_id()
    records = {
        run: record
        for run, record in read_journal(directory).items()
        if not record.over and not record.keep and record.boot == boot
    }
    by_mark = marked(directory) if records else {}
    found: dict[int, LiveRun] = {}
    for run, record in records.items():
        led, pids = is_alive(record, boot), by_mark.get(run, [])
        if led or pids:
            found[run] = LiveRun(record, led, [pid for pid in pids if not led or _group(pid) != record.pid])
    return found


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def signal_run(directory: Path, live: LiveRun, number: signal.Signals, boot: str) -> None:
    """Send a signal to all of a run's processes, once to each."""
    if live.led:
        signal_group(live.record, number, boot)
    signal_marked(directory, live.record.run, live.others, number)


# ---- what they use -----------------------------------------------------------------------------


def tree_usage(leaders: dict[int, int]) -> dict[int, tuple[int, int]]:
    """Run -> (clock ticks busy since its start, bytes of memory), of the sessions and descendants of
    the leading processes in `leaders` (pid -> run), from one reading of the process table."""
    table = {process.pid: process for process in map(look_at, _pids()) if process is not None}
    owners: dict[int, int] = dict(leaders)
    found = dict.fromkeys(leaders.values(), (0, 0))
    for process in table.values():
        path: list[int] = []
        at: Process | None = process
        run = 0
        while at is not None and not run and at.pid not in path:
            run = owners.get(at.pid, 0) or leaders.get(at.session, 0)
            path.append(at.pid)
            at = table.get(at.parent)
        owners.update(dict.fromkeys(path, run))
        if run:
            busy, memory = found[run]
            found[run] = busy + process.busy, memory + process.memory_bytes
    return found
