"""The node's lease: until when this node may run anything, on the machine's own boot clock.

A small file, rewritten at each acknowledged heartbeat. The deadline counts from when the
heartbeat was *sent*, so it always lies before the moment the leader may give the node up. Once
it has passed it stays passed: only a new session starts a new lease. CLOCK_BOOTTIME goes on while
a machine sleeps, which is what makes waking up late harmless.

All that the leash must know stands in the file too: it outlives agents, and obeys the last one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LEASE_FILE = "lease.json"
FENCED_DIRECTORY = "fenced-runs"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a leash is to stop, and how: the longest grace between SIGTERM and SIGKILL, and the engine
    to ask for containers ("" = there are none)."""

    cluster: str
    node: str
    grace_max_ms: int
    docker_socket: str = ""


def boot_ms() -> int:
    """Milliseconds since the machine was started, sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def write_lease(directory: Path, deadline_ms: int, session: int, terms: Terms) -> None:
    """Put the lease into the file, all of it or nothing."""
    temporary = directory / (LEASE_FILE + ".new")
    temporary.write_text(json.dumps({"deadline_ms": deadline_ms, "session": session, **dataclasses.asdict(terms)}))
    os.replace(temporary, directory / LEASE_FILE)


def read_lease(directory: Path) -> tuple[int, Terms] | None:
    """Deadline and terms in the file; None when there is no lease. Raises OSError or ValueError for a
    file that cannot be read, which is no end of the lease."""
    try:
        lease = json.loads((directory / LEASE_FILE).read_text())
    except FileNotFoundError:
        return None
    try:
        terms = Terms(lease["cluster"], lease["node"], int(lease["grace_max_ms"]), lease["docker_socket"])
        return int(lease["deadline_ms"]), terms
    except (KeyError, TypeError) as error:
        raise ValueError(f"{LEASE_FILE}: {error}") from None


def drop_lease(directory: Path) -> None:
    """End the lease in good order: nothing runs here any more."""
    (directory / LEASE_FILE).unlink(missing_ok=True)


def note_fenced(directory: Path, runs: list[int]) -> None:
    """Record, before it is done, that these runs are stopped for want of a lease: their end is not
    their own, and must not be reported as such. A file each: leash and agent never write the same one."""
    if not runs:
        return
    fenced = directory / FENCED_DIRECTORY
    fenced.mkdir(exist_ok=True)
    for run in runs:
        (fenced / str(run)).touch()
    handle = os.open(fenced, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_fenced(directory: Path) -> dict[int, None]:
    """The runs that were stopped for want of a lease."""
    try:
        names = os.listdir(directory / FENCED_DIRECTORY)
    except OSError:
        return {}
    return {int(name): None for name in sorted(names) if name.isdigit()}


def keep_fenced(directory: Path, runs: Iterable[int]) -> dict[int, None]:
    """As `read_fenced`, of these runs alone; there are no others any more, and they are forgotten."""
    fenced = read_fenced(directory)
    kept = {run: None for run in runs if run in fenced}
    for run in fenced:
        if run not in kept:
            with contextlib.suppress(OSError):
                (directory / FENCED_DIRECTORY / str(run)).unlink()
    return kept


class Lease:
    """The agent's side of the lease."""

    def __init__(self, directory: Path, fence_after_ms: int, terms: Terms) -> None:
        self._directory = directory
        self._fence_after_ms = fence_after_ms
        self._terms = terms
        self.deadline_ms = 0

    def start(self, sent_ms: int, session: int) -> None:
        """A session was joined by a message sent at `sent_ms`."""
        self.deadline_ms = sent_ms + self._fence_after_ms
        write_lease(self._directory, self.deadline_ms, session, self._terms)

    def renew(self, sent_ms: int, session: int) -> bool:
        """A heartbeat sent at `sent_ms` was acknowledged; False if the lease had run out before."""
        if self.expired():
            return False
        self.deadline_ms = max(self.deadline_ms, sent_ms + self._fence_after_ms)
        write_lease(self._directory, self.deadline_ms, session, self._terms)
        return True

    def expired(self) -> bool:
        """True when nothing may be started any more."""
        return boot_ms() >= self.deadline_ms
