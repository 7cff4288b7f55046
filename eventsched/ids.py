"""The rules for ids: what a tenant, a job and a node may be called.

Pure: no clock, no randomness (new ids are made in `eventsched.new_ids`).
The alphabet is fixed for ever: ids are tokens of NATS subjects, parts of container
names and keys of the state, and an id of an array's member holds a dot, which no
user's id may.
"""

from __future__ import annotations

import re

ID_RULE = "1 to 64 characters: letters, digits, '_' and '-', the first a letter or a digit"
ID_MAX = 64
ID_PATTERN = rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{ID_MAX - 1}}}"
_ID = re.compile(ID_PATTERN)
_MEMBER = re.compile(rf"({ID_PATTERN})\.(0|[1-9][0-9]{{0,8}})")


def is_id(text: str) -> bool:
    """True when `text` may name a tenant, a job or a node."""
    return _ID.fullmatch(text) is not None


def job_key(tenant: str, job_id: str) -> str:
    """The key of a job in the state: the pair (tenant, job id), joined by a character no id holds."""
    return f"{tenant}/{job_id}"


def member_id(array_id: str, index: int) -> str:
    """The id of member `index` of an array."""
    return f"{array_id}.{index}"


def split_member(job_id: str) -> tuple[str, int] | None:
    """`("a1", 5)` for `a1.5`; None when `job_id` names no member of an array."""
    match = _MEMBER.fullmatch(job_id)
    return (match[1], int(match[2])) if match else None


def id_from_host_name(host: str) -> str:
    """A node id from a host name: dots and other foreign characters become dashes."""
    text = re.sub(r"[^A-Za-z0-9_-]", "-", host).lstrip("-_")[:64]
    return text or "node"
