"""Nodes that leave, are drained, or are gone: what is put back, what is shown, what is forgotten."""

from __future__ import annotations

import pytest

from eventsched.cli.tables import nodes_table
from eventsched.events import (
    NodeCordoned,
    NodeDrained,
    NodeLeaving,
    NodeLeft,
    NodeLost,
    NodeSuspected,
    NodeUncordoned,
    RequeueRequested,
)
from eventsched.projections.cluster import gone
from eventsched.projections.cluster.digest import decode_state, digest, encode_state
from eventsched.projections.scheduling.decide import stamp
from eventsched.projections.views.present import node_view, stats
from eventsched.spec import JobSpec

from ..support import Ledger, ready


def _verdict(ledger: Ledger, kind: type, node: str = "n1") -> None:
    fields = {"session": ledger.state.nodes[node].session}
    (one,) = stamp(ledger.state, ledger.state.clock_ms, [(f"ev.assign.{node}", kind, fields)])
    ledger.put(one.subject, one.event)


def _leave(ledger: Ledger, node: str = "n1") -> None:
    session = ledger.state.nodes[node].session
    ledger.put(f"ev.node.{node}", NodeLeaving(session=session))
    ledger.put(f"ev.node.{node}", NodeLeft(session=session))


# ---- leaving ------------------------------------------------------------------------------------


def test_a_run_its_agent_never_saw_is_put_back_and_no_loss() -> None:
    """Assigned while the agent was on its way out: it counted as lost, and `max_lost` leaves failed the job."""
    ledger = ready()
    ledger.submit("unseen", JobSpec(driver="fake", max_lost=0, on_lost="fail"))
    ledger.settle()
    _leave(ledger)
    job = ledger.job("unseen")
    assert (job.state, job.reason, job.losses, job.failures) == ("pending", "requeued", 0, 0)


def test_nor_when_its_stop_was_ordered_already() -> None:
    ledger = ready()
    ledger.submit("unseen")
    ledger.settle()
    ledger.ask("unseen", "requeue_requested", RequeueRequested())
    ledger.settle()
    assert ledger.run(ledger.job("unseen").run).state == "stopping"
    _leave(ledger)
    assert (ledger.job("unseen").state, ledger.job("unseen").losses) == ("pending", 0)


def test_one_that_had_started_is_lost() -> None:
    ledger = ready()
    ledger.submit("seen")
    ledger.settle()
    ledger.started(ledger.job("seen").run)
    _leave(ledger)
    job = ledger.job("seen")
    assert (job.state, job.reason, job.losses) == ("pending", "restarted", 1)


# ---- drained ------------------------------------------------------------------------------------


def _shown(ledger: Ledger, node: str = "n1") -> tuple[str, str]:
    """The state of a node in a view, and in the table of the command line."""
    view = node_view(ledger.state, ledger.state.nodes[node])
    assert stats(ledger.state, "s1", "leader").nodes == {view.state: 1}
    (cell,) = nodes_table([view]).columns[1].cells
    words = str(cell).replace("[/]", "]").split("]")
    return view.state, "".join(word for word in words if not word.startswith("["))


def test_a_drain_is_shown_until_it_is_done_and_then_as_done() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    assert _shown(ledger)[0] == "ready"
    ledger.put("ev.admin.node_drained", NodeDrained(node="n1"))
    assert _shown(ledger) == ("draining", "draining")
    ledger.ended(ledger.job("j").run)
    assert _shown(ledger) == ("drained", "drained")
    ledger.put("ev.admin.node_uncordoned", NodeUncordoned(node="n1"))
    assert _shown(ledger) == ("ready", "ready")


def test_a_cordon_is_no_drain() -> None:
    ledger = ready()
    ledger.put("ev.admin.node_cordoned", NodeCordoned(node="n1"))
    assert _shown(ledger) == ("ready", "ready cordoned")


