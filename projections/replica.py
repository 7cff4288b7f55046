"""A replica: folds entries of the log into a state, and takes digests where the log wants them.

Whoever leads, follows, answers queries or replays keeps one. Folding never waits.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from eventsched import codec
from eventsched.errors import UpgradeNeeded
from eventsched.events import DigestRecorded
from eventsched.log.port import Entry
from eventsched.projections.cluster.digest import digest_of_image, encode_state
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import FOLD_VERSION, ClusterState, Job
from eventsched.recorded import Recorded

_log = structlog.get_logger("eventsched.replica")
DIGESTS_KEPT = 8

Fold = Callable[[Recorded], None]
OnDigest = Callable[[int, str, bytes], None]
OnEnded = Callable[[list[Job]], None]


class Replica:
    """A state, and what keeps it honest.

    fold: folds one event; by default `evolve` into the state (a scheduler's core does more).
    on_digest: called with sequence, digest and image wherever a digest is due.
    on_ended: called after each run of entries with the jobs that ended in it.
    planned: somebody plans with this state, and forgets himself what was touched.
    mismatches: (sequence, our digest, the recorded one); anything in here means this replica,
    or the leader that recorded it, is wrong.
    """

    def __init__(
        self,
        state: ClusterState,
        fold: Fold | None = None,
        on_digest: OnDigest | None = None,
        on_ended: OnEnded | None = None,
    ) -> None:
        self.state = state
        self.digests: dict[int, str] = {}
        self.mismatches: list[tuple[int, str, str]] = []
        self.planned = fold is not None
        self._fold = fold
        self._on_digest = on_digest
        self._on_ended = on_ended

    def fold_entries(self, entries: list[Entry], upto: int | None = None) -> None:
        """Fold entries in order (only to `upto`, if given). Raises UpgradeNeeded."""
        state, fold, decode = self.state, self._fold, codec.decode
        for seq, at_ms, subject, payload in entries:
            if upto is not None and seq > upto:
                break
            event = decode(subject, payload)
            recorded = Recorded(seq, at_ms, subject, event)
            if fold is None:
                evolve(state, recorded)
            else:
                fold(recorded)
            if type(event) is DigestRecorded:
                self._compare(event)
            if state.upgrade_needed:
                raise UpgradeNeeded(
                    f"sequence {state.upgrade_needed} needs a newer eventsched than this one (fold {FOLD_VERSION})",
                    "upgrade this process; the log is untouched",
                )
            if state.digest_every and seq % state.digest_every == 0:
                self._take_digest(seq)
        self._hand_over()

    def _hand_over(self) -> None:
        changes = self.state.changes
        if changes.ended:
            if self._on_ended is not None:
                self._on_ended(changes.ended)
            changes.ended.clear()
        if not self.planned:
            changes.forget_touched()

    def _take_digest(self, seq: int) -> None:
        image = encode_state(self.state)
        self.digests[seq] = digest_of_image(image)
        while len(self.digests) > DIGESTS_KEPT:
            del self.digests[next(iter(self.digests))]
        if self._on_digest is not None:
            self._on_digest(seq, self.digests[seq], image)

    def _compare(self, event: DigestRecorded) -> None:
        ours = self.digests.get(event.at_seq)
        if ours is not None and ours != event.digest:
            self.mismatches.append((event.at_seq, ours, event.digest))
            _log.error("digest_mismatch", at_seq=event.at_seq, ours=ours, recorded=event.digest)
