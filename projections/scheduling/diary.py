"""The diary of a fleet: which rows changed, in order.

Whoever keeps an answer for a class of jobs reads on from where it stopped. The last few changes are at
hand one by one as well, each with what the row had free then. A row that changed often is listed often;
its last entry is what holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Shorts = NDArray[np.int16]

ENTRIES_MIN = 1 << 16
"""A fleet's diary has so many entries at least; whoever asks for older ones must look at all rows."""
RECENT = 64
"""So many of the last entries are at hand one by one, too."""

Entry = tuple[int, int, int, int, int, int]
"""One change: the row, its free cpu and memory, untouched devices, the best device, what is left."""


class Diary:
    """Changes of rows. size: how many are kept at most. now: how many there were; grows by one with each."""

    __slots__ = ("_recent", "_row_at", "_rows", "_start", "now", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._start = self.now = 0
        self._recent: list[Entry] = []
        self._rows: Ints = np.zeros(self.size, dtype=np.int64)
        self._row_at = self._rows.data

    def add(self, row: int, cpu: int, memory: int, full: int, most: int, left: int) -> None:
        """A row has changed, and is now like this."""
        place = self.now - self._start
        if place == self.size:
            self._start, place = self.now, 0
        self._row_at[place] = row
        self.now += 1
        recent = self._recent
        recent.append((row, cpu, memory, full, most, left))
        if len(recent) == 2 * RECENT:
            del recent[:RECENT]

    def reaches(self, then: int) -> bool:
        """Whether all changes after `then` are kept still."""
        return then >= self._start

    def since(self, then: int) -> Ints:
        """The rows that changed after `then`, which it must reach."""
        return self._rows[then - self._start : self.now - self._start]

    def last(self, number: int) -> list[Entry]:
        """The last changes, RECENT at most, one by one."""
        return self._recent[-number:]
