"""Turns of all test processes on a machine: a test marked `alone` has it to itself.

For the few that hold a real time against a promise. A test passes the gate, then shares the floor; who
wants the floor for itself keeps the gate shut until it has it. Locks on files end with their process.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(alone: bool) -> Iterator[None]:
    """Wait until a test may run."""
    place = Path(tempfile.gettempdir(), f"eventsched-tests-{os.getuid()}")
    with open(f"{place}.floor", "w") as floor:
        with open(f"{place}.gate", "w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(floor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
