"""Bytes to events and back. Total: any bytes under any subject decode to *something*.

Before a payload is decoded its size and its nesting are bounded by a plain byte scan, so that
no decoder's own limit (recursion depends on the process) can make two replicas differ. Any
failure of the decoder is one kind of trouble, `Unreadable`; for client events a second, slow
look finds the field, so that the refusal can name it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from eventsched import subjects
from eventsched.diagnosis import first_fault
from eventsched.events import catalogue, decisions, nodes, runs
from eventsched.ids import ID_PATTERN, is_id
from eventsched.recorded import Unreadable
from eventsched.wire import Decision, Event

PAYLOAD_MAX = 256 * 1024
DECISION_MAX = 768 * 1024
"""What a leader writes may be larger: an assign carries the whole job and where it goes."""
_DECIDED = ("ev.assign.", "ev.decide.")
"""Largest payload of an event, in bytes; a larger one is never looked into."""
DEPTH_MAX = 32

_encode = msgspec.json.Encoder().encode


def encode(event: Event) -> bytes:
    """The payload of an event: compact JSON, defaults left out."""
    return _encode(event)


def decision_subject(decision: Decision) -> str:
    """The subject of a verdict (`ev.decide.<kind>`); orders name their node instead."""
    return subjects.decide(catalogue.DECIDE_KIND_OF[type(decision)])


def decode(subject: str, payload: bytes) -> Event:
    """The event under `subject`, or `Unreadable`; never raises."""
    reader = _READERS.get(subject) or _reader_of(subject)
    if isinstance(reader, Unreadable):
        return reader
    if len(payload) > PAYLOAD_MAX and not (subject.startswith(_DECIDED) and len(payload) <= DECISION_MAX):
        return Unreadable(code="too_large")
    if (
        len(payload) > DEPTH_MAX
        and payload.count(b"{") + payload.count(b"[") > DEPTH_MAX
        and _depth(payload) > DEPTH_MAX
    ):
        return Unreadable(code="too_deep")
    return reader(payload)


def _depth(payload: bytes) -> int:
    """Deepest nesting of brackets outside strings; the text need not be valid JSON."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in payload:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x7B, 0x5B):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (0x7D, 0x5D):
            depth -= 1
    return deepest


# ---- one reader a subject ---------------------------------------------------------------

Reader = Callable[[bytes], Event]
_READERS: dict[str, Reader] = {}
"""Readers of the few subjects that repeat for ever (a node's, the leader's); jobs' do not."""
_READERS_MAX = 10_000


_JOB_SUBJECT = re.compile(rf"ev\.job\.{ID_PATTERN}\.{ID_PATTERN}\.([a-z_]+)")


def _reader_of(subject: str) -> Reader | Unreadable:
    of_job = _JOB_SUBJECT.fullmatch(subject)
    if of_job is not None:
        return _JOB.get(of_job[1]) or Unreadable(code="unknown_verb")
    match subject.split("."):
        case ["ev", "job", tenant, job_id, _]:
            bad = not is_id(tenant) or not is_id(job_id)
            return Unreadable(code="bad_id" if bad else "unknown_verb")
        case ["ev", "admin", kind]:
            return _ADMIN.get(kind) or Unreadable(code="unknown_verb")
        case ["ev", ("node" | "run" | "assign") as branch, node] if is_id(node):
            reader = _BY_NODE[branch]
        case ["ev", "decide", kind]:
            reader = _leaders(_DECIDE.get(kind))
        case ["ev", "leader"]:
            reader = _leaders(_LEADER)
        case _:
            return Unreadable(code="bad_subject")
    if len(_READERS) >= _READERS_MAX:
        _READERS.clear()
    _READERS[subject] = reader
    return reader


def _by_hand(struct: type[Event]) -> Reader:
    """Clients and operators: the Struct follows from the subject, trouble is traced to its field."""
    decoder = msgspec.json.Decoder(struct)

    def read(payload: bytes) -> Event:
        try:
            return decoder.decode(payload or b"{}")
        except Exception:  # any failure is one kind: which exceptions exist is the decoder's affair
            code, path = first_fault(struct, payload)
            return Unreadable(code=code, field=path)

    return read


def _agents(decoder: msgspec.json.Decoder[Any]) -> Reader:
    def read(payload: bytes) -> Event:
        try:
            return decoder.decode(payload)  # type: ignore[no-any-return]
        except Exception:
            return Unreadable(code="undecodable")

    return read


def _leaders(decoder: msgspec.json.Decoder[Any] | None) -> Reader:
    """Leader-only subjects: an event this build does not know says at least whose epoch it is."""

    def read(payload: bytes) -> Event:
        try:
            if decoder is not None:
                return decoder.decode(payload)  # type: ignore[no-any-return]
        except Exception:
            pass
        try:
            return Unreadable(code="unknown_event", epoch=_EPOCH.decode(payload).epoch)
        except Exception:
            return Unreadable(code="undecodable")

    return read


class _AnyEpoch(msgspec.Struct):
    epoch: int = -1


_EPOCH = msgspec.json.Decoder(_AnyEpoch)
_LEADER = msgspec.json.Decoder(decisions.LeaderClaimed)
_DECIDE = {kind: msgspec.json.Decoder(struct) for kind, struct in catalogue.DECIDE_KINDS.items()}
_JOB = {verb: _by_hand(struct) for verb, struct in catalogue.JOB_VERBS.items()}
_ADMIN = {kind: _by_hand(struct) for kind, struct in catalogue.ADMIN_KINDS.items()}
_BY_NODE: dict[str, Reader] = {
    "node": _agents(msgspec.json.Decoder(nodes.NodeEvent)),
    "run": _agents(msgspec.json.Decoder(runs.RunEvent)),
    "assign": _leaders(msgspec.json.Decoder(decisions.Order)),
}
