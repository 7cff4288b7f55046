"""The scheduler's core: claiming, being deposed, unknown outcomes, judging liveness."""

from __future__ import annotations

import pytest

from eventsched import codec
from eventsched.events import LeaderClaimed, NodeLost, NodeRecovered, NodeSuspected
from eventsched.log.memory import MemoryCore
from eventsched.log.port import Conflict, Fenced
from eventsched.projections.leader.core import Mark, SchedulerCore, Write
from eventsched.projections.leader.observe import Liveness, observe
from eventsched.recorded import Recorded

from ..support import Ledger, ready


class Seat:
    """A core on a log in memory; time is moved by hand."""

    def __init__(self, name: str, log: MemoryCore) -> None:
        self.core = SchedulerCore(name)
        self.log = log
        self.mono_ms = 0
        self.hb = 0

    def fold(self) -> None:
        for entry in self.log.slice(self.core.state.seq + 1):
            event = codec.decode(entry.subject, entry.payload)
            self.core.fold(Recorded(entry.seq, entry.at_ms, entry.subject, event), self.mono_ms)

    def carry_out(self, write: Write) -> None:
        try:
            self.core.done(self.log.append(write.messages, self.mono_ms, write.fence))
        except (Fenced, Conflict):
            self.core.failed("fenced")

    def work(self) -> list[str]:
        """Fold and act until there is nothing to do; what was written."""
        done = []
        for _ in range(50):
            self.fold()
            effect = self.core.step(self.mono_ms)
            if effect is None:
                return done
            if isinstance(effect, Mark):
                self.hb += 1
                self.core.marked(self.hb)
                self.core.marker_read(self.hb)
                done.append("mark")
            else:
                self.carry_out(effect)
                done.append(effect.what)
        raise AssertionError("it never rests")

    def claim(self, nonce: str) -> None:
        write = self.core.claim(nonce)
        assert write is not None
        self.carry_out(write)
        self.work()


def _log(ledger: Ledger) -> MemoryCore:
    log = MemoryCore()
    for entry in ledger.entries:
        log.entries.append(entry)
        log._last[entry.subject] = entry.seq
    return log


def test_a_claim_leads_only_once_it_is_folded() -> None:
    seat = Seat("a", _log(ready()))
    seat.fold()
    write = seat.core.claim("n1")
    assert write is not None
    assert seat.core.claim("n2") is None, "one at a time"
    seat.carry_out(write)
    assert seat.core.role == "claiming"
    assert seat.core.step(0) is None
    seat.fold()
    assert (seat.core.role, seat.core.epoch) == ("leading", seat.core.state.epoch)


def test_of_two_claimants_one_leads() -> None:
    log = _log(ready())
    one, other = Seat("a", log), Seat("b", log)
    one.fold()
    other.fold()
    first, second = one.core.claim("x"), other.core.claim("y")
    assert first is not None
    assert second is not None
    one.carry_out(first)
    other.carry_out(second)
    one.work()
    other.work()
    assert (one.core.role, other.core.role) == ("leading", "standby")


def test_a_deposed_leader_is_fenced_and_steps_down() -> None:
    ledger = ready()
    ledger.submit("j")
    log = _log(ledger)
    old, new = Seat("a", log), Seat("b", log)
    old.fold()
    old.claim("x")
    log.append([_job("k")], 1)
    old.fold()
    stale = old.core.step(0)
    assert isinstance(stale, Write)
    new.fold()
    new.claim("y")
    old.carry_out(stale)
    assert old.core.role == "standby"
    old.fold()
    assert old.core.role == "standby"
    assert old.core.state.jobs["t/k"].attempt == 1, "the new leader placed it, once"


def _job(job_id: str):  # type: ignore[no-untyped-def]
    from eventsched.log.port import Outgoing

    return Outgoing(f"ev.job.t.{job_id}.submitted", b'{"driver":"fake"}')


