"""bench decide: how fast one job after the other gets its node, in a cluster that is nearly full.

The chooser alone, as a round uses it, without events or a log: each step one job ends and another is
placed (quota, filters, score, runner-up, commit). Nodes and jobs are drawn from a fixed mix, shaped
after a published GPU cluster: 150 classes of jobs, most of which share GPUs.
"""

from __future__ import annotations

import os
import random
import time
from statistics import median
from typing import Annotated

from cyclopts import Parameter
from msgspec import Struct

from eventsched import subjects
from eventsched.bench import percentile
from eventsched.cli.common import BIG, number, print_json
from eventsched.errors import InvalidSpec
from eventsched.events import ClusterCreated, LeaderClaimed, NodeJoined, PolicySet
from eventsched.garbage import collect_rarely
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.compiled.finding import is_used
from eventsched.projections.scheduling.choosing import Chooser, Placement
from eventsched.projections.scheduling.decide import decide
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import need_of
from eventsched.projections.scheduling.planner import Class, Planner
from eventsched.projections.simulation.engine import parse_policy
from eventsched.recorded import Recorded
from eventsched.resources import Capacity, Gpu, Resources
from eventsched.spec import JobSpec
from eventsched.wire import Event

GIB = 1 << 30
SHAPES = (  # cores, GiB, GPUs, model, of a hundred nodes
    (64, 256, 2, "P100", 11),
    (96, 384, 2, "T4", 35),
    (96, 512, 8, "G2", 30),
    (128, 768, 8, "G3", 10),
    (128, 768, 4, "V100", 10),
    (96, 512, 8, "A10", 4),
)
KINDS = ((0, 0, 13), (0, 1, 38), (1, 0, 39), (2, 0, 2), (4, 0, 2), (8, 0, 6))
"""Whole GPUs, 1 = a share, of a hundred jobs."""
CLASSES = 150
ROUND = 1_000
WARM_UP = 2_000
SLICES = 20
REFUSED_MAX = 200


class Running(Struct, frozen=True):
    """A job that runs: what to give back."""

    row: int
    job: Job
    devices: tuple[int, ...]


class World:
    """A cluster in memory, filled by the policy that is measured."""

    def __init__(self, nodes: int, policy: str, load: int, seed: int) -> None:
        self.dice = random.Random(seed)
        self.state = ClusterState()
        self._seq = 0
        chosen = parse_policy(policy)
        self._put("ev.admin.cluster_created", ClusterCreated(cluster_id="bench"))
        self._put(subjects.LEADER, LeaderClaimed(leader="bench", nonce="bench"))
        self._put("ev.admin.policy_set", PolicySet(name=chosen.name, params=chosen.params))
        self._classes = _classes(self.dice)
        self._learn()
        for index in range(nodes):
            self._join(f"n{index:06}")
        self.planner = Planner(self.state)
        self.running: list[Running] = []
        self.capacity = int(self.planner.fleet.gpu_devices.sum()) * WHOLE
        self.taken = 0
        self.target = self.capacity * load // 100
        self._jobs = 0
        self.chooser = self._new_chooser()
        refused = 0
        while self.taken < self.target and refused < REFUSED_MAX:
            refused = refused + 1 if self.place() is None else 0

    def _put(self, subject: str, event: Event) -> None:
        self._seq += 1
        evolve(self.state, Recorded(self._seq, 1, subject, event))

    def _join(self, name: str) -> None:
        cores, memory, count, model, _ = self.dice.choices(SHAPES, [shape[-1] for shape in SHAPES])[0]
        gpus = tuple(Gpu(f"{name}-{index}", model) for index in range(count))
        capacity = Capacity(cores * 1000, memory * GIB, gpus)
        self._put(subjects.node(name), NodeJoined(machine_id=name, boot_id="1", capacity=capacity, drivers=("fake",)))

    def _learn(self) -> None:
        """Let the cluster see some jobs, as policies learn what is typical from them."""
        for index in range(4_000):
            spec = JobSpec(driver="fake", resources=self._draw(), hold=True)
            self._put(subjects.job("bench", f"before-{index}", "submitted"), spec)
        planner = Planner(self.state)
        while proposed := decide(self.state, 1, planner):
            for one in proposed:
                self._put(one.subject, one.event)

    def _draw(self) -> Resources:
        weights, classes = self._classes
        return self.dice.choices(classes, weights)[0]

    def _new_chooser(self) -> Chooser:
        planner = self.planner
        return Chooser(self.state, planner.fleet, planner.usage, planner.policy, 0, planner.rankings)

    def next_job(self) -> tuple[Job, Class]:
        """A job that has just come."""
        self._jobs += 1
        if self._jobs % ROUND == 0:
            self.chooser = self._new_chooser()
        job = Job(f"bench/j{self._jobs}", self._jobs, JobSpec(driver="fake", resources=self._draw()), 0)
        return job, Class(need_of(job, self.planner.policy.looks), "bench", ())

    def place(self) -> Placement | None:
        """Another job comes and is placed; it runs from now on."""
        job, alike = self.next_job()
        return self.start(self.chooser.choose(job, -1, alike))

    def start(self, placed: Placement | None) -> Placement | None:
        """Note what was placed."""
        if placed is not None:
            fleet = self.planner.fleet
            row = fleet.row[placed.node]
            devices = tuple(fleet.uuids[row].index(uuid) for uuid in placed.gpus)
            self.running.append(Running(row, placed.job, devices))
            self.taken += placed.need.gpu_millis or placed.need.gpus * WHOLE
        return placed

    def pick_ending(self) -> Running:
        """A running job that ends now, any. Raises InvalidSpec when there is none."""
        if not self.running:
            raise InvalidSpec("--nodes, --load: so little that no job runs", "give more nodes, or a higher load")
        index = self.dice.randrange(len(self.running))
        self.running[index], self.running[-1] = self.running[-1], self.running[index]
        one = self.running.pop()
        asked = one.job.spec.resources
        self.taken -= asked.gpu_millis or asked.gpus * WHOLE
        return one


