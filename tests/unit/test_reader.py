"""The reader, fed runs of messages as a socket gives them."""

from __future__ import annotations

from typing import cast

import pytest

from eventsched.errors import LogGap
from eventsched.log.link import Link
from eventsched.log.reader import StreamReader
from eventsched.log.seams import Delivery


class Fed(StreamReader):
    """A reader of a contiguous stream from sequence 10 on, whose consumers are played by the test."""

    def __init__(self) -> None:
        super().__init__(cast(Link, None), "EV", 10, contiguous=True)
        self._new_consumer()

    def _new_consumer(self) -> None:
        self._restart.clear()
        self._consumer_seq, self._credit = 0, 10_000

    def replaced(self) -> None:
        """The reader has asked for another consumer, and has it."""
        assert self._restart.is_set()
        self._new_consumer()

    def take(self, *seqs: int) -> None:
        self._take([_delivery(seq) for seq in seqs])

    @property
    def read(self) -> list[int]:
        return [entry.seq for entries, _ in self._runs for entry in entries]

    @property
    def failure(self) -> Exception | None:
        return self._failure


def _delivery(seq: int) -> Delivery:
    return b"ev.x", b"$JS.ACK.EV.c.1.%d.%d.1000000000.0" % (seq, seq - 9), b"{}", b""


async def test_one_hole_is_one_hole_however_many_runs_of_messages_follow() -> None:
    """A false `LogGap` stopped a replica: a hole, and two more runs of messages in one read of the socket."""
    reader = Fed()
    for seq in (12, 13, 14):
        reader.take(seq)
    assert reader.failure is None
    reader.replaced()
    reader.take(10, 11, 12)
    assert reader.read == [10, 11, 12]


async def test_what_comes_before_a_hole_is_kept_and_nothing_behind_it() -> None:
    reader = Fed()
    reader.take(10, 11, 13, 14)
    reader.take(12)
    assert reader.read == [10, 11], "the old consumer is done for, even if it goes on as if nothing was"
    reader.replaced()
    reader.take(12, 13)
    assert reader.read == [10, 11, 12, 13]


async def test_the_same_hole_at_three_consumers_is_a_lost_event() -> None:
    reader = Fed()
    for _ in range(2):
        reader.take(11)
        reader.replaced()
    assert reader.failure is None
    reader.take(11)
    with pytest.raises(LogGap, match="has no sequence 10"):
        await reader.get(1)


async def test_three_holes_at_different_places_lose_nothing() -> None:
    reader = Fed()
    for start in (10, 12, 14):
        reader.take(start, start + 1, start + 3)
        assert reader.failure is None
        reader.replaced()
    reader.take(16)
    assert reader.read == list(range(10, 17))


async def test_a_consumer_that_is_gone_is_listened_to_no_more() -> None:
    reader = Fed()
    status = b"NATS/1.0 409 Consumer Deleted\r\n\r\n"
    reader._take([(b"_INBOX.x", b"", b"", status)])
    reader.take(10)
    assert reader.read == []
    reader.replaced()
    reader.take(10)
    assert reader.read == [10]