def test_an_unknown_outcome_is_settled_by_claiming_again_stored_or_not() -> None:
    for stored in (True, False):
        seat = Seat("a", _log(ready()))
        seat.fold()
        seat.claim("x")
        seat.log.append([_job("j")], 1)
        seat.fold()
        write = seat.core.step(0)
        assert isinstance(write, Write)
        if stored:
            seat.log.append(write.messages, 1, write.fence)
        seat.core.failed("unknown")
        claim = seat.core.step(0)
        assert isinstance(claim, Write)
        assert (claim.what, claim.fence) == ("claim", None)
        seat.carry_out(claim)
        assert seat.core.step(0) is None, "not before the claim is folded"
        seat.work()
        job = seat.core.state.jobs["t/j"]
        assert (job.state, job.attempt, len(seat.core.state.runs)) == ("assigned", 1, 1)
        assert not seat.core.state.anomalies


def test_a_write_delivered_after_its_writer_gave_it_up_is_refused() -> None:
    seat = Seat("a", _log(ready()))
    seat.fold()
    seat.claim("x")
    seat.log.append([_job("j")], 1)
    seat.fold()
    late = seat.core.step(0)
    assert isinstance(late, Write)
    seat.core.failed("unknown")
    claim = seat.core.step(0)
    assert isinstance(claim, Write)
    seat.carry_out(claim)
    with pytest.raises(Fenced):
        seat.log.append(late.messages, 2, late.fence)
    assert "round" in seat.work()
    assert (seat.core.state.jobs["t/j"].state, seat.core.state.anomalies) == ("assigned", {})


def test_claiming_again_keeps_what_was_heard_of_the_nodes() -> None:
    """A leader whose writes get no answer must still give up nodes in time."""
    seat = Seat("a", _log(ready()))
    seat.fold()
    seat.claim("x")
    heard = dict(seat.core.liveness.heard)
    seat.mono_ms = 10_000
    seat.log.append([_job("j")], 1)
    seat.fold()
    assert seat.core.step(seat.mono_ms) is not None
    seat.core.failed("unknown")
    claim = seat.core.step(seat.mono_ms)
    assert isinstance(claim, Write)
    seat.carry_out(claim)
    seat.fold()
    assert seat.core.role == "leading"
    assert seat.core.liveness.heard == heard


def test_one_write_is_in_flight_at_a_time() -> None:
    ledger = ready()
    ledger.submit("j")
    seat = Seat("a", _log(ledger))
    seat.fold()
    seat.claim("x")
    seat.log.append([_job("k")], 1)
    seat.fold()
    assert seat.core.step(0) is not None
    assert seat.core.step(0) is None


def test_a_claim_of_another_attempt_of_ours_is_not_taken_for_this_one() -> None:
    seat = Seat("a", _log(ready()))
    seat.fold()
    write = seat.core.claim("x")
    assert write is not None
    seat.log.append(write.messages, 1)
    seat.core.failed("unknown")
    second = seat.core.claim("y")
    assert second is not None
    seat.core.failed("fenced")
    seat.fold()
    assert seat.core.role == "standby"
    seat.claim("z")
    assert seat.core.role == "leading"


def test_a_digest_is_recorded_by_the_leader() -> None:
    seat = Seat("a", _log(ready()))
    seat.fold()
    seat.claim("x")
    seat.core.digest = (3, "abc")
    assert seat.work() == ["digest"]


def test_silence_is_judged_after_a_marker_and_with_evidence() -> None:
    seat = Seat("a", _log(ready()))
    seat.fold()
    seat.claim("x")
    session = seat.core.state.nodes["n1"].session
    seat.mono_ms = 11_000
    assert seat.work() == []
    seat.mono_ms = 13_000
    assert seat.work() == ["mark", "verdicts"]
    assert seat.core.state.nodes["n1"].state == "suspect"
    seat.hb += 1
    seat.core.heard("n1", session, seat.hb, seat.mono_ms)
    seat.mono_ms += 600
    assert seat.work() == ["mark", "verdicts"]
    assert seat.core.state.nodes["n1"].state == "ready"
    seat.mono_ms += 50_000
    seat.work()
    assert seat.core.state.nodes["n1"].state == "lost"
    last = [codec.decode(e.subject, e.payload) for e in seat.log.entries]
    lost = next(e for e in last if isinstance(e, NodeLost))
    assert lost.silent_ms > 45_000
    assert lost.marker_seq
    assert lost.hb_seq == 2


