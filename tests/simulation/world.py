"""The simulated world: virtual time, one log, a network with faults. Everything follows from a seed.

Processes are objects that are handed data; nothing in here waits or reads a clock, so a run is a
function of its seed, and a failure is reproduced by it.
"""

from __future__ import annotations

import contextlib
import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventsched.log.memory import MemoryCore
from eventsched.log.port import AppendError, Entry, OutcomeUnknown, Outgoing, Unavailable

Outcome = Callable[[int | AppendError], None]


@dataclass
class Faults:
    """How bad the world is. Probabilities in thousandths, times in ms."""

    lost_request: int = 10
    lost_answer: int = 10
    late_request: int = 10
    duplicate_delivery: int = 20
    delay_max_ms: int = 30
    timeout_ms: int = 400
    clock_step_back: int = 5


@dataclass
class Sabotage:
    """Deliberate breakage; the checkers must notice each."""

    fence: bool = False
    dedup: bool = False
    leash: bool = False
    adopt: bool = False


class World:
    """Virtual time and everything in it."""

    def __init__(self, seed: int, faults: Faults | None = None, sabotage: Sabotage | None = None) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.sabotage = sabotage or Sabotage()
        self.now_ms = 1_000_000
        self.log = MemoryCore()
        self.heartbeats: list[tuple[str, int]] = []
        self.readers: list[Callable[[], None]] = []
        self.lease: tuple[str, int] = ("", 0)
        self.problems: list[str] = []
        self.calm = False
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when_ms: int, action: Callable[[], None]) -> None:
        """Do something at a time; ties go by order of asking."""
        self._count += 1
        heapq.heappush(self._queue, (max(when_ms, self.now_ms), self._count, action))

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do something in a while."""
        self.at(self.now_ms + delay_ms, action)

    def run_until(self, when_ms: int, stop: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True when `stop` said so before the time was up."""
        while self._queue and self._queue[0][0] <= when_ms:
            self.now_ms, _, action = heapq.heappop(self._queue)
            action()
            if self.problems:
                raise AssertionError(f"seed {self.seed} at {self.now_ms}: {self.problems[0]}")
            if stop is not None and stop():
                return True
        self.now_ms = when_ms
        return stop is not None and stop()

    def chance(self, thousandths: int) -> bool:
        """True so many times in a thousand; never while the world is calm."""
        return not self.calm and self.random.randrange(1000) < thousandths

    def delay(self) -> int:
        """How long one message travels."""
        return self.random.randrange(1, 3 if self.calm else self.faults.delay_max_ms)

    # ---- the log over the network --------------------------------------------------------------

    def append(
        self, messages: Sequence[Outgoing], fence: int | None, reachable: Callable[[], bool], done: Outcome
    ) -> None:
        """Append over the network; `done` hears of it later, perhaps that nothing is known."""
        if not reachable():
            self.after(self.delay(), lambda: done(Unavailable("cut off")))
            return
        lost_request, lost_answer = self.chance(self.faults.lost_request), self.chance(self.faults.lost_answer)
        late_request = self.chance(self.faults.late_request)

        def arrive_late() -> None:
            """What a dead connection still had in its buffers."""
            with contextlib.suppress(AppendError):
                self.log.append(messages, self._stamp(), None if self.sabotage.fence else fence)
                self._tell_readers()

        def arrive() -> None:
            if lost_request or late_request or not reachable():
                self.after(self.faults.timeout_ms, lambda: done(OutcomeUnknown("no answer")))
                if late_request:
                    self.after(self.faults.timeout_ms + self.random.randrange(2_000), arrive_late)
                return
            try:
                result: int | AppendError = self.log.append(
                    messages, self._stamp(), None if self.sabotage.fence else fence
                )
                self._tell_readers()
            except AppendError as error:
                result = error
            if lost_answer or not reachable():
                self.after(self.faults.timeout_ms, lambda: done(OutcomeUnknown("no answer")))
            else:
                self.after(self.delay(), lambda: done(result))

        self.after(self.delay(), arrive)

    def _stamp(self) -> int:
        """The server's time: it may step back when the stream's leader changes."""
        back = self.random.randrange(200) if self.chance(self.faults.clock_step_back) else 0
        return self.now_ms - back

    def _tell_readers(self) -> None:
        for reader in self.readers:
            self.after(self.delay(), reader)

    def beat(self, node: str, session: int) -> int:
        """A heartbeat (or, for node "", a marker) is stored; its sequence in HB."""
        self.heartbeats.append((node, session))
        return len(self.heartbeats)

    def entries(self, from_seq: int, subjects: Sequence[str] = ()) -> list[Entry]:
        """What a reader gets: everything from a sequence on, now and then something twice."""
        if self.chance(self.faults.duplicate_delivery):
            from_seq = max(1, from_seq - self.random.randrange(1, 6))
        return self.log.slice(from_seq, subjects)
