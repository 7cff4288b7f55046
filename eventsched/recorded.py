"""Recorded: one message of the log, decoded. The only input of the fold."""

from __future__ import annotations

from msgspec import Struct

from eventsched.wire import Event


class Unreadable(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A message that is no event of the catalogue; it stays in the log and harms nothing.

    code: `bad_subject`, `unknown_verb`, `bad_id`, `too_large`, `too_deep`, `undecodable`,
    `unknown_field`, `wrong_type`, `missing_field`, or `unknown_event` (leader-only subjects).
    field: where in the payload, as a path.
    epoch: what an unknown event on a leader-only subject says of its epoch; a replica that
    meets one of the *current* epoch is too old for this log and must stop.
    """

    code: str
    field: str = ""
    epoch: int = -1


class Recorded(Struct, frozen=True):
    """seq: stream sequence. at_ms: the stored timestamp. subject: as published. event: decoded."""

    seq: int
    at_ms: int
    subject: str
    event: Event
