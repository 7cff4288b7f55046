"""Process runs on disk: what the process driver leaves behind for whoever comes next.

Each run has a directory `runs/<run>`: `launch.json` (what was asked), `pid` (`<pid> <start time>
<boot id> <grace ms> <keep>`), `output`, and, once it has ended, `status` with the exit code. The shell
that runs the command writes `status`, so it survives the agent. A pid counts only together with
its start time: numbers are reused. Standard library only; the leash reads this too.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

RUNS = "runs"


class PidRecord(NamedTuple):
    """Who runs: process group leader, its start time (clock ticks), boot id, grace, keep on disconnect."""

    pid: int
    started: int
    boot_id: str
    grace_ms: int
    keep: bool


def boot_id() -> str:
    """Identity of this start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def read_pid(directory: Path) -> PidRecord | None:
    """The pid record of a run's directory."""
    try:
        pid, started, boot, grace_ms, keep = (directory / "pid").read_text().split()
        return PidRecord(int(pid), int(started), boot, int(grace_ms), keep == "1")
    except (OSError, ValueError):
        return None


def is_alive(record: PidRecord | None, boot: str) -> bool:
    """True when that very process still runs."""
    return record is not None and record.boot_id == boot and start_time(record.pid) == record.started


def run_directories(state: Path) -> dict[int, Path]:
    """Run -> its directory, oldest first."""
    try:
        names = sorted((int(name), name) for name in os.listdir(state / RUNS) if name.isdigit())
    except OSError:
        return {}
    return {run: state / RUNS / name for run, name in names}


def live_process_runs(state: Path) -> dict[int, int]:
    """Runs (with their grace) that run and must stop when the lease is over."""
    boot = boot_id()
    found = {}
    for run, directory in run_directories(state).items():
        record = read_pid(directory)
        if record is not None and not record.keep and is_alive(record, boot):
            found[run] = record.grace_ms
    return found


def signal_run(state: Path, run: int, number: signal.Signals) -> bool:
    """Send a signal to a run's whole process group; False when it is gone."""
    record = read_pid(state / RUNS / str(run))
    if not is_alive(record, boot_id()):
        return False
    assert record is not None
    try:
        os.killpg(record.pid, number)
    except ProcessLookupError:
        return False
    return True
