"""Process runs on disk: the journal that the shim keeps, for whoever comes next.

`runs.journal` has a JSON object a line: what was asked (before anything can run), the pid, the exit
code, and that the run was removed. A pid counts only together with its start time, because numbers
are reused. Output lies in `runs/<run>`. Standard library only: the shim and the leash read this too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = "runs"
JOURNAL = "runs.journal"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class RunRecord:
    """What the journal says of a run.

    launch: what the driver keeps with it. born: clock ticks since boot just before and just after it was started.
    over: it has ended, with `code` (128 + n for signal n; None = nobody saw it).
    """

    run: int
    launch: str = ""
    grace_ms: int = 0
    keep: bool = False
    pid: int = 0
    born: tuple[int, int] = (0, 0)
    boot: str = ""
    over: bool = False
    code: int | None = None

    def lines(self) -> list[dict[str, Any]]:
        """The journal lines that say the same."""
        found: list[dict[str, Any]] = [
            {"run": self.run, "launch": self.launch, "grace_ms": self.grace_ms, "keep": self.keep, "boot": self.boot}
        ]
        if self.pid:
            found.append({"run": self.run, "pid": self.pid, "born": self.born})
        if self.over:
            found.append({"run": self.run, "code": self.code})
        return found


def boot_id() -> str:
    """Identity of this start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def boot_ticks() -> int:
    """Clock ticks since boot, as /proc counts process starts."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * CLOCK_TICKS)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def read_journal(directory: Path) -> dict[int, RunRecord]:
    """The runs that were started and not removed, in order of their start. A torn last line is left out."""
    records: dict[int, RunRecord] = {}
    try:
        lines = (directory / JOURNAL).read_bytes().splitlines()
    except OSError:
        return records
    for line in lines:
        try:
            entry = json.loads(line)
            run = int(entry["run"])
        except (ValueError, KeyError, TypeError):
            continue
        if "launch" in entry:
            records[run] = RunRecord(run, entry["launch"], entry["grace_ms"], entry["keep"], boot=entry["boot"])
        elif run not in records:
            continue
        elif "pid" in entry:
            records[run].pid, records[run].born = entry["pid"], tuple(entry["born"])
        elif "code" in entry:
            records[run].over, records[run].code = True, entry["code"]
        else:
            del records[run]
    return records


def is_alive(record: RunRecord, boot: str) -> bool:
    """True when that very process still runs."""
    if record.over or not record.pid or record.boot != boot:
        return False
    started = start_time(record.pid)
    return started is not None and record.born[0] - 1 <= started <= record.born[1] + 1


def find_process(directory: Path, run: int) -> int:
    """The pid of a run whose shim died between starting it and writing that down; 0 = there is none."""
    output = os.path.realpath(directory / RUNS / str(run))
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.getsid(int(name)) == int(name) and os.readlink(f"/proc/{name}/fd/1") == output:
                return int(name)
    return 0


def live_process_runs(directory: Path) -> dict[int, RunRecord]:
    """Runs that run and must stop when the lease is over."""
    boot = boot_id()
    return {
        run: record for run, record in read_journal(directory).items() if not record.keep and is_alive(record, boot)
    }


def signal_run(record: RunRecord, number: signal.Signals) -> bool:
    """Send a signal to a run's whole process group; False when it is gone."""
    if not is_alive(record, boot_id()):
        return False
    try:
        os.killpg(record.pid, number)
    except ProcessLookupError:
        return False
    return True
