"""The reader against a real server, with messages that get lost on the way to it."""

from __future__ import annotations

from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import connect
from eventsched.log.port import Outgoing
from eventsched.log.seams import Delivery, Sink
from eventsched.log.streams import api, ev_config
from eventsched.nats_server import NatsServer

LEAKS = 5


class Leaky(dict[bytes, Sink]):
    """The sinks of a link whose first consumers each lose one message, and come in runs of one after that."""

    leaks = LEAKS

    def __setitem__(self, sid: bytes, sink: Sink) -> None:
        if self.leaks:
            self.leaks -= 1
            sink = self._leak(sink)
        super().__setitem__(sid, sink)

    def _leak(self, sink: Sink) -> Sink:
        seen = 0

        def leaking(deliveries: list[Delivery]) -> None:
            nonlocal seen
            for delivery in deliveries:
                seen += bool(delivery[1])
                if seen != 20:
                    sink([delivery])

        return leaking


async def test_messages_lost_on_the_way_are_asked_for_again(nats_server: NatsServer) -> None:
    link, reading = await connect(nats_server.options("tester"), "w"), await connect(nats_server.options("tester"), "r")
    await api(link, "STREAM.CREATE.EV", ev_config(1))
    await JetStreamLog(link).append([Outgoing("ev.x", b"%d" % number) for number in range(1, 301)])
    reading.parser.sinks = sinks = Leaky()
    feed = JetStreamLog(reading).read(1)
    found: list[tuple[int, bytes]] = []
    while len(found) < 300:
        entries = await feed.get(10)
        assert entries, "every hole is filled by the next consumer"
        found += [(entry.seq, entry.payload) for entry in entries]
    assert found == [(number, b"%d" % number) for number in range(1, 301)]
    assert sinks.leaks == 0
    await feed.close()
    await link.close()
    await reading.close()
