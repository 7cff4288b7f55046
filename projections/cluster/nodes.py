"""Folding nodes: sessions, liveness verdicts, cordon and drain.

One machine at a time speaks for a node. A session ends by a newer one, by leaving or by being
lost; what the node ran is then kept (if the new session still has it) or closed.
"""

from __future__ import annotations

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
    SessionOpened,
    SessionRefused,
    TimersSet,
)
from eventsched.projections.cluster.anomalies import anomaly
from eventsched.projections.cluster.gone import note_gone
from eventsched.projections.cluster.rounds import in_round
from eventsched.projections.cluster.runs import close_run, disturb_gang
from eventsched.projections.cluster.state import ClusterState, Node, Refusal
from eventsched.recorded import Recorded

_JOINED_PREFIX = len("ev.node.")
_ORDER_PREFIX = len("ev.assign.")


def timers_fit(lost_after_ms: int, fence_after_ms: int, stop_ms: int) -> bool:
    """True when a leash has surely stopped everything before the node is given up.

    The margin (half a second and 5 % of `lost_after_ms`) covers clock drift between machines.
    """
    return fence_after_ms + stop_ms + 500 + lost_after_ms // 20 < lost_after_ms


def joined(state: ClusterState, recorded: Recorded, event: NodeJoined) -> None:
    """A new session, unless another machine holds the name or the node is impossible."""
    node_id = recorded.subject[_JOINED_PREFIX:]
    node = state.nodes.get(node_id)
    refusal = _refusal(state, node, event)
    if refusal is not None:
        state.refusals[recorded.seq] = Refusal(node_id, *refusal)
        return
    if node is None:
        node = Node(node_id, 0, "ready", "", "", event.capacity, 0, 0)
        state.nodes[node_id] = node
    _start_session(state, node, recorded.seq, event)
    state.answers_owed[node_id] = None
    state.changes.nodes[node_id] = None


def _refusal(state: ClusterState, node: Node | None, event: NodeJoined) -> tuple[str, str] | None:
    capacity = event.capacity
    if capacity.cpu_millis < 0 or capacity.memory_bytes < 0:
        return "bad_inventory", "negative capacity"
    if len({gpu.uuid: None for gpu in capacity.gpus}) != len(capacity.gpus):
        return "bad_inventory", "two GPUs share a UUID"
    if event.leash and not timers_fit(state.lost_after_ms, event.fence_after_ms, event.stop_ms):
        return "timers", (
            f"fence_after {event.fence_after_ms} ms and stopping {event.stop_ms} ms do not fit "
            f"into lost_after {state.lost_after_ms} ms"
        )
    if node is not None and node.machine_id != event.machine_id:
        if node.session:
            return "name_taken", f"machine {node.machine_id} holds session {node.session}"
        if node.runs:
            return "name_taken", f"machine {node.machine_id} may still run {len(node.runs)} runs nobody can stop"
    return None


def _start_session(state: ClusterState, node: Node, session: int, event: NodeJoined) -> None:
    inventory = dict.fromkeys(event.runs)
    for seq in list(node.runs):
        run = state.runs[seq]
        if seq not in inventory:
            close_run(state, run, "lost", "restarted")
            continue
        run.session = session
        if run.state == "unknown":
            run.state = "stopping" if run.stop_reason else "running"
            _explain_run(state, run.key, seq, "")
    node.session = session
    note_gone(state, node)
    node.state = "ready"
    node.machine_id = event.machine_id
    node.boot_id = event.boot_id
    node.capacity = event.capacity
    node.drivers = event.drivers
    node.labels = event.labels
    node.taints = event.taints
    node.spot = event.spot
    node.hazard_ppm_per_h = max(0, event.hazard_ppm_per_h)
    node.price_micros_per_h = max(0, event.price_micros_per_h)
    node.leash = event.leash
    node.fence_after_ms = event.fence_after_ms
    node.stop_ms = event.stop_ms
    node.joined_ms = node.changed_ms = state.clock_ms
    node.cpu_free_millis = event.capacity.cpu_millis
    node.memory_free_bytes = event.capacity.memory_bytes
    for seq in node.runs:
        node.cpu_free_millis -= state.runs[seq].cpu_millis
        node.memory_free_bytes -= state.runs[seq].memory_bytes


def _explain_run(state: ClusterState, key: str, seq: int, reason: str) -> None:
    job = state.jobs.get(key)
    if job is not None and job.run == seq and not job.abort_seq:
        job.reason = reason


def leaving(state: ClusterState, recorded: Recorded, event: NodeLeaving) -> None:
    """The agent is about to go: no new runs. What it stops on its way out may run elsewhere; if the
    machine is being taken away, that counts as preemption."""
    node = state.nodes.get(recorded.subject[_JOINED_PREFIX:])
    if node is None or node.session != event.session:
        anomaly(state, recorded, "stale_session", f"session {event.session}")
        return
    node.state = "leaving"
    node.changed_ms = state.clock_ms
    if event.reason == "spot":
        for seq in node.runs:
            run = state.runs[seq]
            if not run.stop_owed and not run.stop_reason:
                run.stop_reason, run.stop_detail = "preempted", "its spot node was taken away"
                if run.state != "unknown":
                    run.state = "stopping"
                disturb_gang(state, run)
    state.changes.nodes[node.node_id] = None