def test_nobody_is_judged_before_everything_in_hb_is_read() -> None:
    seat = Seat("a", _log(ready()))
    seat.fold()
    seat.claim("x")
    seat.mono_ms = 100_000
    assert isinstance(seat.core.step(seat.mono_ms), Mark)
    seat.core.marked(7)
    assert seat.core.step(seat.mono_ms) is None, "the marker is at 7, nothing is read yet"
    seat.core.heard("n1", seat.core.state.nodes["n1"].session, 6, seat.mono_ms)
    seat.core.marker_read(7)
    assert seat.core.step(seat.mono_ms) is None
    assert seat.core.state.nodes["n1"].state == "ready"


def test_a_new_leader_gives_every_node_its_full_time() -> None:
    ledger = ready()
    seat = Seat("a", _log(ledger))
    seat.mono_ms = 10_000_000
    seat.fold()
    seat.mono_ms += 1_000_000
    seat.claim("x")
    assert seat.work() == []


def test_a_heartbeat_stream_made_anew_restarts_the_timers() -> None:
    ledger = ready()
    seat = Seat("a", _log(ledger))
    seat.fold()
    seat.claim("x")
    session = seat.core.state.nodes["n1"].session
    seat.core.heard("n1", session, 500, 0)
    seat.core.heard("n2", 1, 3, 44_000)
    seat.mono_ms = 50_000
    assert seat.work() == []


def test_heartbeats_of_an_older_session_say_nothing() -> None:
    ledger = ready()
    old = ledger.state.nodes["n1"].session
    ledger.join()
    liveness = Liveness()
    liveness.restart(ledger.state, 0)
    liveness.hear("n1", old, 1, 60_000)
    kinds = [kind for _, kind, _ in observe(liveness, ledger.state, 60_000, 1)]
    assert kinds == [NodeLost]
    liveness.hear("n1", ledger.state.nodes["n1"].session, 2, 60_000)
    assert observe(liveness, ledger.state, 60_000, 1) == []


def test_suspicion_and_recovery() -> None:
    ledger = ready()
    liveness = Liveness()
    liveness.restart(ledger.state, 0)
    assert [kind for _, kind, _ in observe(liveness, ledger.state, 13_000, 1)] == [NodeSuspected]
    ledger.state.nodes["n1"].state = "suspect"
    liveness.hear("n1", ledger.state.nodes["n1"].session, 5, 13_500)
    assert [(kind, fields["hb_seq"]) for _, kind, fields in observe(liveness, ledger.state, 14_000, 1)] == [
        (NodeRecovered, 5)
    ]


def test_the_time_of_a_round_is_the_logs_clock_and_what_has_passed_since() -> None:
    core = SchedulerCore("a")
    entries = ready().entries
    for entry in entries:
        core.fold(Recorded(entry.seq, entry.at_ms, entry.subject, codec.decode(entry.subject, entry.payload)), 500)
    assert core.now_ms(500) == entries[-1].at_ms
    assert core.now_ms(1_700) == entries[-1].at_ms + 1_200
    assert core.now_ms(100) == entries[-1].at_ms, "never back"


def test_a_claim_names_the_scheduler() -> None:
    core = SchedulerCore("a", version="9")
    write = core.claim("n")
    assert write is not None
    assert codec.decode("ev.leader", write.messages[0].payload) == LeaderClaimed(leader="a", nonce="n", version="9")


def test_heartbeats_of_names_that_never_joined_are_not_remembered() -> None:
    core = SchedulerCore("s1", ready().state)
    for index in range(1_000):
        core.heard(f"nobody{index}", 1, index + 1, 0)
    core.heard("n1", 99, 1_001, 0)
    assert list(core.liveness.heard) == ["n1"]
    assert core.liveness.hb_seq == 1_001
