"""Placement quality: how much of a cluster's GPUs a policy fills before it must refuse.

The published inflation protocol: the workload's pods and uniformly drawn further ones, until they ask
for 130 % of all GPUs; shuffled; placed one by one, none ever ends, and what does not fit is dropped.
Here every pod is a job that goes through `evolve` and `decide`, and nodes join by events, as live. The
cluster has seen the workload once before (held and aborted), as policies learn what is typical from it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from statistics import fmean, stdev

from msgspec import Struct

from eventsched import subjects
from eventsched.events import AbortRequested, ClusterCreated, LeaderClaimed, NodeJoined, PolicySet
from eventsched.projections.cluster.demand import TOTAL, TYPICAL_PERCENT
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.scheduling.decide import decide
from eventsched.projections.scheduling.fgd import Tables
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.simulation.readers.openb import Pod
from eventsched.recorded import Recorded
from eventsched.resources import Resources
from eventsched.spec import JobSpec
from eventsched.wire import Event

ARRIVED_PERCENT = 130
FRAGMENTATION_PERCENT = 100
TENANT = "openb"


class Outcome(Struct, frozen=True):
    """One run of the protocol, in percent of all GPUs.

    allocated: at the end; fragmented: idle but of no use to the average pod, when as much had
    been asked for as there is.
    """

    allocated: float
    fragmented: float
    placed: int
    arrived: int


class Summary(Struct, frozen=True):
    """A policy's outcomes over several seeds, in percent."""

    allocation_mean: float
    allocation_std: float
    fragmentation_100: float
    placed_mean: float
    arrived_mean: float
    seeds: int


def summarise(outcomes: list[Outcome]) -> Summary:
    """Mean and standard deviation."""
    return Summary(
        round(fmean(one.allocated for one in outcomes), 3),
        round(stdev([one.allocated for one in outcomes]), 3) if len(outcomes) > 1 else 0.0,
        round(fmean(one.fragmented for one in outcomes), 3),
        round(fmean(one.placed for one in outcomes), 1),
        round(fmean(one.arrived for one in outcomes), 1),
        len(outcomes),
    )


def gpu_millis(asked: Resources) -> int:
    """Thousandths of GPUs in a request."""
    return asked.gpu_millis or asked.gpus * WHOLE


def arrivals(pods: list[Pod], capacity_millis: int, seed: int) -> list[Resources]:
    """The pods and drawn ones, shuffled: together they ask for ARRIVED_PERCENT of the GPUs or just more."""
    dice = random.Random(seed)
    asked = [pod.resources for pod in pods]
    total = sum(gpu_millis(one) for one in asked)
    if not total:
        return asked
    while total * 100 < capacity_millis * ARRIVED_PERCENT:
        one = pods[dice.randrange(len(pods))].resources
        asked.append(one)
        total += gpu_millis(one)
    dice.shuffle(asked)
    return asked


class Inflation:
    """One run: a log in memory, folded and decided as it grows."""

    def __init__(self, nodes: dict[str, NodeJoined], pods: list[Pod], name: str, params: dict[str, int | str]) -> None:
        self.state = ClusterState()
        self._seq = 0
        self._pods = pods
        self._specs: dict[Resources, JobSpec] = {}
        self._put("ev.admin.cluster_created", ClusterCreated(cluster_id="inflation", finished_keep=1))
        self._put(subjects.LEADER, LeaderClaimed(leader="inflation", nonce="inflation"))
        self._planner = Planner(self.state)
        self._put("ev.admin.policy_set", PolicySet(name=name, params=params))
        self._teach()
        for node, joined in nodes.items():
            self._put(subjects.node(node), joined)
        self._settle()
        self.capacity = sum(len(node.capacity.gpus) for node in self.state.nodes.values()) * WHOLE

    def run(self, seed: int) -> Outcome:
        """Let the pods arrive in a shuffled order."""
        asked = arrivals(self._pods, self.capacity, seed)
        total, index = 0, 0
        while index < len(asked) and total * 100 < self.capacity * FRAGMENTATION_PERCENT:
            total += gpu_millis(asked[index])
            index += 1
        self._arrive(asked[:index], 0)
        fragmented = self._fragmented()
        self._arrive(asked[index:], index)
        return Outcome(self._percent(self._allocated()), fragmented, len(self.state.runs), len(asked))

    def _put(self, subject: str, event: Event) -> None:
        self._seq += 1
        evolve(self.state, Recorded(self._seq, self._seq, subject, event))

    def _settle(self) -> None:
        """Rounds until there is nothing more to decide."""
        while proposed := decide(self.state, self.state.clock_ms, self._planner):
            for one in proposed:
                self._put(one.subject, one.event)

    def _teach(self) -> None:
        for index, pod in enumerate(self._pods):
            spec = JobSpec(driver="fake", resources=pod.resources, hold=True)
            self._put(subjects.job(TENANT, f"before-{index}", "submitted"), spec)
        self._settle()
        for index in range(len(self._pods)):
            self._put(subjects.job(TENANT, f"before-{index}", "abort_requested"), AbortRequested())
        self._settle()

    def _arrive(self, asked: Iterable[Resources], first: int) -> None:
        for index, one in enumerate(asked, first):
            spec = self._specs.setdefault(one, JobSpec(driver="fake", resources=one))
            self._put(subjects.job(TENANT, f"pod-{index}", "submitted"), spec)
        self._settle()

    # ---- measures -----------------------------------------------------------------------------

    def _percent(self, millis: float) -> float:
        return 100.0 * millis / max(1, self.capacity)

    def _allocated(self) -> int:
        nodes = self.state.nodes.values()
        return sum(len(node.gpu_runs) * WHOLE + sum(node.gpu_shares.values()) for node in nodes)

    def _fragmented(self) -> float:
        """Idle GPU parts the average pod could not use where they are, pods without GPUs included."""
        typical, number = typical_pods(self._pods)
        fleet = Fleet(self.state)
        fleet.typical = typical
        tables = Tables(fleet)
        tables.sync(fleet)
        idle = int(fleet.gpu_millis.sum())
        return self._percent(idle - int(tables.usable.sum()) / max(1, number))


def typical_pods(pods: list[Pod]) -> tuple[dict[str, int], int]:
    """The most frequent kinds that make up 95 % of the pods: those with GPUs, and how many pods all of them are."""
    counts: dict[str, int] = {}
    for pod in pods:
        asked = pod.resources
        kind = f"{asked.cpu_millis}:{asked.gpus}:{asked.gpu_millis}:{asked.gpu_model.lower()}"
        counts[kind] = counts.get(kind, 0) + 1
    typical, covered = {TOTAL: 0}, 0
    for kind, number in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        if covered * 100 >= len(pods) * TYPICAL_PERCENT:
            break
        covered += number
        if ":0:0:" not in kind:
            typical[kind] = number
    return typical, covered
