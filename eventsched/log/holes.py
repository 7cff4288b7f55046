"""A hole in a stream: a reader may lose its place; a stream may not lose an event."""

from __future__ import annotations

from eventsched.errors import LogGap

HOLES_MAX = 3
"""A hole that is found so often is no mistake of the reader's."""


def lost_event(stream: str, expected: int, got: int) -> LogGap:
    """The error of a stream without the sequence `expected`, whose next one is `got`."""
    return LogGap(
        f"stream {stream} has no sequence {expected} (next is {got}): events are lost",
        "restore the stream from a replica or a backup; nothing was folded beyond the gap",
    )
