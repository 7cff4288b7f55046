"""What is kept between decisions changes none: over a real trace's arrivals, with departures between them."""

from __future__ import annotations

import hashlib
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from msgspec import json

from eventsched.events import PolicySet, RunAssigned, RunEnded
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.scheduling import ranking
from eventsched.projections.scheduling.decide import Proposed, decide
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.simulation.readers.openb import Pod, read_nodes, read_pods
from eventsched.projections.simulation.readers.source import Source
from eventsched.recorded import Recorded
from eventsched.resources import Resources
from eventsched.spec import JobSpec
from eventsched.wire import Event

from ..support import Ledger

DATA = Path(__file__).parents[1] / "data/openb"
POLICIES = ["best-fit", "fgd", "packing", "cost-aware", "spread", "dot-product", "random", "first-fit"]


class _Story:
    """A small cluster of the trace's nodes; every round is decided by a kept planner and by a fresh one."""

    def __init__(self, policy: str, pods: list[Pod], seed: int) -> None:
        ledger = Ledger()
        ledger.lead()
        ledger.put("ev.admin.policy_set", PolicySet(name=policy))
        self.state, self._seq, self._dice = ledger.state, ledger.state.seq, random.Random(seed)
        self._pods, self.digest = pods, hashlib.blake2b(digest_size=8)
        for name, joined in islice(read_nodes(Source(DATA / "openb_node_list_gpu_node.csv.gz")).items(), 300, 360):
            self.put(f"ev.node.{name}", joined)
        self._planner, self.placed = Planner(self.state), 0
        self.rounds()

    def put(self, subject: str, event: Event) -> None:
        self._seq += 1
        evolve(self.state, Recorded(self._seq, self._seq, subject, event))

    def rounds(self) -> None:
        while True:
            kept = decide(self.state, self.state.clock_ms, self._planner)
            assert _bytes(kept) == _bytes(decide(self.state, self.state.clock_ms)), "a kept planner decides otherwise"
            if not kept:
                return
            self.digest.update(_bytes(kept))
            for one in kept:
                self.placed += isinstance(one.event, RunAssigned)
                self.put(one.subject, one.event)

    def step(self, index: int) -> None:
        for number in range(self._dice.randrange(1, 40)):
            asked = self._dice.choice(self._pods).resources
            fields = {"max_per_node": 2} if number % 17 == 0 else {}
            spec = JobSpec(driver="fake", resources=asked, anti_affinity="x" * bool(fields), **fields)  # type: ignore[arg-type]
            self.put(f"ev.job.t.j{index}-{number}.submitted", spec)
        runs = sorted(self.state.runs)
        for seq in self._dice.sample(runs, min(len(runs), self._dice.randrange(30))):
            self.put(f"ev.run.{self.state.runs[seq].node}", RunEnded(run=seq, outcome="exited", exit_code=0))
        self.rounds()


def _bytes(proposed: list[Proposed]) -> bytes:
    return b"\n".join(one.subject.encode() + json.encode(one.event) for one in proposed)


@pytest.mark.parametrize("policy", POLICIES)
def test_kept_rankings_decide_as_fresh_ones(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = read_pods(Source(DATA / "openb_pod_list_gpuspec33.csv.gz"))
    digests = []
    # all are kept, or few; changes are looked at one by one, as arrays, or together with all other rows
    for kept, few, many in ((1 << 24, 48, 2), (1 << 24, 0, 0), (0, 64, 0), (0, 0, 10**6)):
        monkeypatch.setattr(ranking, "CELLS_MAX", kept)
        monkeypatch.setattr(ranking, "FEW", few)
        monkeypatch.setattr(ranking, "MANY", many)
        story = _Story(policy, pods, seed=3)
        for index in range(14):
            story.step(index)
        assert story.placed > 100
        digests.append(story.digest.hexdigest())
    assert len(dict.fromkeys(digests)) == 1


def test_a_change_log_that_ran_over_is_not_trusted() -> None:
    ledger = Ledger()
    ledger.join("n1", cpus=1)
    ledger.join("n2", cpus=2)
    fleet = Fleet(ledger.state)
    diary, then = fleet.diary, fleet.diary.now
    for _ in range(diary.size + 1):
        fleet._changed(0)
    assert not diary.reaches(then)
    assert diary.since(diary.now - 1).tolist() == [0]


def test_a_class_without_room_is_not_looked_at_until_a_node_has_room() -> None:
    ledger = Ledger()
    ledger.lead()
    for name in ("n1", "n2"):
        ledger.join(name, cpus=4)
    ledger.settle()
    for index in range(8):
        ledger.submit(f"run{index}")
    ledger.settle()
    for index in range(300):
        ledger.submit(f"j{index}", JobSpec(driver="fake", resources=Resources(cpu_millis=1000 + index)))
    ledger.settle()
    planner = ledger.planner
    assert planner is not None
    assert (len(planner.queues), len(planner.open)) == (300, 0), "nothing is looked at in vain"
    ledger.ended(min(ledger.state.runs))
    planner.sync(ledger.state)
    assert [alike.need.cpu_millis for alike in planner.open] == [1000], "only who fits into what was freed"
    ledger.settle()
    assert (len(planner.open), ledger.job("j0").state, len(planner.queues)) == (0, "assigned", 299)
    ledger.join("n3", cpus=4)
    planner.sync(ledger.state)
    assert len(planner.open) == 299, "a new node is room for anybody"
    ledger.settle()
    assert not planner.open


def test_a_round_that_is_never_recorded_leaves_no_trace() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("n1", cpus=4, gpus=("A100",) * 2)
    ledger.settle()
    planner = Planner(ledger.state)
    for index in range(3):
        ledger.submit(f"j{index}", JobSpec(driver="fake", resources=Resources(gpu_millis=600)))
    first = _bytes(decide(ledger.state, 5_000_000, planner))
    assert _bytes(decide(ledger.state, 5_000_000, planner)) == first
    planner.sync(ledger.state)
    fresh = Fleet(ledger.state)
    assert np.array_equal(planner.fleet.room, fresh.room)
    assert planner.fleet.levels == fresh.levels
    assert np.array_equal(planner.fleet.left, fresh.left)


def test_a_state_without_a_planner_is_decided_alike() -> None:
    state = ClusterState()
    assert decide(state, 0) == decide(state, 0, Planner(state)) == []
