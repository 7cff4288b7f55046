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
from eventsched.projections.cluster.digest import digest
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.scheduling.decide import decide
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.simulation.readers.source import Source
from eventsched.recorded import Recorded
from eventsched.wire import Decision


class Line(Struct):
    """One line of the file."""

    seq: int
    at_ms: int
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


def read_log(path: Path) -> Iterator[Recorded]:
    """The events of a file, gz or not; raises InvalidSpec naming the line."""
    source, expected = Source(path), 1
    for place, text in source.lines():
        try:
            line = _decode(text)
        except ValueError as error:
            raise source.fatal(f"{place}: {error}", "a line is an object with seq, at_ms, subject, payload") from None
        if line.seq != expected:
            raise source.fatal(f"{place}: sequence {line.seq}, where {expected} belongs", "is the file complete?")
        expected += 1
        yield Recorded(line.seq, line.at_ms, line.subject, codec.decode(line.subject, line.payload.encode()))


class Verified(Struct):
    """What a log folds to. rounds: how many were decided again; different: those that came out otherwise."""

    events: int
    digest: str
    rounds: int
    different: list[int]
    anomalies: dict[str, int]


def verify(path: Path) -> Verified:
    """Fold a log from its start, and decide each of its rounds again on the state before it."""
    state, expected, different, rounds = ClusterState(), [], [], 0
    planner: Planner | None = None
    for recorded in read_log(path):
        event = recorded.event
        if isinstance(event, Decision) and event.round and event.index == 0:
            planner = planner or Planner(state)
            rounds += 1
            expected = [(one.subject, codec.encode(one.event)) for one in decide(state, event.now_ms, planner)][::-1]
            if len(expected) != event.count:
                different.append(event.round)
                expected = []
        if isinstance(event, Decision) and expected and expected.pop() != (recorded.subject, codec.encode(event)):
            different.append(event.round)
            expected = []
        evolve(state, recorded)
    return Verified(state.seq, digest(state), rounds, different, state.anomalies)
