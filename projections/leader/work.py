"""What this process has done as a leader, for metrics: counted since it began, and never part of the state."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from eventsched.events import RunAssigned
from eventsched.log.port import Outgoing

_PLACED = b'{"type":"%b"' % str(RunAssigned.__struct_config__.tag).encode()


class Work(Struct):
    """Rounds that are stored, the runs placed in them, and the time it took to decide and to store them."""

    rounds: int = 0
    placements: int = 0
    decide_ns: int = 0
    commit_ns: int = 0

    def add(self, messages: Sequence[Outgoing], decide_ns: int, commit_ns: int) -> None:
        """A round is stored."""
        self.rounds += 1
        self.placements += sum(message.payload.startswith(_PLACED) for message in messages)
        self.decide_ns += decide_ns
        self.commit_ns += commit_ns
