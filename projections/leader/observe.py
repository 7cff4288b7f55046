"""observe: judging liveness from heartbeats. The one step whose inputs are not in the log.

Its verdicts are events with cited evidence, committed and folded before anything is decided on
them. Silence is measured by this leader's monotonic clock from the moment it *read* a heartbeat,
so a slow reader errs towards patience; and nobody is judged before everything that reached HB
until now has been read (the marker).
"""

from __future__ import annotations

from msgspec import Struct

from eventsched import subjects
from eventsched.events import NodeLost, NodeRecovered, NodeSuspected
from eventsched.projections.cluster.state import ClusterState
from eventsched.wire import Decision


class Heard(Struct):
    """The last sign of life of a node: in which session, when (leader's monotonic ms), which heartbeat."""

    session: int
    mono_ms: int
    hb_seq: int = 0


Verdict = tuple[str, type[Decision], dict[str, int]]


class Liveness:
    """Signs of life by node."""

    def __init__(self) -> None:
        self.heard: dict[str, Heard] = {}
        self.hb_seq = 0

    def restart(self, state: ClusterState, mono_ms: int) -> None:
        """Give every node its full time again: a new leader, or a new HB stream."""
        self.heard = {name: Heard(node.session, mono_ms) for name, node in state.nodes.items() if node.session}

    def hear(self, node: str, session: int, hb_seq: int, mono_ms: int) -> None:
        """A heartbeat was read. Those of an older session say nothing."""
        heard = self.heard.get(node)
        if heard is None or session >= heard.session:
            self.heard[node] = Heard(session, mono_ms, hb_seq)

    def someone_silent(self, state: ClusterState, mono_ms: int) -> bool:
        """True when a verdict may be due, so that a marker is worth writing."""
        for name, node in state.nodes.items():
            if not node.session:
                continue
            silent = self._silence(name, node.session, mono_ms)
            if silent > state.lost_after_ms:
                return True
            late = silent > state.suspect_after_ms
            if (node.state == "ready" and late) or (node.state == "suspect" and not late):
                return True
        return False

    def _silence(self, name: str, session: int, mono_ms: int) -> int:
        heard = self.heard.get(name)
        if heard is None or heard.session != session:
            self.heard[name] = Heard(session, mono_ms)
            return 0
        return mono_ms - heard.mono_ms


def observe(liveness: Liveness, state: ClusterState, mono_ms: int, marker_seq: int) -> list[Verdict]:
    """Verdicts due now (unstamped), nodes in order of id; HB has been read up to `marker_seq`."""
    verdicts: list[Verdict] = []
    for name in sorted(state.nodes):
        node = state.nodes[name]
        if not node.session:
            continue
        silent = liveness._silence(name, node.session, mono_ms)
        evidence = {"session": node.session, "hb_seq": liveness.heard[name].hb_seq}
        subject = subjects.assign(name)
        if silent > state.lost_after_ms:
            verdicts.append((subject, NodeLost, {**evidence, "silent_ms": silent, "marker_seq": marker_seq}))
        elif silent > state.suspect_after_ms:
            if node.state == "ready":
                verdicts.append((subject, NodeSuspected, {**evidence, "silent_ms": silent}))
        elif node.state == "suspect":
            verdicts.append((subject, NodeRecovered, evidence))
    return verdicts
