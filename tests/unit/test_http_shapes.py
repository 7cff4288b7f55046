"""The earlier systems' words for what views hold."""

from __future__ import annotations

import pytest
from msgspec import structs

from eventsched.events import NodeCordoned, NodeDrained
from eventsched.projections.http.auth import OPERATOR
from eventsched.projections.http.shapes import executor_body, stats_body
from eventsched.projections.views.present import node_view, stats
from eventsched.wire import Event

from ..support import Ledger, ready


def _told(ledger: Ledger) -> tuple[list[str], int, str]:
    state = ledger.state
    executors = [executor_body(node_view(state, node), OPERATOR) for node in state.nodes.values()]
    body = stats_body(stats(state, "s", "leading"))
    return [one["status"] for one in executors], body["online_executors"], body["reason"]


@pytest.mark.parametrize(
    ("kind", "event"), [("cordoned", NodeCordoned(node="n1")), ("drained", NodeDrained(node="n1"))]
)
def test_a_node_that_takes_no_work_is_online_and_is_no_node_for_work(kind: str, event: Event) -> None:
    ledger = ready()
    assert _told(ledger) == (["ONLINE"], 1, "")
    ledger.put(f"ev.admin.node_{kind}", event)
    assert _told(ledger) == (["ONLINE"], 1, "no_nodes")


def test_a_suspect_node_is_online_in_both_places() -> None:
    state = ready().state
    body = stats_body(structs.replace(stats(state, "s", "leading"), nodes={"suspect": 1, "lost": 1}, nodes_open=0))
    suspect = structs.replace(node_view(state, state.nodes["n1"]), state="suspect")
    assert (executor_body(suspect, OPERATOR)["status"], body["online_executors"]) == ("ONLINE", 1)
    lost = structs.replace(suspect, state="lost")
    assert executor_body(lost, OPERATOR)["status"] == "OFFLINE"
