"""Nodes in the fold: sessions, who may hold a name, liveness verdicts, cordon and drain."""

from __future__ import annotations

import pytest

from eventsched import subjects
from eventsched.events import (
    NodeCordoned,
    NodeDrained,
    NodeJoined,
    NodeLeaving,
    NodeLeft,
    NodeLost,
    NodeRecovered,
    NodeSuspected,
    NodeUncordoned,
    RequeueRequested,
    SessionOpened,
    SessionRefused,
    TimersSet,
)
from eventsched.projections.cluster.nodes import timers_fit
from eventsched.projections.cluster.outstanding import outstanding
from eventsched.projections.scheduling.decide import stamp
from eventsched.resources import Capacity, Gpu
from eventsched.spec import JobSpec

from ..support import Ledger, ready


def _verdict(ledger: Ledger, kind: type, node: str = "n1", session: int = 0) -> None:
    fields = {"session": session or ledger.state.nodes[node].session}
    (one,) = stamp(ledger.state, ledger.state.clock_ms, [(subjects.assign(node), kind, fields)])
    ledger.put(one.subject, one.event)


def test_a_join_is_answered_with_what_is_owed() -> None:
    ledger = Ledger()
    ledger.lead()
    session = ledger.join()
    (answer,) = ledger.round()
    assert isinstance(answer.event, SessionOpened)
    assert (answer.event.session, answer.event.runs, answer.event.owed) == (session, (), ())
    assert not ledger.decide()


def test_a_rejoin_keeps_what_the_machine_still_has_and_closes_the_rest() -> None:
    ledger = ready()
    for name in ("kept", "gone", "stopping"):
        ledger.submit(name)
    ledger.settle()
    kept, gone, stopping = (ledger.job(name).run for name in ("kept", "gone", "stopping"))
    ledger.ask("stopping", "requeue_requested", RequeueRequested())
    ledger.settle()
    session = ledger.join(runs=(kept, stopping))
    assert list(ledger.state.runs) == [kept, stopping]
    assert (ledger.job("gone").state, ledger.job("gone").reason) == ("pending", "restarted")
    assert ledger.run(kept).session == session
    (answer, *_) = ledger.round()
    assert isinstance(answer.event, SessionOpened)
    assert answer.event.runs == (kept, stopping)
    assert [(owed.run, owed.reason) for owed in answer.event.owed] == [(stopping, "requeued")]
    assert gone not in ledger.state.runs


def test_another_machine_may_not_take_a_live_name() -> None:
    ledger = ready()
    refused = ledger.join(machine="impostor")
    (answer,) = ledger.round()
    assert isinstance(answer.event, SessionRefused)
    assert (answer.event.session, answer.event.reason) == (refused, "name_taken")
    assert ledger.state.nodes["n1"].machine_id == "machine-n1"
    _verdict(ledger, NodeLost)
    ledger.join(machine="impostor")
    assert ledger.state.nodes["n1"].machine_id == "impostor", "once the first is lost, it may"


def test_another_machine_may_not_take_a_name_with_runs_nobody_can_stop() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join(leash=False)
    ledger.settle()
    ledger.submit("j")
    ledger.settle()
    _verdict(ledger, NodeLost)
    ledger.join(machine="impostor")
    assert ledger.state.refusals, "the old machine may still run it"


@pytest.mark.parametrize(
    ("capacity", "reason"),
    [
        (Capacity(-1, 0), "bad_inventory"),
        (Capacity(1, 0, (Gpu("a", "X"), Gpu("a", "X"))), "bad_inventory"),
    ],
)
def test_impossible_nodes_are_refused(capacity: Capacity, reason: str) -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.put("ev.node.n1", NodeJoined(machine_id="m", boot_id="b", capacity=capacity))
    (answer,) = ledger.round()
    assert isinstance(answer.event, SessionRefused)
    assert answer.event.reason == reason


def test_a_leash_that_is_too_slow_is_refused() -> None:
    ledger = Ledger(lost_after_ms=30_000)
    ledger.lead()
    ledger.join()
    (answer,) = ledger.round()
    assert isinstance(answer.event, SessionRefused)
    assert answer.event.reason == "timers"
    assert "20000" in answer.event.detail


def test_timers() -> None:
    assert timers_fit(45_000, 20_000, 12_000), "the defaults"
    assert not timers_fit(34_000, 20_000, 12_500)
    ledger = ready()
    ledger.put("ev.admin.timers_set", TimersSet(suspect_after_ms=1_000, lost_after_ms=30_000))
    assert ledger.state.anomalies == {"bad_timers": 1}
    ledger.put("ev.admin.timers_set", TimersSet(suspect_after_ms=1_000, lost_after_ms=60_000))
    assert (ledger.state.suspect_after_ms, ledger.state.lost_after_ms) == (1_000, 60_000)


def test_a_suspect_gets_no_runs_until_it_recovers() -> None:
    ledger = ready()
    _verdict(ledger, NodeSuspected)
    ledger.submit("j")
    ledger.settle()
    assert ledger.job("j").state == "pending"
    _verdict(ledger, NodeRecovered)
    ledger.settle()
    assert ledger.job("j").state == "assigned"