def left(state: ClusterState, recorded: Recorded, event: NodeLeft) -> None:
    """The agent said goodbye, having reported the end of every run it knew of.

    A run it never saw (assigned while it was on its way out) has lost nothing: it is put back.
    """
    node = state.nodes.get(recorded.subject[_JOINED_PREFIX:])
    if node is None or node.session != event.session:
        anomaly(state, recorded, "stale_session", f"session {event.session}")
        return
    _end_session(state, node, "left")
    for seq in list(node.runs):
        run = state.runs[seq]
        if run.state == "assigned" or (run.state == "stopping" and not run.started_ms):
            close_run(state, run, "stopped", "requeued")
        else:
            close_run(state, run, "lost", "restarted")


def _end_session(state: ClusterState, node: Node, new_state: str) -> None:
    node.session = 0
    node.state = new_state
    node.changed_ms = state.clock_ms
    state.answers_owed.pop(node.node_id, None)
    state.changes.nodes[node.node_id] = None
    note_gone(state, node)


def session_opened(state: ClusterState, recorded: Recorded, order: SessionOpened) -> None:
    """The join has been answered."""
    if in_round(state, recorded, order):
        node = state.nodes.get(recorded.subject[_ORDER_PREFIX:])
        if node is not None and node.session == order.session:
            state.answers_owed.pop(node.node_id, None)


def session_refused(state: ClusterState, recorded: Recorded, order: SessionRefused) -> None:
    """The join has been answered with no."""
    if in_round(state, recorded, order):
        state.refusals.pop(order.session, None)


# ---- liveness ---------------------------------------------------------------------------


def _judged_node(state: ClusterState, recorded: Recorded, session: int) -> Node | None:
    node = state.nodes.get(recorded.subject[_ORDER_PREFIX:])
    return node if node is not None and node.session == session else None


def suspected(state: ClusterState, recorded: Recorded, verdict: NodeSuspected) -> None:
    """Silent: no new runs for now."""
    if not in_round(state, recorded, verdict):
        return
    node = _judged_node(state, recorded, verdict.session)
    if node is not None and node.state == "ready":
        node.state = "suspect"
        node.changed_ms = state.clock_ms
        state.changes.nodes[node.node_id] = None


def recovered(state: ClusterState, recorded: Recorded, verdict: NodeRecovered) -> None:
    """Heard again."""
    if not in_round(state, recorded, verdict):
        return
    node = _judged_node(state, recorded, verdict.session)
    if node is not None and node.state == "suspect":
        node.state = "ready"
        node.changed_ms = state.clock_ms
        state.changes.nodes[node.node_id] = None


def lost(state: ClusterState, recorded: Recorded, verdict: NodeLost) -> None:
    """Given up. Runs the leash has stopped are lost; the others nobody knows about."""
    if not in_round(state, recorded, verdict):
        return
    node = _judged_node(state, recorded, verdict.session)
    if node is None:
        return
    _end_session(state, node, "lost")
    for seq in list(node.runs):
        run = state.runs[seq]
        job = state.jobs.get(run.key)
        keeps = job is not None and job.spec.on_disconnect == "keep"
        if node.leash and not keeps:
            close_run(state, run, "lost", "node_gone")
        else:
            run.state = "unknown"
            _explain_run(state, run.key, seq, "node_unknown")


# ---- operators --------------------------------------------------------------------------


def _named(state: ClusterState, recorded: Recorded, node_id: str) -> Node | None:
    node = state.nodes.get(node_id)
    if node is None:
        anomaly(state, recorded, "unknown_node", node_id)
        return None
    state.changes.nodes[node_id] = None
    return node


def cordoned(state: ClusterState, recorded: Recorded, event: NodeCordoned) -> None:
    """No new runs."""
    node = _named(state, recorded, event.node)
    if node is not None:
        node.cordoned = True
        note_gone(state, node)


def uncordoned(state: ClusterState, recorded: Recorded, event: NodeUncordoned) -> None:
    """Ends cordon and drain."""
    node = _named(state, recorded, event.node)
    if node is not None:
        node.cordoned = node.draining = False
        node.drain_at_ms = 0
        note_gone(state, node)


def drained(state: ClusterState, recorded: Recorded, event: NodeDrained) -> None:
    """No new runs, and the present ones end: by themselves until the deadline, then stopped."""
    node = _named(state, recorded, event.node)
    if node is None:
        return
    node.cordoned = node.draining = True
    note_gone(state, node)
    if event.now:
        node.drain_at_ms = max(state.clock_ms, 1)
    else:
        node.drain_at_ms = state.clock_ms + event.deadline_ms if event.deadline_ms > 0 else 0


def timers_set(state: ClusterState, recorded: Recorded, event: TimersSet) -> None:
    """New limits for silence, if every live node's leash is still quick enough."""
    if not 0 < event.suspect_after_ms <= event.lost_after_ms:
        anomaly(state, recorded, "bad_timers", "suspect_after must be positive and at most lost_after")
        return
    for node in state.nodes.values():
        if node.session and node.leash and not timers_fit(event.lost_after_ms, node.fence_after_ms, node.stop_ms):
            anomaly(state, recorded, "bad_timers", f"node {node.node_id} stops its runs later than that")
            return
    state.suspect_after_ms = event.suspect_after_ms
    state.lost_after_ms = event.lost_after_ms