def _classes(dice: random.Random) -> tuple[list[int], list[Resources]]:
    """Requests, each with its weight: a few are frequent, many are rare."""
    weights, classes = [], []
    for index in range(CLASSES):
        gpus, share, weight = (
            dice.choices(KINDS, [kind[-1] for kind in KINDS])[0] if index >= len(KINDS) else KINDS[index]
        )
        cores = dice.choice((2, 4, 6, 8, 10, 12)) * max(1, gpus)
        asked = Resources(
            cpu_millis=cores * 1000 if gpus or share else dice.choice((1000, 4000, 8000, 16000, 32000)),
            memory_bytes=cores * dice.choice((2, 4)) * GIB,
            gpus=gpus,
            gpu_millis=dice.choice((100, 200, 250, 300, 400, 460, 500, 700, 810)) if share else 0,
        )
        weights.append(weight * 100 // (1 + index // len(KINDS)) + 1)
        classes.append(asked)
    return weights, classes


async def deciding(
    *,
    nodes: Annotated[int, number(1, BIG), Parameter(help="nodes in the cluster")] = 10_000,
    policy: Annotated[str, Parameter(help="the policy that decides")] = "best-fit",
    load: Annotated[int, number(1, 100), Parameter(help="percent of all GPUs in use")] = 85,
    steps: Annotated[int, number(1, BIG), Parameter(help="decisions to measure")] = 20_000,
    seed: Annotated[int, Parameter(help="of the draws")] = 1,
) -> None:
    """Place jobs one by one in a nearly full cluster, without a log: the pure decision."""
    print_json(measure(nodes, policy, load, steps, seed))


def measure(nodes: int, policy: str, load: int, steps: int, seed: int = 1) -> dict[str, object]:
    """The benchmark's answer. A step is one job's end, and one decision with its commit; the latter two are timed.

    Time is this thread's own, and the rate is the median over slices of the steps: somebody else's moment on the core
    is no decision.
    """
    world = World(nodes, policy, load, seed)
    fleet = world.planner.fleet
    clock = time.thread_time
    spent: list[float] = []
    placed = 0
    collect_rarely()
    for step in range(WARM_UP + steps):
        while world.taken > world.target:
            ended = world.pick_ending()
            fleet.take(ended.row, need_of(ended.job), ended.devices, sign=-1)
        ended = world.pick_ending()
        job, alike = world.next_job()
        fleet.take(ended.row, need_of(ended.job), ended.devices, sign=-1)
        began = clock()
        one = world.chooser.choose(job, -1, alike)
        took = clock() - began
        world.start(one)
        if step >= WARM_UP:
            spent.append(took)
            placed += one is not None
    return {
        "decisions_per_s": round(median(_rates(spent))),
        "p50_us": round(percentile(spent, 50) * 1e6, 1),
        "p99_us": round(percentile(spent, 99) * 1e6, 1),
        "nodes": nodes,
        "policy": policy,
        "load_percent": load,
        "gpus_in_use_percent": round(100 * world.taken / max(1, world.capacity), 1),
        "running": len(world.running),
        "placed_percent": round(100 * placed / steps, 1),
        "compiled": is_used(),
        "cores": os.cpu_count(),
    }


def _rates(spent: list[float]) -> list[float]:
    size = max(1, len(spent) // SLICES)
    return [size / sum(spent[start : start + size]) for start in range(0, size * (len(spent) // size), size)]
