"""The node's lease: until when this node may run anything, on the machine's own boot clock.

A small file, rewritten at each acknowledged heartbeat. The deadline counts from when the
heartbeat was *sent*, so it always lies before the moment the leader may give the node up. Once
it has passed it stays passed: only a new session starts a new lease. CLOCK_BOOTTIME goes on while
a machine sleeps, which is what makes waking up late harmless.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

LEASE_FILE = "lease.json"
FENCED_FILE = "fenced"


def boot_ms() -> int:
    """Milliseconds since the machine was started, sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def write_lease(directory: Path, deadline_ms: int, session: int) -> None:
    """Put the deadline into the file, all of it or nothing."""
    temporary = directory / (LEASE_FILE + ".new")
    temporary.write_text(json.dumps({"deadline_ms": deadline_ms, "session": session}))
    os.replace(temporary, directory / LEASE_FILE)


def read_deadline(directory: Path) -> int | None:
    """The deadline in the file; None when there is no lease."""
    try:
        return int(json.loads((directory / LEASE_FILE).read_text())["deadline_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def drop_lease(directory: Path) -> None:
    """End the lease in good order: nothing runs here any more."""
    (directory / LEASE_FILE).unlink(missing_ok=True)


def note_fenced(directory: Path, runs: list[int]) -> None:
    """Record, before it is done, that these runs are stopped for want of a lease: their end is not
    their own, and must not be reported as such."""
    if not runs:
        return
    with (directory / FENCED_FILE).open("a") as file:
        file.write("".join(f"{run}\n" for run in runs))
        file.flush()
        os.fsync(file.fileno())


def read_fenced(directory: Path) -> dict[int, None]:
    """The runs that were stopped for want of a lease."""
    try:
        lines = (directory / FENCED_FILE).read_text().split()
    except OSError:
        return {}
    return {int(line): None for line in lines if line.isdigit()}


class Lease:
    """The agent's side of the lease."""

    def __init__(self, directory: Path, fence_after_ms: int) -> None:
        self._directory = directory
        self._fence_after_ms = fence_after_ms
        self.deadline_ms = 0

    def start(self, sent_ms: int, session: int) -> None:
        """A session was joined by a message sent at `sent_ms`."""
        self.deadline_ms = sent_ms + self._fence_after_ms
        write_lease(self._directory, self.deadline_ms, session)

    def renew(self, sent_ms: int, session: int) -> bool:
        """A heartbeat sent at `sent_ms` was acknowledged; False if the lease had run out before."""
        if self.expired():
            return False
        self.deadline_ms = max(self.deadline_ms, sent_ms + self._fence_after_ms)
        write_lease(self._directory, self.deadline_ms, session)
        return True

    def expired(self) -> bool:
        """True when nothing may be started any more."""
        return boot_ms() >= self.deadline_ms
