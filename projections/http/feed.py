"""Events for those who follow the log over HTTP: server-sent events, numbered by their sequences.

All followers of one process are served from the entries its replica has read anyway; only who begins
further back reads the log for itself, until it has caught up. An event is put into words once,
however many follow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import structs
from msgspec.json import encode

from eventsched import codec
from eventsched.events import (
    Admitted,
    Concluded,
    FinishOrdered,
    RunAssigned,
    RunEnded,
    RunStarted,
    RunStarting,
    StopOrdered,
)
from eventsched.log.port import Entry
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.following import Follower
from eventsched.recorded import Recorded
from eventsched.stories import JobFilter, kind_of
from eventsched.views import JobView

KEEP_ALIVE_S = 15.0
KEEP_ALIVE = b": nothing new\n\n"
AT_ONCE = 1_000
FRAMES_MAX = 20_000


class TenantFilter:
    """Picks what one tenant may see: events about its own jobs and runs, verdicts without those of others."""

    def __init__(self, tenant: str, state: ClusterState) -> None:
        self._tenant = tenant
        self._subject = f"ev.job.{tenant}."
        self._runs = {run.seq: None for run in state.runs.values() if run.key.startswith(f"{tenant}/")}
        self._submitted: dict[int, None] = {}

    def __call__(self, recorded: Recorded) -> Recorded | None:
        """The event as the tenant may see it; None = not at all."""
        event = recorded.event
        if recorded.subject.startswith(self._subject):
            if recorded.subject.endswith(".submitted"):
                self._submitted[recorded.seq] = None
            return recorded
        match event:
            case RunAssigned():
                if event.tenant != self._tenant:
                    return None
                self._runs[recorded.seq] = None
                return recorded
            case RunStarting() | RunStarted() | RunEnded() | StopOrdered() | FinishOrdered():
                return recorded if event.run in self._runs else None
            case Concluded():
                own = tuple(one for one in event.jobs if one.tenant == self._tenant)
                return _with(recorded, structs.replace(event, jobs=own)) if own else None
            case Admitted():
                judged = [seq for seq in self._submitted if seq <= event.upto]
                rejected = tuple(one for one in event.rejected if one.seq in self._submitted)
                for seq in judged:
                    del self._submitted[seq]
                return _with(recorded, structs.replace(event, rejected=rejected)) if judged else None
        return None


def _with(recorded: Recorded, event: Admitted | Concluded) -> Recorded:
    return Recorded(recorded.seq, recorded.at_ms, recorded.subject, event)


class Feed:
    """What a process tells its followers. `tenant` "" = everything."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._frames: dict[int, bytes] = {}

    async def frames(
        self, from_seq: int, *, follow: bool, job: JobView | None = None, tenant: str = ""
    ) -> AsyncIterator[bytes]:
        """Events from a sequence on, framed; without `follow` up to the last one now."""
        of_job = JobFilter(job) if job is not None else None
        of_tenant = TenantFilter(tenant, self._follower.state) if tenant else None
        upto = None if follow else self._follower.state.seq
        async for entries in self._entries(max(1, from_seq), upto):
            parts = []
            for entry in entries:
                if of_job is None and of_tenant is None:
                    parts.append(self._shared(entry))
                    continue
                recorded: Recorded | None = _recorded(entry)
                if recorded is not None and of_tenant is not None:
                    recorded = of_tenant(recorded)
                if recorded is not None and (of_job is None or of_job(recorded)):
                    parts.append(_frame(recorded))
            if parts or not entries:
                yield b"".join(parts) or KEEP_ALIVE

    async def _entries(self, at: int, upto: int | None) -> AsyncIterator[list[Entry]]:
        """Entries from `at` on, some at a time; [] when nothing has come for a while."""
        follower = self._follower
        recent = follower.recent
        if at <= follower.state.seq and (not recent or at < recent[0].seq):
            async for entries in self._old(at, upto):
                yield entries
                at = entries[-1].seq + 1
        while upto is None or at <= upto:
            if not await follower.at(at, KEEP_ALIVE_S):
                yield []
                continue
            recent = follower.recent
            if recent[0].seq > at:  # fell behind by more than is kept
                async for entries in self._old(at, upto):
                    yield entries
                    at = entries[-1].seq + 1
                continue
            start = at - recent[0].seq
            entries = recent[start : start + AT_ONCE]
            if upto is not None:
                entries = [entry for entry in entries if entry.seq <= upto]
            yield entries
            at = entries[-1].seq + 1

    async def _old(self, at: int, upto: int | None) -> AsyncIterator[list[Entry]]:
        """Entries from the log itself, up to `upto` or to what is kept here."""
        follower = self._follower
        end = follower.state.seq if upto is None else upto
        feed = follower.read(at)
        try:
            while at <= end and not (follower.recent and follower.recent[0].seq <= at):
                entries = [entry for entry in await feed.get() if entry.seq <= end]
                for first in range(0, len(entries), AT_ONCE):
                    yield entries[first : first + AT_ONCE]
                    at = entries[first : first + AT_ONCE][-1].seq + 1
        finally:
            await feed.close()

    def _shared(self, entry: Entry) -> bytes:
        frame = self._frames.get(entry.seq)
        if frame is None:
            frame = self._frames[entry.seq] = _frame(_recorded(entry))
            if len(self._frames) > FRAMES_MAX:
                for seq in list(self._frames)[: FRAMES_MAX // 2]:
                    del self._frames[seq]
        return frame


def _recorded(entry: Entry) -> Recorded:
    return Recorded(entry.seq, entry.at_ms, entry.subject, codec.decode(entry.subject, entry.payload))


def _frame(recorded: Recorded) -> bytes:
    kind = kind_of(recorded)
    data = encode(
        {
            "seq": recorded.seq,
            "at_ms": recorded.at_ms,
            "subject": recorded.subject,
            "kind": kind,
            "event": recorded.event,
        }
    )
    return frame(recorded.seq, kind, data)


def frame(number: int, kind: str, data: bytes) -> bytes:
    """One server-sent event. Ends of lines in JSON are blanks between its parts."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (number, kind.encode(), data.replace(b"\r", b" ").replace(b"\n", b" "))
