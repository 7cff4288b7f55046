"""Makes the golden logs. Old ones are never made anew: `python -m tests.golden.make` adds what is missing.

A golden log is a story: `events.jsonl`, one recorded event a line (sequence, time, subject and the
payload as text, or base64 where it is none), and `expect.json`: digest, states and anomalies after
the last one. Changing what an old log folds to needs a new fold version, not a new expectation.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from eventsched.events import (
    AbortRequested,
    NodeCordoned,
    NodeDrained,
    NodeLeaving,
    NodeLeft,
    NodeLost,
    RequeueRequested,
)
from eventsched.log.port import Entry
from eventsched.projections.cluster.digest import digest
from eventsched.projections.scheduling.decide import stamp
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..simulation.story import told
from ..support import Ledger, ready
from .replay import LOGS, fold, summary


def _lost(ledger: Ledger, node: str) -> None:
    fields = {"session": ledger.state.nodes[node].session}
    (one,) = stamp(ledger.state, ledger.state.clock_ms, [(f"ev.assign.{node}", NodeLost, fields)])
    ledger.put(one.subject, one.event)


def garbage_typed_by_hand() -> Iterable[Entry]:
    from ..integration.test_log_server import GARBAGE

    ledger = ready()
    for subject, payload in GARBAGE:
        ledger.raw(subject, payload)
    ledger.settle()
    return ledger.entries


def abort_races() -> Iterable[Entry]:
    ledger = ready()
    for name in ("before", "after", "between"):
        ledger.submit(name)
    proposed = ledger.decide()
    ledger.ask("between", "abort_requested", AbortRequested())
    for one in proposed:
        ledger.put(one.subject, one.event)
    ledger.ask("before", "abort_requested", AbortRequested())
    ledger.ended(ledger.job("before").run)
    ledger.ended(ledger.job("after").run)
    ledger.ask("after", "abort_requested", AbortRequested())
    ledger.settle()
    return ledger.entries


def a_node_lost_and_back() -> Iterable[Entry]:
    ledger = ready()
    ledger.join("n2", gpus=("A100", "A100"))
    ledger.settle()
    ledger.submit("gpu", JobSpec(driver="fake", resources=Resources(gpus=1, gpu_model="A100")))
    ledger.submit("kept", JobSpec(driver="fake", on_disconnect="keep"))
    ledger.submit("plain")
    ledger.settle()
    for name in ("n1", "n2"):
        _lost(ledger, name)
    ledger.settle()
    ledger.join("n2", gpus=("A100", "A100"), runs=tuple(ledger.state.nodes["n2"].runs))
    ledger.join("n1", runs=tuple(ledger.state.nodes["n1"].runs))
    ledger.settle()
    return ledger.entries


def arrays_and_dependencies() -> Iterable[Entry]:
    ledger = ready(finished_keep=6)
    ledger.submit("array", JobSpec(driver="fake", array=9, retries=1, retry_backoff_ms=10))
    ledger.submit("then", JobSpec(driver="fake", after_ok=("array",)))
    ledger.submit("anyway", JobSpec(driver="fake", after_any=("array", "then")))
    ledger.ask("array", "abort_requested", AbortRequested(member=7))
    for turn in range(12):
        ledger.settle(ledger.state.clock_ms + 1_000_000)
        for run in list(ledger.state.runs):
            ledger.started(run)
            ledger.ended(run, "exited", int((run + turn) % 4 == 0))
    return ledger.entries


def drain_and_requeue() -> Iterable[Entry]:
    ledger = ready()
    ledger.join("n2")
    ledger.settle()
    for index in range(6):
        ledger.submit(f"j{index}", JobSpec(driver="fake", priority=index % 3, resources=Resources(cpu_millis=1500)))
    ledger.settle()
    ledger.put("ev.admin.node_drained", NodeDrained(node="n1", now=True))
    ledger.ask("j1", "requeue_requested", RequeueRequested())
    ledger.settle()
    for run in list(ledger.state.runs):
        if ledger.run(run).stop_reason:
            ledger.ended(run, "stopped", 143)
    ledger.settle()
    return ledger.entries


def nodes_that_leave() -> Iterable[Entry]:
    ledger = ready()
    for node in ("n2", "n3"):
        ledger.join(node)
    ledger.settle()
    for index in range(9):
        ledger.submit(f"j{index}", JobSpec(driver="fake", max_lost=0))
    ledger.settle()
    for run in list(ledger.state.runs)[::2]:
        ledger.started(run)
    ledger.put("ev.admin.node_cordoned", NodeCordoned(node="n2"))
    for node in ("n1", "n2"):
        session = ledger.state.nodes[node].session
        ledger.put(f"ev.node.{node}", NodeLeaving(session=session))
        ledger.put(f"ev.node.{node}", NodeLeft(session=session))
    ledger.settle()
    ledger.join("n1")
    ledger.settle()
    return ledger.entries


STORIES: dict[str, Callable[[], Iterable[Entry]]] = {
    "garbage-typed-by-hand": garbage_typed_by_hand,
    "abort-races": abort_races,
    "a-node-lost-and-back": a_node_lost_and_back,
    "arrays-and-dependencies": arrays_and_dependencies,
    "drain-and-requeue": drain_and_requeue,
    "nodes-that-leave": nodes_that_leave,
    "troubles-seed-3": partial(told, 3),
    "troubles-seed-11": partial(told, 11),
    "troubles-seed-58": partial(told, 58),
}


def stored(payload: bytes) -> dict[str, object]:
    """A payload as a line stores it; long fillers are stored as one byte and a length."""
    for tail in (b'"}', b""):
        filler = payload.removesuffix(tail)[-1:]
        head = payload.removesuffix(tail).rstrip(filler)
        count = len(payload) - len(tail) - len(head)
        if payload.endswith(tail) and count > 1_000:
            return {"repeat": [head.decode(), filler.decode(), count, tail.decode()]}
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}


def write(directory: Path, entries: Iterable[Entry]) -> None:
    """Write one story."""
    directory.mkdir(parents=True)
    with (directory / "events.jsonl").open("w") as file:
        for seq, at_ms, subject, payload in entries:
            file.write(json.dumps({"seq": seq, "at_ms": at_ms, "subject": subject, **stored(payload)}) + "\n")
    state = fold(directory)
    (directory / "expect.json").write_text(json.dumps({"digest": digest(state), **summary(state)}, indent=1) + "\n")


def main() -> None:
    """Add the stories that are missing."""
    for name, make in STORIES.items():
        if not (LOGS / name).exists():
            write(LOGS / name, make())
            print("made", name)


if __name__ == "__main__":
    main()
