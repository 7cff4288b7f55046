"""What a node still owes: read by an agent when it (re)starts, through `session.opened`."""

from __future__ import annotations

from eventsched.events import Owed
from eventsched.projections.cluster.state import ClusterState


def outstanding(state: ClusterState, node_id: str) -> tuple[Owed, ...]:
    """Orders recorded for this node's runs (or due) that no report has answered yet, oldest run first."""
    node = state.nodes.get(node_id)
    if node is None:
        return ()
    runs = (state.runs[seq] for seq in sorted(node.runs))
    return tuple(Owed(run.seq, run.stop_reason or run.stop_owed) for run in runs if run.stop_reason or run.stop_owed)
