"""What is derived from a whole state for the sake of single questions: kept fresh as far as that is cheap."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
SHARE = 20
"""At most so small a part of the time (one in …) goes into making it anew."""
STALE_MAX_S = 1.0


class Memo(Generic[T]):
    """Makes something for each sequence of a state it is asked at; what is dear is kept for a while, a second
    at most. Cost is counted in time of this thread, so that a busy machine makes nothing stale."""

    def __init__(self) -> None:
        self._made: tuple[int, T] | None = None
        self._fresh_until = 0.0

    def get(self, seq: int, make: Callable[[], T]) -> T:
        """What belongs to a sequence, or to one shortly before."""
        if self._made is not None and (self._made[0] == seq or time.monotonic() < self._fresh_until):
            return self._made[1]
        began = time.thread_time()
        made = make()
        self._made = seq, made
        self._fresh_until = time.monotonic() + min(STALE_MAX_S, SHARE * (time.thread_time() - began))
        return made
