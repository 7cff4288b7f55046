"""Events as people read them: one line each, and the story of one job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from msgspec import json, structs, to_builtins

from eventsched import codec
from eventsched.errors import NoServer
from eventsched.events import (
    Admitted,
    Concluded,
    FinishOrdered,
    NodeJoined,
    NodeLeaving,
    NodeLeft,
    NodeLost,
    RunAssigned,
    RunEnded,
    RunStarted,
    RunStarting,
    SessionOpened,
    SessionRefused,
    StopOrdered,
)
from eventsched.events.catalogue import DECIDE_KIND_OF
from eventsched.ids import member_id, split_member
from eventsched.log.port import EventLog
from eventsched.recorded import Recorded, Unreadable
from eventsched.views import JobView
from eventsched.visible import visible
from eventsched.wire import Decision, Event

_QUIET = frozenset(("type", "spec", "code", "nonce"))
_STAMP = frozenset(structs.asdict(Decision(epoch=0)))
PATIENCE_S = 15.0
"""How long the log may take for the next entries it is known to hold."""


class JobFilter:
    """Picks the events about one job (for an array: about its members too) in log order.

    A run may end without a word about it: with its node, or because the node's next session no longer
    has it. Such events of the node are part of the story while the job has an open run there.
    """

    def __init__(self, job: JobView) -> None:
        self._tenant = job.tenant
        member = split_member(job.job_id)
        self._job_id = member[0] if member else job.job_id
        self._member: int | None = member[1] if member else None
        self._seq = job.seq
        self._runs: dict[int, int] = {}
        self._open: dict[int, tuple[int, str]] = {}
        self._joins: dict[int, None] = {}

    def __call__(self, recorded: Recorded) -> bool:
        """True when the event is about the job."""
        event = recorded.event
        if recorded.subject.startswith(f"ev.job.{self._tenant}.{self._job_id}."):
            return True
        match event:
            case RunAssigned():
                return self._assigned(recorded, event)
            case RunStarting() | RunStarted() | StopOrdered() | FinishOrdered():
                return event.run in self._runs
            case RunEnded():
                return self._ended(event.run)
            case Admitted():
                return any(one.seq == self._seq for one in event.rejected)
            case Concluded():
                return any(self._mine(one.tenant, one.job, one.member) for one in event.jobs)
            case NodeLost() | NodeLeaving() | NodeLeft() | NodeJoined():
                return self._node_changed(recorded, event)
            case SessionOpened() | SessionRefused():
                return event.session in self._joins
        return False

    def _mine(self, tenant: str, job: str, member: int) -> bool:
        return tenant == self._tenant and job == self._job_id and (self._member is None or member in (-1, self._member))

    def _assigned(self, recorded: Recorded, order: RunAssigned) -> bool:
        if not self._mine(order.tenant, order.job, order.member):
            return False
        self._runs[recorded.seq] = order.member
        last = (recorded.seq, recorded.subject.rpartition(".")[2])
        self._open[order.member] = max(self._open.get(order.member, last), last)
        return True

    def _ended(self, run: int) -> bool:
        if run not in self._runs:
            return False
        if self._open.get(self._runs[run], (0, ""))[0] == run:
            del self._open[self._runs[run]]
        return True

    def _node_changed(self, recorded: Recorded, event: NodeLost | NodeLeaving | NodeLeft | NodeJoined) -> bool:
        node = recorded.subject.rpartition(".")[2]
        inventory = event.runs if isinstance(event, NodeJoined) else ()
        hit = [member for member, (run, where) in self._open.items() if where == node and run not in inventory]
        if hit and isinstance(event, NodeJoined | NodeLeft):  # the last word on these runs
            for member in hit:
                del self._open[member]
        if hit and isinstance(event, NodeJoined):
            self._joins[recorded.seq] = None
        return bool(hit)


async def follow_events(
    log: EventLog, job: JobView | None, from_seq: int, upto: int | None = None
) -> AsyncIterator[Recorded]:
    """Events from `from_seq` up to sequence `upto` (None = for ever); with a job, those about it.

    Raises NoServer when the log does not give what it was known to hold.
    """
    wanted = JobFilter(job) if job is not None else None
    start = max(from_seq, job.seq if job is not None else 1)
    if upto is not None and start > upto:
        return
    feed = log.read(start)
    try:
        while True:
            entries = await feed.get(None if upto is None else PATIENCE_S)
            for seq, at_ms, subject, payload in entries:
                if upto is not None and seq > upto:
                    return
                recorded = Recorded(seq, at_ms, subject, codec.decode(subject, payload))
                if wanted is None or wanted(recorded):
                    yield recorded
                if seq == upto:
                    return
            if not entries:
                raise NoServer(f"the log stopped answering before sequence {upto}", "try again, or look at the server")
    finally:
        await feed.close()


def kind_of(recorded: Recorded) -> str:
    """A short name of what happened: `submitted`, `run.assigned`, `node.joined`, `admitted`, …"""
    event = recorded.event
    if isinstance(event, Unreadable):
        return f"unreadable ({event.code})"
    tag = event.__struct_config__.tag
    if isinstance(tag, str):
        return tag
    if type(event) in DECIDE_KIND_OF:
        return DECIDE_KIND_OF[type(event)]
    return "leader.claimed" if recorded.subject == "ev.leader" else recorded.subject.rpartition(".")[2]


def line_of(recorded: Recorded) -> str:
    """One event as one readable line: sequence, time, where, what, and what it says."""
    at = datetime.fromtimestamp(recorded.at_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    text = f"{recorded.seq:>8}  {at}  {kind_of(recorded):<20} {_where(recorded):<28} {_says(recorded.event)}"
    return visible(text.rstrip())


def _where(recorded: Recorded) -> str:
    tokens = recorded.subject.split(".")
    match tokens[1:2]:
        case ["job"] if len(tokens) == 5:
            return f"{tokens[2]}/{tokens[3]}"
        case ["assign" | "run" | "node"]:
            return tokens[2] if len(tokens) > 2 else ""
    return ""


def _says(event: Event) -> str:
    if isinstance(event, RunAssigned):
        job = event.job if event.member < 0 else member_id(event.job, event.member)
        text = f"{event.tenant}/{job} attempt {event.attempt} score {event.score}"
        return text + (f" before {event.runner_up}" if event.runner_up else "")
    parts = []
    for name, value in to_builtins(event).items():  # what has its default value is left out, as in the log
        if name not in _QUIET and not (isinstance(event, Decision) and name in _STAMP):
            parts.append(f"{name}={_short(value)}")
    return " ".join(parts)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
