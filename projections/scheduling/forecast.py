"""Forecast: what a round made now would promise, to whom, and whom that keeps waiting; for explanations."""

from __future__ import annotations

from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.scheduling.backfill import Reservation
from eventsched.projections.scheduling.placing import Placing
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.scheduling.policies import choose, is_known
from eventsched.projections.scheduling.waiting import Why
from eventsched.units import format_ms

NODES_SHOWN = 4


def forecast(state: ClusterState, now_ms: int) -> dict[str, Why]:
    """Why jobs wait, by key, as far as reservations are the reason; {} where the policy makes none."""
    if not is_known(state.policy) or not choose(state.policy).reservations:
        return {}
    planner = Planner(state)
    planner.wake(state, now_ms)
    placing = Placing(state, planner, now_ms, {}, lambda job, count: True)
    for _ in placing.run():
        pass
    names = planner.fleet.names
    found = {key: Why("backfill", _delays(one, now_ms)) for key, one in placing.behind.items()}
    for key, one in placing.reserved.items():
        found[key] = Why("reserved", f"starts {_when(one, now_ms)} on {_nodes(one, names)}, if runs end as expected")
    return found


def _delays(one: Reservation, now_ms: int) -> str:
    tenant, _, job_id = one.key.partition("/")
    return f"it fits now, but may delay job {job_id} of {tenant}, which starts {_when(one, now_ms)}"


def _when(one: Reservation, now_ms: int) -> str:
    return f"in {format_ms(one.at_ms - now_ms)}" if one.at_ms > now_ms else "any moment"


def _nodes(one: Reservation, names: list[str]) -> str:
    nodes = list(dict.fromkeys(names[row] for row in one.rows))
    more = f" and {len(nodes) - NODES_SHOWN} more" if len(nodes) > NODES_SHOWN else ""
    return ", ".join(nodes[:NODES_SHOWN]) + more
