"""Deciding again: every round of a log, from the state it was decided on, must come out byte for byte.

The log says all a decision depended on: the basis (a sequence), the time, the policy. Rounds that are
no decisions but verdicts on liveness cite heartbeats, which are not in the log; they are left out. So
are rounds of a policy this build does not have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec import Struct

from eventsched import codec
from eventsched.events import NodeLost, NodeRecovered, NodeSuspected
from eventsched.log.port import Entry
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.replica import Replica
from eventsched.projections.scheduling.decide import decide
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.scheduling.policies import is_known
from eventsched.recorded import Recorded
from eventsched.wire import Decision

_VERDICTS = (NodeLost, NodeRecovered, NodeSuspected)
Round = list[Entry]


class Redecided(Struct):
    """What came of it. differing: rounds that came out otherwise; unknown: of policies this build lacks.

    digest: over all rounds as decided here, so that two machines can be compared.
    """

    rounds: int = 0
    unknown: int = 0
    differing: list[int] = []
    digest: str = ""


class _Redeciding:
    """Folds a log up to the basis of each round, and no further."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries
        self._state = ClusterState()
        self._planner: Planner | None = None
        self._hash = hashlib.blake2b(digest_size=16)
        self.found = Redecided()

    def again(self, first: Decision, recorded: Round) -> None:
        """Decide one round again and compare."""
        self._fold_to(first.basis)
        choice = self._state.policy
        if first.policy != f"{choice.name}/{choice.version}" or not is_known(choice):
            self.found.unknown += 1
            self._planner = None  # it could not follow
            return
        if self._planner is None:
            self._planner = Planner(self._state)
        proposed = decide(self._state, first.now_ms, self._planner)
        decided = [(one.subject, codec.encode(one.event)) for one in proposed]
        for subject, payload in decided:
            self._hash.update(b"%s %s\n" % (subject.encode(), payload))
        self.found.rounds += 1
        if decided != [(entry.subject, entry.payload) for entry in recorded]:
            self.found.differing.append(first.round)

    def _fold_to(self, basis: int) -> None:
        for seq, at_ms, subject, payload in self._entries[self._state.seq : basis]:
            evolve(self._state, Recorded(seq, at_ms, subject, codec.decode(subject, payload)))
        self._state.changes.ended.clear()

    def end(self) -> Redecided:
        """The result."""
        self.found.digest = self._hash.hexdigest()
        return self.found


def redecide(entries: Iterable[Entry], replica: Replica | None = None) -> Redecided:
    """Decide every round of a whole log again. Rounds a fold calls void (garbage) are passed over.

    replica: a fresh one, which folds the log to its end by the way. Raises UpgradeNeeded.
    """
    log = list(entries)
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1)), "a whole log, from its first event"
    folding = replica or Replica(ClusterState())
    again, state = _Redeciding(log), folding.state
    first: Decision | None = None
    collected: Round = []
    for entry in log:
        before = state.rounds
        folding.fold_entries([entry])
        if state.rounds > before:
            event = codec.decode(entry.subject, entry.payload)
            if isinstance(event, Decision):
                first, collected = event, []
        if first is None or state.round_end != entry.seq:
            continue
        collected.append(entry)
        if len(collected) == first.count:
            if not isinstance(codec.decode(collected[0].subject, collected[0].payload), _VERDICTS):
                again.again(first, collected)
            first = None
    return again.end()
