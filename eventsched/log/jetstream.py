"""The log on JetStream.

One message is a plain publish (one fsync); several are an atomic batch: invisible until
committed, all sequences contiguous. The fence stands on the first member only (headers on every
member would halve replay). Error codes of the server become the port's errors.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import msgspec
import nats.errors

from eventsched.errors import PermissionDenied
from eventsched.log import seams
from eventsched.log.direct import DirectReader
from eventsched.log.link import Link
from eventsched.log.port import (
    BATCH_MAX,
    AppendError,
    Busy,
    Conflict,
    Denied,
    Duplicate,
    Fenced,
    OutcomeUnknown,
    Outgoing,
    Refused,
    Unavailable,
)
from eventsched.log.reader import StreamReader
from eventsched.log.streams import EV
from eventsched.new_ids import new_batch_id
from eventsched.subjects import LEADER

APPEND_TIMEOUT_S = 5.0
_FENCE_HEADERS = (
    f"Nats-Expected-Last-Subject-Sequence: {{}}\r\nNats-Expected-Last-Subject-Sequence-Subject: {LEADER}\r\n"
)


class _PubAck(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


class _StoredMessage(msgspec.Struct):
    seq: int
    hdrs: str = ""


class _Stored(msgspec.Struct):
    message: _StoredMessage | None = None


_decode_ack = msgspec.json.Decoder(_PubAck).decode


class JetStreamLog:
    """`EventLog` over the stream EV, or (without batches and fence) over another one.

    direct: read without a consumer (see `eventsched.log.direct`).
    """

    def __init__(
        self, link: Link, timeout_s: float = APPEND_TIMEOUT_S, stream: str = EV, *, direct: bool = False
    ) -> None:
        self._link = link
        self._timeout_s = timeout_s
        self._stream = stream
        self._reader = DirectReader if direct else StreamReader

    def read(self, from_seq: int, subjects: Sequence[str] = ()) -> DirectReader | StreamReader:
        """See `EventLog.read`."""
        return self._reader(self._link, self._stream, from_seq, subjects, contiguous=self._stream == EV)

    async def last_on(self, subject: str) -> tuple[int, str] | None:
        """See `EventLog.last_on`. Reads from the stream's leader: what was acknowledged is seen."""
        body = msgspec.json.encode({"last_by_subj": subject})
        raw = await self._link.request(f"$JS.API.STREAM.MSG.GET.{self._stream}", body)
        found = msgspec.json.decode(raw, type=_Stored)
        if found.message is None:
            return None
        block = base64.b64decode(found.message.hdrs).decode(errors="replace") if found.message.hdrs else ""
        ids = [line.partition(": ")[2] for line in block.split("\r\n") if line.lower().startswith("nats-msg-id: ")]
        return found.message.seq, ids[0] if ids else ""

    async def append(self, messages: Sequence[Outgoing], *, fence: int | None = None) -> int:
        """See `EventLog.append`."""
        if not 1 <= len(messages) <= BATCH_MAX:
            raise Refused(f"{len(messages)} messages in one append; 1 to {BATCH_MAX} are allowed")
        if not self._link.connected.is_set():
            raise Unavailable(f"not connected to {self._link.url}")
        limit = self._link.client.max_payload
        for message in messages:
            if len(message.payload) > limit:
                raise Refused(f"{message.subject}: {len(message.payload)} bytes; the server takes at most {limit}")
        try:
            ack = _decode_ack(await self._publish(messages, fence))
        except PermissionDenied as error:
            raise Denied(error.message, error.hint) from error
        except nats.errors.NoRespondersError as error:
            raise Unavailable(f"stream {self._stream} has no leader at present") from error
        except nats.errors.OutboundBufferLimitError as error:
            raise Unavailable(f"not connected to {self._link.url}") from error
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise OutcomeUnknown(f"no answer to a write of {len(messages)} messages") from error
        if ack.error is not None:
            raise _append_error(ack.error, fence)
        return ack.seq

    async def _publish(self, messages: Sequence[Outgoing], fence: int | None) -> bytes:
        client = self._link.client
        inbox = client.new_inbox()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        subscription = await client.subscribe(inbox, max_msgs=0, future=None, cb=_ignore)
        sid = str(subscription._id).encode()

        def take(deliveries: list[seams.Delivery]) -> None:
            for _, _, payload, status in deliveries:
                if answer.done():
                    continue
                if status.startswith(b"NATS/1.0 503"):
                    answer.set_exception(nats.errors.NoRespondersError())
                elif payload:
                    answer.set_result(payload)

        self._link.parser.sinks[sid] = take
        try:
            await seams.send(client, _publications(messages, fence, inbox))
            async with asyncio.timeout(self._timeout_s):
                return bytes(await self._link.guard(messages[-1].subject, answer))
        finally:
            self._link.parser.sinks.pop(sid, None)
            if not client.is_closed:
                await subscription.unsubscribe()


def _publications(messages: Sequence[Outgoing], fence: int | None, inbox: str) -> list[bytes]:
    first = "" if fence is None else _FENCE_HEADERS.format(fence)
    if len(messages) == 1:
        return [seams.publication(messages[0].subject, inbox, first + _headers(messages[0]), messages[0].payload)]
    batch = f"Nats-Batch-Id: {new_batch_id()}\r\nNats-Batch-Sequence: "
    last = len(messages)
    publications = []
    for number, message in enumerate(messages, 1):
        headers = f"{batch}{number}\r\n{first}{_headers(message)}"
        if number == last:
            headers += "Nats-Batch-Commit: 1\r\n"
        reply = inbox if number in (1, last) else ""
        publications.append(seams.publication(message.subject, reply, headers, message.payload))
        first = ""
    return publications


def _headers(message: Outgoing) -> str:
    if not message.msg_id and message.expect is None:
        return ""
    headers = f"Nats-Msg-Id: {message.msg_id}\r\n" if message.msg_id else ""
    if message.expect is not None:
        headers += f"Nats-Expected-Last-Subject-Sequence: {message.expect}\r\n"
    return headers


def _append_error(error: dict[str, Any], fence: int | None) -> AppendError:
    code, text = error.get("err_code", 0), str(error.get("description", ""))
    match code:
        case 10071:
            if fence is not None:
                return Fenced(text)
            return Conflict(text)
        case 10164 | 10210:
            return Busy(text)
        case 10201:
            return Duplicate(text)
        case 10077 | 10047 | 10023 | 10122:
            return Refused(f"the store takes no more: {text}", "free or enlarge the store of the NATS server")
        case 10176 | 10008 | 10039 | 10076:
            return Unavailable(text)
    return Refused(f"the log refuses the write: {text} ({code})")


async def _ignore(_: object) -> None:
    """Answers go to the sink; nats-py needs a callback to leave the subscription alone."""
