"""The scheduler's core: fold, claim, observe, decide. Data in, data out; no I/O, no clock.

The cycle of a leader:
  1. fold what the log holds, up to the last thing this process was told is stored;
  2. judge liveness from heartbeats; commit the verdicts and fold them before going on;
  3. decide on the state as it now is; commit the round as one fenced atomic batch;
  4. read it back through the log like everybody else.
One write is in flight at a time. Nothing is applied before it has come back through the log, so
a leader's state is at no time different from a follower's at the same sequence.

When no answer to a write comes, it may or may not be stored, now or later: a cut connection can
still deliver it. The core then claims again. Folding the new claim shows what was stored before
it; what was not is refused for ever, as the fence has moved. (A barrier under the same epoch would
not do: the late write would pass the fence, agents would act on it, and every fold call it void.)

A write refused by the fence means somebody else has claimed: stop leading. The lease is only a
hint for when to claim; no clock is needed for safety.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from eventsched import codec, subjects
from eventsched.events import DigestRecorded, LeaderClaimed, NodeJoined
from eventsched.log.port import Outgoing
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.leader.observe import Liveness, observe
from eventsched.projections.scheduling.decide import ROUND_MAX, Proposed, decide, stamp
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.scheduling.policies import is_known
from eventsched.recorded import Recorded

MARKER_EVERY_MS = 500


What = Literal["claim", "verdicts", "round", "digest"]


class Write(Struct, frozen=True):
    """Append these messages, fenced by `fence` (None: a claim, which carries its own condition)."""

    what: What
    messages: tuple[Outgoing, ...]
    fence: int | None


class Mark(Struct, frozen=True):
    """Write a marker into HB; answer with `marked`."""


Effect = Write | Mark
Failure = Literal["fenced", "unknown", "retry"]


class SchedulerCore:
    """One scheduler: a replica of the state that may lead.

    name: of this scheduler. nonces: gives a fresh text for each claim (from outside: the core
    draws no random numbers).
    """

    def __init__(self, name: str, state: ClusterState | None = None, version: str = "") -> None:
        self.name = name
        self.version = version
        self.state = state or ClusterState()
        self.planner: Planner | None = None
        self.liveness = Liveness()
        self.role: Literal["standby", "claiming", "leading"] = "standby"
        self.epoch = 0
        self.nonce = ""
        self.in_flight: Effect | None = None
        self.doubts = 0
        self.in_doubt = False
        self.fold_to = 0
        self.dirty = True
        self.marker_seq: int | None = None
        self.marked_ms = -MARKER_EVERY_MS
        self.digest: tuple[int, str] | None = None
        self._folded_mono_ms = 0

    # ---- inputs -----------------------------------------------------------------------------

    def fold(self, recorded: Recorded, mono_ms: int) -> None:
        """Fold one event of the log."""
        evolve(self.state, recorded)
        self.dirty = True
        self._folded_mono_ms = mono_ms
        event = recorded.event
        if type(event) is NodeJoined:
            self.liveness.hear(recorded.subject.rpartition(".")[2], recorded.seq, 0, mono_ms)
        elif type(event) is LeaderClaimed:
            self._claim_folded(event, mono_ms)

    def _claim_folded(self, event: LeaderClaimed, mono_ms: int) -> None:
        if event.nonce != self.nonce or event.leader != self.name or not self.nonce:
            self.step_down()
            return
        if self.lacks():  # adopted since we asked for the lead
            self.step_down()
            return
        if self.planner is None:  # not a renewed claim: we come to lead
            self.liveness.restart(self.state, mono_ms)
            self.marker_seq = None
            self.planner = Planner(self.state)
        self.epoch = self.state.epoch
        self.role = "leading"
        self.in_doubt = False
        self.fold_to = self.epoch

    def heard(self, node: str, session: int, hb_seq: int, mono_ms: int) -> None:
        """A heartbeat was read from HB. Names that never joined are not remembered: anybody may write there."""
        if hb_seq <= self.liveness.hb_seq:  # HB was made anew: what we know of silence is void
            self.liveness.restart(self.state, mono_ms)
        self.liveness.hb_seq = hb_seq
        if node in self.state.nodes:
            self.liveness.hear(node, session, hb_seq, mono_ms)

    def marker_read(self, hb_seq: int) -> None:
        """A marker (anybody's) was read from HB."""
        self.liveness.hb_seq = max(self.liveness.hb_seq, hb_seq)

    def marked(self, hb_seq: int | None) -> None:
        """The marker is stored at `hb_seq`; None = it was not."""
        self.in_flight = None
        self.marker_seq = hb_seq

    def claim(self, nonce: str) -> Write | None:
        """The lease looks free and this replica is at the tail: try to take the lead."""
        if self.role != "standby" or self.in_flight is not None or self.state.upgrade_needed:
            return None
        return None if self.lacks() else self._claim(nonce)

    def lacks(self) -> str:
        """The policy in force, if this build has not got it and so cannot lead; "" when it has."""
        policy = self.state.policy
        return "" if is_known(policy) else f"{policy.name}/{policy.version}"

    def _claim(self, nonce: str) -> Write:
        self.role = "claiming"
        self.nonce = nonce
        event = LeaderClaimed(leader=self.name, nonce=nonce, version=self.version)
        last = max(self.state.epoch, *self.state.leader_junk, 0)  # junk there costs an election, not the cluster
        message = Outgoing(subjects.LEADER, codec.encode(event), msg_id=nonce, expect=last)
        return self._start("claim", (message,), None)

    def done(self, seq: int) -> None:
        """The write in flight is stored; its last message has sequence `seq`."""
        write, self.in_flight = self.in_flight, None
        assert isinstance(write, Write)
        self.fold_to = max(self.fold_to, seq)

    def failed(self, failure: Failure) -> None:
        """The write in flight was refused by the fence, has no answer, or did not get through."""
        write, self.in_flight = self.in_flight, None
        assert isinstance(write, Write)
        if write.what == "claim":
            if failure != "unknown" or self.role == "claiming":  # if it is stored after all, folding it tells
                self.step_down()
        elif failure == "fenced":
            self.step_down()
        elif failure == "unknown":
            self.in_doubt = True
        self.dirty = True

    def step_down(self) -> None:
        """Stop leading; the state stays as good as anyone's."""
        self.role = "standby"
        self.epoch = 0
        self.planner = None

    # ---- output -----------------------------------------------------------------------------

    def step(self, mono_ms: int) -> Effect | None:
        """What to do now, if anything. At most one effect is in flight."""
        if self.role != "leading" or self.in_flight is not None or self.state.upgrade_needed:
            return None
        if self.in_doubt:
            self.doubts += 1
            return self._claim(f"{self.nonce.partition('.')[0]}.{self.doubts}")
        if self.state.seq < self.fold_to:
            return None
        return self._judge(mono_ms) or self._round(mono_ms) or self._record_digest()

    def now_ms(self, mono_ms: int) -> int:
        """The time of a round made now: the log's clock, plus what has passed since we folded it."""
        if self.state.clock_mode == "manual":
            return self.state.clock_ms
        return self.state.clock_ms + max(0, mono_ms - self._folded_mono_ms)

    def _judge(self, mono_ms: int) -> Effect | None:
        if not self.liveness.someone_silent(self.state, mono_ms):
            self.marker_seq = None
            return None
        if self.marker_seq is None:
            if mono_ms - self.marked_ms < MARKER_EVERY_MS:
                return None
            self.marked_ms = mono_ms
            self.in_flight = Mark()
            return self.in_flight
        if self.liveness.hb_seq < self.marker_seq:
            return None
        marker_seq, self.marker_seq = self.marker_seq, None
        verdicts = observe(self.liveness, self.state, mono_ms, marker_seq)[:ROUND_MAX]
        if not verdicts:
            return None
        proposed = stamp(self.state, self.now_ms(mono_ms), list(verdicts))
        return self._start("verdicts", _outgoing(proposed), self.epoch)

    def _round(self, mono_ms: int) -> Effect | None:
        now_ms = self.now_ms(mono_ms)
        assert self.planner is not None
        if not self.dirty:
            due = self.planner.next_due_ms(self.state)
            if due is None or due > now_ms:
                return None
        proposed = decide(self.state, now_ms, self.planner)
        self.dirty = False
        if not proposed:
            return None
        return self._start("round", _outgoing(proposed), self.epoch)

    def _record_digest(self) -> Effect | None:
        if self.digest is None:
            return None
        (at_seq, digest), self.digest = self.digest, None
        event = DigestRecorded(epoch=self.epoch, at_seq=at_seq, digest=digest)
        message = Outgoing(codec.decision_subject(event), codec.encode(event))
        return self._start("digest", (message,), self.epoch)

    def _start(self, what: What, messages: tuple[Outgoing, ...], fence: int | None) -> Write:
        write = Write(what, messages, fence)
        self.in_flight = write
        return write


def _outgoing(proposed: list[Proposed]) -> tuple[Outgoing, ...]:
    return tuple(Outgoing(one.subject, codec.encode(one.event)) for one in proposed)
