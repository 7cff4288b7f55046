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


_decoder = msgspec.json.Decoder(Heartbeat)


def read_heartbeat(payload: bytes) -> Heartbeat | None:
    """The heartbeat in a payload; None when it is none."""
    try:
        return _decoder.decode(payload)
    except Exception:
        return None
