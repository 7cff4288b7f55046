"""Folds a golden log. Also run as a process of its own, under another hash seed:
`python -m tests.golden.replay` prints the digest of every story."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from eventsched import codec
from eventsched.projections.cluster.digest import digest
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.recorded import Recorded

LOGS = Path(__file__).with_name("logs")


def payload_of(line: dict[str, object]) -> bytes:
    """The payload of a stored line: text, base64, or a beginning, one byte repeated, and an end."""
    if "repeat" in line:
        begin, filler, count, end = line["repeat"]  # type: ignore[misc]
        return (begin + filler * count + end).encode()  # type: ignore[has-type,no-any-return]
    if "base64" in line:
        return base64.b64decode(str(line["base64"]))
    return str(line["payload"]).encode()


def fold(directory: Path) -> ClusterState:
    """The state after the story's last event."""
    state = ClusterState()
    for text in (directory / "events.jsonl").read_text().splitlines():
        line = json.loads(text)
        event = codec.decode(line["subject"], payload_of(line))
        evolve(state, Recorded(line["seq"], line["at_ms"], line["subject"], event))
    return state


def summary(state: ClusterState) -> dict[str, object]:
    """What a person can compare."""
    return {
        "seq": state.seq,
        "jobs": {job.key: [job.state, job.reason] for job in state.jobs.values()},
        "ended": state.ended,
        "anomalies": state.anomalies,
        "nodes": {node.node_id: node.state for node in state.nodes.values()},
    }


def stories() -> list[Path]:
    """The stories, by name."""
    return sorted(path for path in LOGS.iterdir() if path.is_dir())


if __name__ == "__main__":
    print(json.dumps({path.name: digest(fold(path)) for path in stories()}))
