"""New ids. The only place that draws random ids; never imported by a pure module.

The outermost client makes an id before its first attempt, so that a second attempt
is the same submission.
"""

from __future__ import annotations

import re
import secrets
import time

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]
"""Two letters at a time: every message of a client has an id."""


def _base32(value: int, length: int) -> str:
    """The lowest bits of `value` in an even number of letters."""
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(5 * length - 10, -1, -10)])


def new_ulid() -> str:
    """A ULID in lower case: 48 bits of milliseconds, then 80 random bits; sorts by time."""
    return _base32(time.time_ns() // 1_000_000, 10) + _base32(secrets.randbits(80), 16)


def new_batch_id() -> str:
    """An id for an atomic batch: short, as every message of the batch is stored with it."""
    return _base32(secrets.randbits(50), 10)


_ULID = re.compile(f"[0-7][{_CROCKFORD}]{{25}}")
_NAMED = re.compile(f"(?P<stem>.*[^_-]-)(?=.*[a-z])[{_CROCKFORD}]{{8}}")


def drawn_from(job_id: str) -> int:
    """Where the part begins that `new_job_id` drew; -1 when a person chose the id, by the looks of it.

    Eight digits alone are taken for a number somebody counts with: drawing them is rarer than 1 in 10,000.
    """
    if _ULID.fullmatch(job_id):
        return 0
    match = _NAMED.fullmatch(job_id)
    return len(match["stem"]) if match else -1


def new_job_id(name: str = "") -> str:
    """An id for a job: `<name>-<8 random characters>` when it has a name, else a ULID."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", name).strip("-_")[:55]
    return f"{stem}-{_base32(secrets.randbits(40), 8)}" if stem else new_ulid()
