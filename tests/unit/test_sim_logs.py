"""Logs of simulations: they fold and decide as real ones do, and what is wrong with a file is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventsched.errors import EventschedError, InvalidSpec, UpgradeNeeded
from eventsched.events import ClusterCreated, DigestRecorded, FoldRaised, LeaderClaimed
from eventsched.projections.cluster.digest import digest
from eventsched.projections.simulation.engine import START_MS, Simulation
from eventsched.projections.simulation.simlog import LogFile, read_log, verify
from eventsched.projections.simulation.workload import Shape, Workload, make_nodes
from eventsched.recorded import Recorded
from eventsched.wire import Event

from .test_simulation import job, philly

BEGINNING: list[tuple[str, Event]] = [
    ("ev.admin.cluster_created", ClusterCreated(cluster_id="c", digest_every=2)),
    ("ev.leader", LeaderClaimed(leader="s", nonce="s")),
]


def written(directory: Path, events: list[tuple[str, Event]]) -> Path:
    """A log of these events."""
    path = directory / "log.jsonl"
    sink = LogFile(path)
    for seq, (subject, event) in enumerate(events, 1):
        sink(Recorded(seq, START_MS, subject, event))
    sink.close()
    return path


@pytest.mark.parametrize("policy", ["best-fit", "backfill", "drf", "order=fifo,preempt=1"])
def test_a_simulated_log_is_a_real_log(tmp_path: Path, policy: str) -> None:
    path = tmp_path / "log.jsonl"
    sink = LogFile(path)
    simulation = Simulation(philly(80), policy, sink=sink)
    simulation.run()
    sink.close()
    found = verify(path)
    assert (found.digest, found.events) == (digest(simulation.state), simulation.state.seq)
    assert found.differing == []
    assert found.rounds == simulation.state.rounds > 10
    assert found.anomalies == {}


def test_verifying_finds_a_round_that_was_tampered_with(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    sink = LogFile(path)
    simulation = Simulation(philly(40), "best-fit", sink=sink)
    simulation.run()
    sink.close()
    lines = path.read_text().splitlines()
    index = next(index for index, line in enumerate(lines) if "run.assigned" in line)
    lines[index] = lines[index].replace('\\"feasible\\":', '\\"feasible\\":1')
    path.write_text("\n".join(lines))
    assert len(verify(path).differing) == 1
    path.write_text("\n".join(lines[:5] + lines[6:]))
    with pytest.raises(InvalidSpec, match="sequence 7, where 6 belongs"):
        list(read_log(path))


def test_a_recorded_digest_that_is_not_met_is_an_error(tmp_path: Path) -> None:
    wrong = DigestRecorded(epoch=2, at_seq=2, digest="00")
    path = written(tmp_path, [*BEGINNING, ("ev.decide.digest_recorded", wrong)])
    with pytest.raises(EventschedError, match=r"the digest at sequence 2 is .*, the log records 00"):
        verify(path)


def test_a_log_of_a_newer_build_is_not_half_verified(tmp_path: Path) -> None:
    path = written(tmp_path, [*BEGINNING, ("ev.decide.fold_raised", FoldRaised(epoch=2, fold_version=999))])
    with pytest.raises(UpgradeNeeded, match="sequence 3 needs a newer"):
        verify(path)


@pytest.mark.parametrize(
    "line",
    [
        '{"seq": 1, "at_ms": 99999999999999999999999, "subject": "s", "payload": ""}',
        '{"seq": 1, "at_ms": 9007199254740993, "subject": "s", "payload": ""}',
        '{"seq": 1, "at_ms": 1, "subject": "s", "payload": "", "more": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"seq": 1, "at_ms": 1, "subject": "s", "payload": "\\ud800"}',
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InvalidSpec, match="line 1: "):
        verify(path)


def test_a_log_may_hold_any_text(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    sink = LogFile(path)
    named = job("a", labels={"note": "a\u2028b\x85"})
    Simulation(Workload([named], make_nodes(1, Shape())), "fifo", sink=sink).run()
    sink.close()
    assert verify(path).differing == []