def test_a_lost_node_ends_its_session_and_its_runs() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.submit("kept", JobSpec(driver="fake", on_disconnect="keep"))
    ledger.settle()
    _verdict(ledger, NodeLost)
    node = ledger.state.nodes["n1"]
    assert (node.state, node.session) == ("lost", 0)
    assert (ledger.job("j").state, ledger.job("j").reason) == ("pending", "node_gone")
    kept = ledger.job("kept")
    assert (kept.state, kept.reason, ledger.run(kept.run).state) == ("assigned", "node_unknown", "unknown")
    ledger.settle()
    assert ledger.job("j").state == "pending", "no node is left"
    ledger.join(runs=(kept.run,))
    assert (ledger.run(kept.run).state, kept.reason) == ("running", "")


def test_a_verdict_on_an_older_session_is_void() -> None:
    ledger = ready()
    old = ledger.state.nodes["n1"].session
    ledger.join()
    _verdict(ledger, NodeLost, session=old)
    assert ledger.state.nodes["n1"].state == "ready"


def test_without_a_leash_runs_become_unknown_and_only_force_moves_them() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join(leash=False)
    ledger.settle()
    ledger.submit("j")
    ledger.settle()
    _verdict(ledger, NodeLost)
    job = ledger.job("j")
    assert ledger.run(job.run).state == "unknown"
    ledger.ask("j", "requeue_requested", RequeueRequested())
    assert ledger.state.anomalies == {"run_unknown": 1}
    ledger.ask("j", "requeue_requested", RequeueRequested(force=True))
    assert (job.state, job.losses) == ("pending", 0)


def test_leaving_closes_what_was_left() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    ledger.put("ev.node.n1", NodeLeft(session=999))
    assert ledger.state.anomalies == {"stale_session": 1}
    ledger.put("ev.node.n1", NodeLeft(session=ledger.state.nodes["n1"].session))
    assert ledger.state.nodes["n1"].state == "left"
    assert ledger.job("j").state == "pending"


def test_a_node_that_is_leaving_gets_nothing_new() -> None:
    """Found by Ctrl-C on `dev`: the job that was just stopped was given back to the node on its way out."""
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    session = ledger.state.nodes["n1"].session
    ledger.put("ev.node.n1", NodeLeaving(session=session))
    ledger.ended(ledger.job("j").run, "stopped", 143)
    ledger.settle()
    assert ledger.job("j").state == "pending"
    ledger.put("ev.node.n1", NodeLeft(session=session))
    ledger.put("ev.node.n1", NodeLeaving(session=session))
    assert ledger.state.anomalies == {"stale_session": 1}
    assert ledger.state.nodes["n1"].state == "left"
    ledger.join("n1")
    ledger.settle()
    assert ledger.job("j").state == "assigned"
    assert ledger.job("j").attempt == 2


def test_cordon_keeps_runs_and_takes_no_new_ones() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    ledger.put("ev.admin.node_cordoned", NodeCordoned(node="n1"))
    ledger.submit("k")
    ledger.settle()
    assert (ledger.job("j").state, ledger.job("k").state) == ("assigned", "pending")
    ledger.put("ev.admin.node_uncordoned", NodeUncordoned(node="n1"))
    ledger.settle()
    assert ledger.job("k").state == "assigned"


@pytest.mark.parametrize(
    ("event", "after_ms", "stops"),
    [
        (NodeDrained(node="n1", now=True), 0, True),
        (NodeDrained(node="n1", deadline_ms=5_000), 4_000, False),
        (NodeDrained(node="n1", deadline_ms=5_000), 6_000, True),
        (NodeDrained(node="n1"), 10**9, False),
    ],
)
def test_drain_waits_until_its_deadline(event: NodeDrained, after_ms: int, stops: bool) -> None:
    ledger = ready()
    ledger.join("n2")
    ledger.settle()
    ledger.submit("j")
    ledger.settle()
    job = ledger.job("j")
    ledger.put("ev.admin.node_drained", NodeDrained(node=job.node, deadline_ms=event.deadline_ms, now=event.now))
    first = job.node
    ledger.settle(ledger.state.clock_ms + after_ms)
    assert (ledger.run(job.run).state == "stopping") is stops
    if stops:
        ledger.ended(job.run, "stopped", 143)
        assert (job.state, job.reason, job.losses) == ("pending", "drained", 1)
        ledger.settle()
        assert job.state == "assigned"
        assert job.node != first


def test_operators_typos_are_anomalies() -> None:
    ledger = ready()
    for kind in ("cordoned", "uncordoned", "drained"):
        ledger.raw(f"ev.admin.node_{kind}", b'{"node":"nobody"}')
    assert ledger.state.anomalies == {"unknown_node": 3}


def test_outstanding_names_owed_stops_oldest_run_first() -> None:
    ledger = ready()
    for name in ("a", "b"):
        ledger.submit(name)
    ledger.settle()
    for name in ("b", "a"):
        ledger.ask(name, "requeue_requested", RequeueRequested())
    runs = sorted((ledger.job("a").run, ledger.job("b").run))
    assert [owed.run for owed in outstanding(ledger.state, "n1")] == runs
    assert outstanding(ledger.state, "nobody") == ()