def test_a_drained_node_in_trouble_shows_the_trouble() -> None:
    ledger = ready()
    ledger.put("ev.admin.node_drained", NodeDrained(node="n1"))
    _verdict(ledger, NodeSuspected)
    assert _shown(ledger) == ("suspect", "suspect draining")
    _verdict(ledger, NodeLost)
    assert _shown(ledger) == ("lost", "lost draining")


# ---- gone ---------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep three nodes that are gone instead of a thousand."""
    monkeypatch.setattr(gone, "GONE_KEPT", 3)
    monkeypatch.setattr("eventsched.projections.cluster.check.GONE_KEPT", 3)


def _come_and_go(ledger: Ledger, *nodes: str) -> None:
    for node in nodes:
        ledger.join(node)
        ledger.settle()
        _leave(ledger, node)


@pytest.mark.usefixtures("few")
def test_the_newest_that_left_or_were_lost_are_kept() -> None:
    ledger = ready()
    _come_and_go(ledger, "a", "b")
    ledger.join("c")
    ledger.settle()
    _verdict(ledger, NodeLost, "c")
    _come_and_go(ledger, "d", "e")
    assert list(ledger.state.nodes) == ["n1", "c", "d", "e"]
    ledger.settle()
    ledger.submit("j")
    ledger.settle()
    assert ledger.job("j").node == "n1"


@pytest.mark.usefixtures("few")
def test_one_that_comes_back_is_gone_no_more() -> None:
    ledger = ready()
    _come_and_go(ledger, "a", "b", "c")
    ledger.join("a")
    _come_and_go(ledger, "d")
    assert list(ledger.state.nodes) == ["n1", "a", "b", "c", "d"]
    _leave(ledger, "a")
    assert list(ledger.state.gone) == ["c", "d", "a"]
    ledger.join("b", machine="another")
    assert not ledger.state.refusals, "a name that is forgotten is free"


@pytest.mark.usefixtures("few")
def test_a_cordon_outlives_its_node_until_it_is_lifted() -> None:
    ledger = ready()
    ledger.join("a")
    ledger.put("ev.admin.node_cordoned", NodeCordoned(node="a"))
    _leave(ledger, "a")
    _come_and_go(ledger, "b")
    ledger.put("ev.admin.node_drained", NodeDrained(node="b"))
    _come_and_go(ledger, "c", "d", "e", "f")
    assert list(ledger.state.nodes) == ["n1", "a", "b", "d", "e", "f"]
    for node in ("a", "b"):
        ledger.put("ev.admin.node_uncordoned", NodeUncordoned(node=node))
    assert list(ledger.state.nodes) == ["n1", "a", "b", "f"]


@pytest.mark.usefixtures("few")
def test_a_node_that_may_still_run_something_is_not_forgotten() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("n1", leash=False)
    ledger.settle()
    ledger.submit("j")
    ledger.settle()
    _verdict(ledger, NodeLost)
    _come_and_go(ledger, "a", "b", "c", "d")
    assert list(ledger.state.nodes) == ["n1", "b", "c", "d"]
    ledger.ask("j", "requeue_requested", RequeueRequested(force=True))
    assert list(ledger.state.nodes) == ["n1", "c", "d"]


def test_the_state_does_not_grow_with_every_machine_that_ever_was() -> None:
    """2,000 machines that came and went were 2,000 nodes, in every snapshot, for ever."""
    ledger = ready()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.check", lambda state: [])  # it walks all nodes at each step
        for number in range(1_500):
            ledger.join(f"host-{number}")
            ledger.put(f"ev.node.host-{number}", NodeLeft(session=ledger.state.seq))
    ledger.submit("j")
    ledger.settle()
    assert len(ledger.state.nodes) == 1 + gone.GONE_KEPT
    assert next(iter(ledger.state.gone)) == "host-500"
    assert digest(decode_state(encode_state(ledger.state))) == digest(ledger.state)
