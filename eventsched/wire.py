"""What all events share: bounded integers, the `Event` base and the stamp of a decision.

An event is an immutable fact. Fields are only ever added, with defaults; none is renamed
or re-typed, and no Struct's meaning changes: logs that are written must stay readable.
Structs decode by type only. Whether a *value* is acceptable is judged once, by a recorded
decision (see `eventsched.spec.problems`), so that new rules never re-judge an old log.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_INT = 2**53
"""No integer on the wire is larger in size: every JSON reader keeps it exactly."""

Int = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A recorded fact; the base of every Struct of the catalogue."""


class ClientEvent(Event, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An event a person may type by hand: an unknown field is refused, as it is most likely a typo."""


class Decision(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A leader's decision: one message of a round, or (round 0) a lone fenced write.

    `epoch` is the sequence of the leader's claim on `ev.leader`; the fold voids any other.
    `round` counts rounds of the whole log; `index` of `count` places the message in its round.
    The first message of a round (index 0) also says what the round was decided on: `basis`,
    the last sequence folded; `now_ms`, the time; `policy` as `name/version`; `params`, a hash
    of the policy's parameters.
    """

    epoch: Int
    round: Int = 0
    index: Int = 0
    count: Int = 1
    basis: Int = 0
    now_ms: Int = 0
    policy: str = ""
    params: str = ""
