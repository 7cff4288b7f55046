"""The stamp of a decision: only the last claimant's word counts, and each round only once.

The broker's fence refuses a deposed leader's write; this is the second lock, for whatever
passed by the first one.
"""

from __future__ import annotations

from eventsched.projections.cluster.anomalies import anomaly
from eventsched.projections.cluster.state import ClusterState
from eventsched.recorded import Recorded
from eventsched.wire import Decision


def of_current_epoch(state: ClusterState, recorded: Recorded, decision: Decision) -> bool:
    """True when the decision is the present leader's; else it is void."""
    if decision.epoch == state.epoch:
        return True
    anomaly(state, recorded, "stale_epoch", f"epoch {decision.epoch}, current {state.epoch}")
    return False


def in_round(state: ClusterState, recorded: Recorded, decision: Decision) -> bool:
    """True when the decision is the next message of its round; else it is void."""
    if decision.epoch != state.epoch:
        return of_current_epoch(state, recorded, decision)
    if decision.index == 0:
        if decision.round != state.rounds + 1 or decision.basis < state.round_end:
            anomaly(state, recorded, "bad_round", f"round {decision.round} after {state.rounds}")
            return False
        state.rounds = decision.round
        state.round_count = decision.count
        state.round_next = 1
    else:
        if decision.round != state.rounds or decision.index != state.round_next:
            anomaly(state, recorded, "bad_round", f"round {decision.round}, message {decision.index}")
            return False
        state.round_next += 1
    state.round_end = recorded.seq
    return True
