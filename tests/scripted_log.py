"""A log in memory that answers as a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from eventsched.log.memory import MemoryLog
from eventsched.log.port import AppendError, Busy, Denied, Duplicate, OutcomeUnknown, Outgoing, Refused, Unavailable

Answer = Literal["ok", "lost", "unheard", "down", "busy", "refused", "denied"]
REFUSALS: dict[str, type[AppendError]] = {"down": Unavailable, "busy": Busy, "refused": Refused, "denied": Denied}


class ScriptedLog(MemoryLog):
    """A log in memory whose next answers are scripted ("ok" when the script has ended).

    lost: stored, but the answer does not come. unheard: neither stored nor answered. As the server
    does, it refuses a batch that holds one id twice. `gate` holds every append back while it is closed.
    """

    def __init__(self, *script: Answer) -> None:
        super().__init__(clock=lambda: 1)
        self.script = list(script)
        self.attempts: list[list[Outgoing]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def append(self, messages: Sequence[Outgoing], *, fence: int | None = None) -> int:
        self.attempts.append(list(messages))
        await self.gate.wait()
        ids = [message.msg_id for message in messages if message.msg_id]
        if len(set(ids)) < len(ids):
            raise Duplicate("an id twice in one batch")
        answer = self.script.pop(0) if self.script else "ok"
        if answer in REFUSALS:
            raise REFUSALS[answer](answer)
        if answer == "unheard":
            raise OutcomeUnknown("no answer")
        seq = await super().append(messages, fence=fence)
        if answer == "lost":
            raise OutcomeUnknown("no answer")
        return seq

    @property
    def sizes(self) -> list[int]:
        return [len(attempt) for attempt in self.attempts]

    @property
    def stored(self) -> list[bytes]:
        return [entry.payload for entry in self.core.entries]
