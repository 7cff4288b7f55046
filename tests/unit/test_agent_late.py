"""What comes too late for an agent's session, and what it cannot read."""

from __future__ import annotations

import pytest
from msgspec import Raw

from eventsched import codec
from eventsched.agents.core import AgentCore
from eventsched.agents.effects import Effect, Report, SessionOver, StartRun, StopRun
from eventsched.events import NodeLost, RunAssigned, RunEnded, SessionOpened, StopOrdered
from eventsched.projections.cluster.evolve import evolve
from eventsched.recorded import Recorded
from eventsched.spec import JobSpec

from ..support import Ledger, ready

PLAIN = JobSpec(image="busybox", stop_grace_ms=3_000)
KEPT = JobSpec(image="busybox", stop_grace_ms=3_000, on_disconnect="keep")
RUN = 12


def _feed(core: AgentCore, seq: int, payload: bytes) -> list[Effect]:
    subject = "ev.assign.n1"
    return core.feed(Recorded(seq, 0, subject, codec.decode(subject, payload)), 0)


def _starting(spec: JobSpec = PLAIN) -> AgentCore:
    """A core in session 10 that is starting run 12."""
    core = AgentCore("n1", "machine", [], 0)
    core.joined(10)
    _feed(core, 11, codec.encode(SessionOpened(epoch=1, session=10)))
    order = RunAssigned(epoch=1, session=10, tenant="t", job="j", spec=Raw(codec.encode(spec)))
    (start,) = _feed(core, RUN, codec.encode(order))
    assert isinstance(start, StartRun)
    return core


def _lose(core: AgentCore) -> None:
    (over,) = _feed(core, 13, codec.encode(NodeLost(epoch=1, session=10)))
    assert isinstance(over, SessionOver)


def _replace(core: AgentCore) -> None:
    (over,) = _feed(core, 13, codec.encode(SessionOpened(epoch=1, session=99)))
    assert isinstance(over, SessionOver)


def _fence(core: AgentCore) -> None:
    (over,) = core.fenced()
    assert isinstance(over, SessionOver)


@pytest.mark.parametrize("end", [_fence, _lose, _replace])
def test_a_start_that_comes_through_after_the_session_is_stopped_at_once(end: object) -> None:
    """It was left running, while its job had been given to another node."""
    core = _starting()
    end(core)  # type: ignore[operator]
    assert core.started(RUN, 0) == [StopRun(RUN, 3_000)]


@pytest.mark.parametrize("end", [_fence, _lose])
def test_one_that_asked_to_be_kept_is_kept(end: object) -> None:
    core = _starting(KEPT)
    end(core)  # type: ignore[operator]
    assert core.started(RUN, 0) == []


def test_but_not_by_an_agent_that_has_been_replaced() -> None:
    """The new agent's inventory did not have it, so that its job is started anew."""
    core = _starting(KEPT)
    _replace(core)
    assert core.started(RUN, 0) == [StopRun(RUN, 3_000)]


def test_a_stop_that_was_ordered_before_the_end_is_carried_out_in_any_case() -> None:
    core = _starting(KEPT)
    _feed(core, 13, codec.encode(StopOrdered(epoch=1, run=RUN, reason="aborted")))
    core.fenced()
    assert core.started(RUN, 0) == [StopRun(RUN, 3_000)]


# ---- an agent that is older than the scheduler -------------------------------------------------


NEWER = (
    b'{"type":"run.assigned","epoch":2,"session":10,"tenant":"t","job":"j","attempt":"first"}',
    b'{"type":"run.assigned.v2","epoch":2,"session":10}',
    b'{"type":"run.assigned","epoch":2,"session":10,"tenant":"t","job":"j","spec":{"image":"busybox","warp":9}}',
)


@pytest.mark.parametrize("payload", NEWER)
def test_an_assignment_it_cannot_read_is_reported_once(payload: bytes) -> None:
    core = _starting()
    (report,) = _feed(core, 20, payload)
    assert isinstance(report, Report)
    assert isinstance(report.event, RunEnded)
    assert (report.event.run, report.event.outcome, report.event.reason) == (20, "start_failed", "agent_too_old")
    assert "upgrade the agent" in report.event.detail
    assert _feed(core, 20, payload) == [], "and not again when it comes again"
    assert list(core.runs) == [RUN]


def test_on_its_way_out_it_leaves_it_to_be_put_back() -> None:
    core = _starting()
    core.leave()
    assert _feed(core, 20, NEWER[0]) == []


def _answer(ledger: Ledger, core: AgentCore, upto: int) -> None:
    """Let an agent that cannot read assignments answer what it was sent after `upto`."""
    for seq, _, subject, payload in ledger.entries[upto:]:
        if subject == "ev.assign.n1":
            newer = payload.replace(b"run.assigned", b"run.assigned.v2")
            effects = core.feed(Recorded(seq, 0, subject, codec.decode(subject, newer)), 0)
            for effect in effects:
                assert isinstance(effect, Report)
                ledger.put("ev.run.n1", effect.event)


def test_its_jobs_end_with_a_reason_instead_of_going_round_for_ever() -> None:
    """The order was ignored, and its run held its resources for ever."""
    ledger = ready()
    core = AgentCore("n1", "machine-n1", [], 0)
    core.joined(ledger.state.nodes["n1"].session)
    for entry in list(ledger.entries):
        if entry.subject == "ev.assign.n1":
            core.feed(Recorded(entry.seq, 0, entry.subject, codec.decode(entry.subject, entry.payload)), 0)
    assert core.open
    ledger.submit("j", JobSpec(driver="fake", retries=2, retry_backoff_ms=0))
    for _ in range(10):
        upto = len(ledger.entries)
        ledger.settle(ledger.state.clock_ms + 60_000)
        _answer(ledger, core, upto)
    job = ledger.job("j")
    assert (job.state, job.reason, job.attempt) == ("failed", "agent_too_old", 3)
    assert not ledger.state.runs
    assert not ledger.state.anomalies


def test_a_report_about_an_order_that_was_no_assignment_changes_nothing() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    before = ledger.job("j").state
    event = RunEnded(run=ledger.state.seq + 1, outcome="start_failed", reason="agent_too_old")
    evolve(ledger.state, Recorded(ledger.state.seq + 2, 0, "ev.run.n1", event))
    assert (ledger.job("j").state, ledger.state.late_reports) == (before, 1)
