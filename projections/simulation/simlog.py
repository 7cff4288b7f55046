"""A simulated log as a file: one recorded event a line, with the payload as it would stand in the stream.

It is a real log: it decodes, folds to the same digest, and its rounds are decided again to the same
bytes. `{"seq": 7, "at_ms": 946684800000, "subject": "ev.job.t.j1.submitted", "payload": "{…}"}`
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from eventsched import codec
from eventsched.errors import InvalidSpec
from eventsched.log.port import Entry
from eventsched.projections.cluster.digest import digest
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.redeciding import redecide
from eventsched.projections.replica import Replica
from eventsched.projections.simulation.readers.source import Source
from eventsched.recorded import Recorded
from eventsched.wire import Int


class Line(Struct):
    """One line of the file."""

    seq: Int
    at_ms: Int
    subject: str
    payload: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class LogFile:
    """Writes what is recorded."""

    def __init__(self, path: Path) -> None:
        try:
            self._file: IO[bytes] = path.open("wb")
        except OSError as error:
            raise InvalidSpec(f"--log {path} cannot be written: {error.strerror}") from None

    def __call__(self, recorded: Recorded) -> None:
        """Write one event."""
        payload = codec.encode(recorded.event).decode()
        self._file.write(_encode(Line(recorded.seq, recorded.at_ms, recorded.subject, payload)) + b"\n")

    def close(self) -> None:
        """The log is complete."""
        self._file.close()


def read_log(path: Path) -> Iterator[Entry]:
    """The messages of a file, gz or not; raises InvalidSpec naming the line."""
    source, expected = Source(path), 1
    for place, text in source.lines():
        try:
            line = _decode(text)
        except (ValueError, RecursionError) as error:
            raise source.fatal(f"{place}: {error}", "a line is an object with seq, at_ms, subject, payload") from None
        if line.seq != expected:
            raise source.fatal(f"{place}: sequence {line.seq}, where {expected} belongs", "is the file complete?")
        expected += 1
        yield Entry(line.seq, line.at_ms, line.subject, line.payload.encode())
    if expected == 1:
        raise source.fatal("no event in it", "a log begins with cluster.created")


class Verified(Struct):
    """What a log folds to. rounds: how many were decided again; differing: those that came out otherwise;
    unknown: how many are of policies this build does not have."""

    events: int
    digest: str
    rounds: int
    differing: list[int]
    unknown: int
    anomalies: dict[str, int]


def verify(path: Path) -> Verified:
    """Fold a log from its start, and decide each of its rounds again on the state before it.

    Raises EventschedError when the log is of a newer build, or a digest in it is not met.
    """
    state = ClusterState()
    replica = Replica(state)
    found = redecide(read_log(path), replica)
    replica.refuse_mismatch()
    return Verified(state.seq, digest(state), found.rounds, found.differing, found.unknown, state.anomalies)
