"""Nodes that are gone: the state must not grow with every machine that ever was.

A node without a session, without runs and without a cordon holds nothing anybody may still ask
for. The newest `GONE_KEPT` of them stay, so that people see them as left or lost; older ones are
forgotten (a count of events, never time). A machine that comes back joins as it did at first.
"""

from __future__ import annotations

from eventsched.projections.cluster.state import ClusterState, Node

GONE_KEPT = 1_000


def is_gone(node: Node) -> bool:
    """True when nothing but people's curiosity needs the node. A cordon is an operator's word: it stays."""
    return not (node.session or node.runs or node.cordoned)


def note_gone(state: ClusterState, node: Node) -> None:
    """Call whenever a node may have become gone, or may have ceased to be."""
    if not is_gone(node):
        state.gone.pop(node.node_id, None)
        return
    if node.node_id not in state.gone:
        state.gone[node.node_id] = None
    if len(state.gone) > GONE_KEPT:
        oldest = next(iter(state.gone))
        del state.gone[oldest]
        del state.nodes[oldest]
        state.changes.nodes[oldest] = None
