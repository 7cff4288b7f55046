"""Checks, one after another: each is timed, told when it is over, and leaves the others alone when it fails."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct

from eventsched.errors import EventschedError

T = TypeVar("T")


class Check(Struct):
    """One check: what it found, or what is wrong."""

    check: str
    ok: bool
    ms: int
    detail: str


class Summary(Struct):
    """All of them."""

    ok: bool
    ms: int
    checks: list[Check]


class Failed(EventschedError):
    """Something answers, but not as it should."""


class Checks:
    """The checks so far. tell: is called with each as it ends."""

    def __init__(self, tell: Callable[[Check], None]) -> None:
        self._tell = tell
        self._began = time.monotonic()
        self._done: list[Check] = []

    async def run(self, name: str, work: Awaitable[tuple[str, T]]) -> T | None:
        """Await a check: what it found in words, and what the next ones need (or True). None if it failed."""
        began = time.monotonic()
        try:
            detail, found = await work
        except EventschedError as error:
            self._end(name, False, began, f"{error.message} ({error.hint})" if error.hint else error.message)
            return None
        self._end(name, True, began, detail)
        return found

    def _end(self, name: str, ok: bool, began: float, detail: str) -> None:
        self._done.append(Check(name, ok, _ms_since(began), detail))
        self._tell(self._done[-1])

    def summary(self) -> Summary:
        """What came of them."""
        return Summary(all(one.ok for one in self._done), _ms_since(self._began), self._done)


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
