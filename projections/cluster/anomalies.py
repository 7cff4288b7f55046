"""Contradictions: events that say what cannot be. They are counted, kept for a while, and change nothing."""

from __future__ import annotations

from eventsched.projections.cluster.state import Anomaly, ClusterState
from eventsched.recorded import Recorded

RECENT_MAX = 100
TEXT_MAX = 200


def anomaly(state: ClusterState, recorded: Recorded, kind: str, detail: str = "") -> None:
    """Note that `recorded` is void, and why; the last hundred can be read by everybody."""
    state.anomalies[kind] = state.anomalies.get(kind, 0) + 1
    recent = state.recent_anomalies
    recent.append(Anomaly(recorded.seq, kind, recorded.subject[:TEXT_MAX], detail[:TEXT_MAX]))
    if len(recent) > RECENT_MAX:
        del recent[0]
