"""What the state says of a node, as the rows of a fleet hold it."""

from __future__ import annotations

from eventsched.projections.cluster.state import ClusterState, Node
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import group_of


def static_part(node: Node) -> tuple[object, ...]:
    """What seldom changes: what a node is and offers."""
    offers = (node.capacity, node.drivers, node.labels, node.taints)
    return (*offers, node.spot, node.hazard_ppm_per_h, node.price_micros_per_h)


def levels_of(node: Node) -> list[int]:
    """Free thousandths of each device: none of one that is given whole."""
    if not node.gpu_runs and not node.gpu_shares:
        return [WHOLE] * len(node.capacity.gpus)
    runs, shares = node.gpu_runs, node.gpu_shares
    return [0 if gpu.uuid in runs else WHOLE - shares.get(gpu.uuid, 0) for gpu in node.capacity.gpus]


def groups_on(state: ClusterState, node: Node) -> dict[str, int]:
    """How many current runs of each limited group a node has."""
    counts: dict[str, int] = {}
    for seq in node.runs:
        job = state.jobs.get(state.runs[seq].key)
        if job is not None and job.run == seq:
            group = group_of(job)
            if group:
                counts[group] = counts.get(group, 0) + 1
    return counts
