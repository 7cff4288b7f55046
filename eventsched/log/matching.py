"""NATS subject wildcards, for readers that filter by themselves."""

from __future__ import annotations


def matches(pattern: str, subject: str) -> bool:
    """True when `subject` fits `pattern` (`*` = one token, `>` = one or more at the end)."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > index
        if index >= len(tokens) or (token != "*" and token != tokens[index]):
            return False
    return len(tokens) == len(wanted)
