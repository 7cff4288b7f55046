"""Heartbeats: what an agent says of itself every few seconds, on `hb.<node>` (stream HB).

Immutable messages like everything else, but never folded: only the leader's verdict on them is.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field


class RunUsage(Struct, omit_defaults=True):
    """What one run uses: percent of one core, bytes of memory."""

    cpu_percent: float = 0.0
    memory_bytes: int = 0


class Heartbeat(Struct, omit_defaults=True):
    """session: of the agent. cursor: last sequence of its feed it has acted on.

    cpu_percent, memory_used_bytes, gpus (percent by UUID): of the machine. runs: usage by run id.
    """

    session: int
    cursor: int = 0
    cpu_percent: float = 0.0
    memory_used_bytes: int = 0
    gpus: dict[str, int] = field(default_factory=dict)
    runs: dict[str, RunUsage] = field(default_factory=dict)
    starting: int = 0
    running: int = 0


class _Trouble(Struct):
    description: str = ""
    err_code: int = 0


class _Answer(Struct):
    seq: int = 0
    error: _Trouble | None = None


_decoder = msgspec.json.Decoder(Heartbeat)
_answer_decoder = msgspec.json.Decoder(_Answer)


def read_heartbeat(payload: bytes) -> Heartbeat | None:
    """The heartbeat in a payload; None when it is none."""
    try:
        return _decoder.decode(payload)
    except Exception:
        return None


def why_not_stored(answer: bytes) -> str:
    """What the server's answer to a heartbeat says against its being stored; "" = it is stored.

    Only a heartbeat the leader can read counts as a sign of life, so only that may renew a lease.
    """
    try:
        found = _answer_decoder.decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "the answer is not an acknowledgement"
    if found.error is not None:
        return f"{found.error.description or 'an error without words'} ({found.error.err_code})"
    return "" if found.seq > 0 else "the answer names no sequence"
