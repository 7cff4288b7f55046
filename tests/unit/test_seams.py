"""Our framing in front of nats-py's parser: whatever the socket's cuts, every frame goes where it belongs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from eventsched.log import seams


class _Client:
    """What nats-py's parser calls."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes, bytes, bytes, bytes | None]] = []
        self.pings = self.pongs = 0
        self.infos: list[dict[str, Any]] = []
        self.errors: list[str] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.messages.append((sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.pings += 1

    async def _process_pong(self) -> None:
        self.pongs += 1

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.infos.append(info)

    async def _process_err(self, error: str) -> None:
        self.errors.append(error)


def _msg(sid: int, payload: bytes, reply: bytes = b"") -> bytes:
    return b"MSG sub.x %d %s%d\r\n%s\r\n" % (sid, reply + b" " if reply else b"", len(payload), payload)


def _hmsg(sid: int, headers: bytes, payload: bytes, reply: bytes = b"") -> bytes:
    sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
    return b"HMSG sub.x %d %s%s\r\n%s%s\r\n" % (sid, reply + b" " if reply else b"", sizes, headers, payload)


HEADERS = b"NATS/1.0\r\nNats-Batch-Id: x\r\n\r\n"
STATUS = b"NATS/1.0 408 Request Timeout\r\n\r\n"
STREAM = [
    _msg(7, b"one", b"$JS.ACK.a"),
    b"PING\r\n",
    _hmsg(7, HEADERS, b"two\r\nMSG sub.x 7 3\r\n", b"$JS.ACK.b"),
    _msg(3, b"foreign"),
    _msg(7, b"", b"$JS.ACK.c"),
    b"+OK\r\n",
    _hmsg(7, STATUS, b""),
    _hmsg(3, HEADERS, b"foreign too", b"r"),
    b'INFO {"version":"9"}\r\n',
    b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n",
    _msg(7, b"x" * 70_000, b"$JS.ACK.d"),
    b"PONG\r\n",
    _msg(8, b"other of ours", b"$JS.ACK.e"),
    _msg(7, b"last", b"$JS.ACK.f"),
]
OURS = [b"one", b"two\r\nMSG sub.x 7 3\r\n", b"", b"", b"x" * 70_000, b"last"]


async def _feed(cuts: list[bytes]) -> tuple[_Client, dict[bytes, list[seams.Delivery]]]:
    client = _Client()
    parser = seams.BulkParser(client)  # type: ignore[arg-type]
    taken: dict[bytes, list[seams.Delivery]] = {b"7": [], b"8": []}
    for sid, found in taken.items():
        parser.sinks[sid] = found.extend
    for cut in cuts:
        await parser.parse(cut)
    return client, taken


@pytest.mark.parametrize("seed", range(60))
async def test_any_cuts_give_the_same(seed: int) -> None:
    data, cuts = b"".join(STREAM), []
    rng = random.Random(seed)
    while data:
        size = len(data) if seed == 0 else rng.choice((1, 2, 3, 7, 20, 100, 5_000, 40_000))
        cuts.append(data[:size])
        data = data[size:]
    client, taken = await _feed(cuts)
    assert [payload for _, _, payload, _ in taken[b"7"]] == OURS
    assert taken[b"7"][3][3] == STATUS, "a status comes with its header block"
    assert taken[b"7"][1][1] == b"$JS.ACK.b"
    assert [payload for _, _, payload, _ in taken[b"8"]] == [b"other of ours"]
    assert [(sid, data) for sid, _, _, data, _ in client.messages] == [(3, b"foreign"), (3, b"foreign too")]
    assert client.messages[1][4] == HEADERS
    assert (client.pings, client.pongs, client.infos) == (1, 1, [{"version": "9"}])
    assert len(client.errors) == 1


async def test_a_reset_forgets_half_a_frame() -> None:
    client = _Client()
    parser = seams.BulkParser(client)  # type: ignore[arg-type]
    found: list[seams.Delivery] = []
    parser.sinks[b"7"] = found.extend
    await parser.parse(_msg(7, b"half", b"$JS.ACK.a")[:-3])
    parser.reset()
    await parser.parse(_msg(7, b"whole", b"$JS.ACK.a"))
    assert [payload for _, _, payload, _ in found] == [b"whole"]


async def test_a_sink_may_go_while_messages_are_taken() -> None:
    client = _Client()
    parser = seams.BulkParser(client)  # type: ignore[arg-type]
    parser.sinks[b"8"] = lambda _: parser.sinks.pop(b"7", None)
    found: list[seams.Delivery] = []
    parser.sinks[b"7"] = found.extend
    await parser.parse(_msg(8, b"a", b"r") + _msg(7, b"b", b"r") + b"PING\r\n")
    assert found == []
    assert [(sid, data) for sid, _, _, data, _ in client.messages] == [(7, b"b")]
    assert client.pings == 1


def test_publications() -> None:
    assert seams.publication("a", "r", "", b"xy") == b"PUB a r 2\r\nxy\r\n"
    assert seams.publication("a", "", "K: v\r\n", b"x") == b"HPUB a  18 19\r\nNATS/1.0\r\nK: v\r\n\r\nx\r\n"
