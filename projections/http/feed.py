"""Events for those who follow the log over HTTP: server-sent events, numbered by their sequences.

All followers of one process are served from the entries its replica has read anyway; only who begins
further back reads the log for itself, until it has caught up. An event is put into words once,
however many follow.

Events of a run do not say whose it is. Its id is the sequence of its assign, so who resumes behind that
is told it by the assign itself, wherever it lies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import Raw, structs
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
from eventsched.projections.following import Follower
from eventsched.recorded import Recorded
from eventsched.spec import JobSpec
from eventsched.stories import JobFilter, kind_of
from eventsched.views import JobView

KEEP_ALIVE_S = 15.0
KEEP_ALIVE = b": nothing new\n\n"
AT_ONCE = 1_000
FRAMES_MAX = 20_000
ORIGINS_MAX = 5_000
_OF_A_RUN = (RunStarting, RunStarted, RunEnded, StopOrdered, FinishOrdered)


class TenantFilter:
    """Picks what one tenant may see: events about its own jobs and runs, verdicts without those of others.

    It has to be shown the assign of a run before the run's other events.
    """

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._subject = f"ev.job.{tenant}."
        self.runs: dict[int, None] = {}
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
                self.runs[recorded.seq] = None
                return recorded
            case RunStarting() | RunStarted() | RunEnded() | StopOrdered() | FinishOrdered():
                own = event.run in self.runs
                if own and isinstance(event, RunEnded):
                    del self.runs[event.run]
                return recorded if own else None
            case Concluded():
                jobs = tuple(one for one in event.jobs if one.tenant == self._tenant)
                return _with(recorded, structs.replace(event, jobs=jobs)) if jobs else None
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
        self._origins: dict[int, Recorded | None] = {}

    async def frames(
        self, from_seq: int, *, follow: bool, job: JobView | None = None, tenant: str = ""
    ) -> AsyncIterator[bytes]:
        """Events from a sequence on, framed; without `follow` up to the last one now."""
        of_job = JobFilter(job) if job is not None else None
        of_tenant = TenantFilter(tenant) if tenant else None
        upto = None if follow else self._follower.state.seq
        first = max(1, from_seq)
        async for entries in self._entries(first, upto):
            parts = []
            for entry in entries:
                if of_job is None and of_tenant is None:
                    parts.append(self._shared(entry))
                    continue
                event = _recorded(entry)
                for origin in await self._origins_of(event, first):
                    if of_tenant is not None:
                        of_tenant(origin)
                    if of_job is not None:
                        of_job(origin)
                recorded = event if of_tenant is None else of_tenant(event)
                if recorded is not None and (of_job is None or of_job(recorded)):
                    parts.append(_frame(recorded))
            if parts or not entries:
                yield b"".join(parts) or KEEP_ALIVE

    async def _origins_of(self, recorded: Recorded, first: int) -> list[Recorded]:
        """What came before `first` and tells whose an event is: a run's assign, submissions that are rejected."""
        event = recorded.event
        if isinstance(event, _OF_A_RUN):
            seqs = [event.run]
        elif isinstance(event, Admitted):
            seqs = [one.seq for one in event.rejected]
        else:
            return []
        found = [await self._origin(seq) for seq in seqs if 0 < seq < first]
        return [one for one in found if one is not None]

    async def _origin(self, seq: int) -> Recorded | None:
        """A submission or an assign; None when anything else is there (agents may cite whatever they like)."""
        if seq not in self._origins:
            entry = await self._follower.entry(seq)
            self._origins[seq] = None if entry is None else _origin_in(_recorded(entry))
            if len(self._origins) > ORIGINS_MAX:
                for old in list(self._origins)[: ORIGINS_MAX // 2]:
                    del self._origins[old]
        return self._origins[seq]

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


def _origin_in(recorded: Recorded) -> Recorded | None:
    """As much of a submission or an assign as tells whose it is."""
    if isinstance(recorded.event, RunAssigned):
        return structs.replace(recorded, event=structs.replace(recorded.event, spec=Raw(b"{}")))
    submitted = recorded.subject.startswith("ev.job.") and recorded.subject.endswith(".submitted")
    return structs.replace(recorded, event=JobSpec()) if submitted else None


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
