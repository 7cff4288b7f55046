"""Many messages handed to the gathering writer at once: one future, and a fate for each."""

from __future__ import annotations

import asyncio

from eventsched.log.gather import GatheringWriter
from eventsched.log.port import Conflict, Outgoing, Unavailable

from ..scripted_log import ScriptedLog


def _out(number: int, subject: str = "", expect: int | None = None) -> Outgoing:
    return Outgoing(subject or f"ev.s{number}", b"%d" % number, msg_id=f"m{number}", expect=expect)


async def test_messages_put_together_have_their_fates_in_order() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log)
    async with asyncio.timeout(5):
        assert await writer.put_all([]) == []
        fates = await writer.put_all([_out(0, "ev.a", expect=0), _out(1), _out(2, "ev.a", expect=0), _out(3)])
    assert [fates[0], fates[1], type(fates[2]), fates[3]] == [1, 2, Conflict, 3]
    await writer.close()
    assert {type(fate) for fate in await writer.put_all([_out(4), _out(5)])} == {Unavailable}


async def test_who_waits_no_longer_disturbs_nobody() -> None:
    log = ScriptedLog()
    log.gate.clear()
    writer = GatheringWriter(log)
    gone = writer.put_all([_out(0), _out(1)])
    other = writer.put_all([_out(2)])
    gone.cancel()
    log.gate.set()
    async with asyncio.timeout(5):
        assert await other == [3]
    await writer.close()
