"""The diary of a fleet: which rows changed, in order, and what each had free then.

Whoever keeps an answer for a class of jobs reads on from where it stopped. What a row had free stands
beside it, so that reading on is a look at a piece of a few arrays, one after the other, and not a
search for rows all over the fleet. A row that changed often is listed often; its last entry is what holds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Shorts = NDArray[np.int16]

ENTRIES_MIN = 1 << 16
"""So many entries are kept at least; whoever asks for older ones must look at all rows."""


RECENT = 64
"""So many of the last entries are at hand one by one, too."""


class Changes(NamedTuple):
    """A piece of the diary: rows; what they had free of the four amounts that decide whether a job fits (cpu, memory,
    untouched devices, the best device's thousandths); what was left there by the measure of best-fit."""

    rows: Ints
    room: Ints
    left: Shorts


Entry = tuple[int, int, int, int, int, int]
"""One change: the row, its free cpu and memory, untouched devices, the best device, what is left."""


class Diary:
    """Changes of rows. now: how many there were; grows by one with each."""

    __slots__ = ("_columns", "_lefts", "_recent", "_room", "_rows", "_start", "now", "size")

    def __init__(self, rows: int) -> None:
        self.size = max(ENTRIES_MIN, 8 * rows)
        self._start = self.now = 0
        self._recent: list[Entry] = []
        self._rows: Ints = np.zeros(self.size, dtype=np.int64)
        self._room: Ints = np.zeros((4, self.size), dtype=np.int64)
        self._lefts: Shorts = np.zeros(self.size, dtype=np.int16)
        self._columns = (self._rows.data, *(amounts.data for amounts in self._room), self._lefts.data)

    def add(self, row: int, cpu: int, memory: int, full: int, most: int, left: int) -> None:
        """A row has changed, and is now like this."""
        place = self.now - self._start
        if place == self.size:
            self._start, place = self.now, 0
        rows, cpus, memories, fulls, mosts, lefts = self._columns
        rows[place], cpus[place], memories[place] = row, cpu, memory
        fulls[place], mosts[place], lefts[place] = full, most, left
        self.now += 1
        recent = self._recent
        recent.append((row, cpu, memory, full, most, left))
        if len(recent) == 2 * RECENT:
            del recent[:RECENT]

    def reaches(self, then: int) -> bool:
        """Whether all changes after `then` are kept still."""
        return then >= self._start

    def since(self, then: int) -> Changes:
        """What changed after `then`, which it must reach."""
        piece = slice(then - self._start, self.now - self._start)
        return Changes(self._rows[piece], self._room[:, piece], self._lefts[piece])

    def last(self, number: int) -> list[Entry]:
        """The last changes, RECENT at most, one by one."""
        return self._recent[-number:]
