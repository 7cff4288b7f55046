"""Published results held against ours: recorded workloads played again, and what has to come out.

openb: the inflation protocol of the FGD study (see `placement`). Batsim: its `medium` workload, whose
schedules under EASY and conservative backfilling are published. Philly: two days of it, without a published
counterpart, as a comparison of orders.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from msgspec import Struct

from eventsched.errors import InvalidSpec
from eventsched.projections.simulation.engine import Simulation, parse_policy
from eventsched.projections.simulation.metrics import Metrics, measure
from eventsched.projections.simulation.placement import Inflation, Outcome, Summary, summarise
from eventsched.projections.simulation.progress import Progress
from eventsched.projections.simulation.readers.openb import read_nodes, read_pods
from eventsched.projections.simulation.readers.source import Source
from eventsched.projections.simulation.reading import read_workload

FIRST_SEED = 42
FULL_SEEDS = 10
"""With fewer, a mean may be further off."""
LOOSE = 0.5
OTHERS = (
    "cpu050", "cpu100", "cpu200", "gpushare40", "gpushare100", "gpuspec10", "gpuspec33", "multigpu20", "multigpu50",
)  # fmt: skip
WORKLOADS = ("default", *OTHERS)
OPENB = ("fgd", "first-fit", "packing", "best-fit", "dot-product", "random")
OPENB_OTHERS = ("fgd", "best-fit")
BATSIM = ("backfill", "backfill-conservative")
PHILLY = ("fifo", "srsf", "drf", "best-fit", "fgd", "backfill")
PHILLY_NODES = 24

THEIR_NAMES = {
    "fgd": "06-FGD", "packing": "04-GpuPacking", "best-fit": "05-BestFit", "dot-product": "02-DotProd",
    "random": "01-Random",
}  # fmt: skip
THEIR_FRAGMENTS = {"fgd": 4.73, "packing": 8.13, "best-fit": 7.06, "dot-product": 9.30, "random": 13.49}
"""Percent of all GPUs fragmented when as much was asked for as there is, on the default workload."""
THEIR_MAKESPAN_S = 16_088.51
THEIR_WAIT_S = {"backfill": 9.516, "backfill-conservative": 9.852}

WANTED: dict[str, tuple[float, float | None]] = {
    "fgd": (95.2, None), "best-fit": (92.7, 93.5), "dot-product": (90.4, 91.2), "random": (87.1, 87.9),
    "first-fit": (94.2, None),
}  # fmt: skip
"""Percent of all GPUs allocated on the default workload: at least, at most."""
FRAGMENTED = 5.0
"""Percent of all GPUs FGD may leave fragmented there, when as much was asked for as there is."""
BELOW_THEIRS = 0.5
"""On every other workload FGD may fill so many percent less than published."""


class Filled(Struct, frozen=True):
    """One policy on one openb workload: ours, and as published, if it is. Percent of all GPUs."""

    ours: Summary
    published_mean: float | None = None
    published_std: float | None = None
    published_fragmentation_100: float | None = None


class Claim(Struct, frozen=True):
    """Something that has to come out: between `least` and `most`, where they are given."""

    what: str
    measured: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it did."""
        return (self.least is None or self.measured >= self.least) and (self.most is None or self.measured <= self.most)


class Results(Struct, frozen=True):
    """Everything that came out. batsim, philly: metrics by policy."""

    seeds: int
    openb: dict[str, dict[str, Filled]]
    batsim: dict[str, Metrics]
    philly: dict[str, Metrics]
    claims: list[Claim]


def play(data: Path, workloads: Iterable[str], seeds: int, workers: int, progress: Progress | None = None) -> Results:
    """All experiments, several at a time. data: the folder of the traces; raises InvalidSpec if one is missing."""
    names = [name for name in WORKLOADS if name in tuple(workloads)]
    check(data, names)
    orders = range(FIRST_SEED, FIRST_SEED + seeds)
    with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
        philly = {policy: pool.submit(play_philly, data, policy) for policy in PHILLY}
        batsim = {policy: pool.submit(play_batsim, data, policy) for policy in BATSIM}
        openb = {
            (name, policy): [pool.submit(fill, data, name, policy, seed) for seed in orders]
            for name in names
            for policy in policies_of(name)
        }
        running: list[Future[Any]] = [*philly.values(), *batsim.values()]
        running += [one for row in openb.values() for one in row]
        for ended, _ in enumerate(as_completed(running), 1):
            if progress is not None:
                progress("runs", ended, len(running))
    outcomes = {key: [one.result() for one in runs] for key, runs in openb.items()}
    waited = {policy: one.result() for policy, one in batsim.items()}
    ordered = {policy: one.result() for policy, one in philly.items()}
    return results(data, seeds, outcomes, waited, ordered)


def results(
    data: Path,
    seeds: int,
    outcomes: Mapping[tuple[str, str], list[Outcome]],
    batsim: dict[str, Metrics],
    philly: dict[str, Metrics],
) -> Results:
    """Outcomes by openb workload and policy, held against what is published."""
    theirs, openb = published(data), dict[str, dict[str, Filled]]()
    for (workload, policy), runs in outcomes.items():
        openb.setdefault(workload, {})[policy] = _filled(theirs, workload, policy, runs)
    return Results(seeds, openb, batsim, philly, [*_placed(seeds, openb), *_waited(batsim, philly)])


def policies_of(workload: str) -> tuple[str, ...]:
    """Which policies are tried on one of openb's workloads."""
    return OPENB if workload == "default" else OPENB_OTHERS


def check(data: Path, workloads: list[str]) -> None:
    """The traces are all there; raises InvalidSpec."""
    others = (_published_file(data), _batsim_file(data), _philly_file(data))
    for path in (openb_nodes(data), *(openb_pods(data, name) for name in workloads), *others):
        if not path.is_file():
            raise InvalidSpec(f"--data: {path} is not there", "the traces are in tests/data of the source tree")


def openb_nodes(data: Path) -> Path:
    """Openb's nodes with GPUs."""
    return data / "openb/openb_node_list_gpu_node.csv.gz"


def openb_pods(data: Path, workload: str) -> Path:
    """One of openb's lists of pods."""
    return data / f"openb/openb_pod_list_{workload}.csv.gz"


def _published_file(data: Path) -> Path:
    return data / "openb/published_alloc.csv.gz"


def _batsim_file(data: Path) -> Path:
    return data / "batsim-medium/medium_late.json.gz"


def _philly_file(data: Path) -> Path:
    return data / "philly/philly-2017-10-02.csv.gz"


# ---- one run each, in processes of their own --------------------------------------------------------


def fill(data: Path, workload: str, policy: str, seed: int) -> Outcome:
    """One run of the inflation protocol."""
    choice = parse_policy(policy)
    pods = read_pods(Source(openb_pods(data, workload)))
    return Inflation(read_nodes(Source(openb_nodes(data))), pods, choice.name, choice.params).run(seed)


def play_batsim(data: Path, policy: str) -> Metrics:
    """801 rigid jobs on 32 machines."""
    return measure(Simulation(read_workload(_batsim_file(data), 32), policy).run())


def play_philly(data: Path, policy: str) -> Metrics:
    """1,650 jobs of seven virtual clusters on 24 nodes of 8 GPUs."""
    return measure(Simulation(read_workload(_philly_file(data), PHILLY_NODES), policy).run())


# ---- what has to come out ----------------------------------------------------------------------------


def published(data: Path) -> dict[tuple[str, str], list[float]]:
    """Percent of all GPUs allocated when 130 % had been asked for, of each seed: by workload and their policy."""
    found: dict[tuple[str, str], list[float]] = {}
    with gzip.open(_published_file(data), "rt") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["workload"], row["policy"]), []).append(float(row["130"]))
    return found


def _filled(theirs: dict[tuple[str, str], list[float]], workload: str, policy: str, outcomes: list[Outcome]) -> Filled:
    values = theirs.get((workload, THEIR_NAMES.get(policy, "")), [])
    ours = summarise(outcomes)
    if not values:
        return Filled(ours)
    fragments = THEIR_FRAGMENTS[policy] if workload == "default" else None
    return Filled(ours, round(fmean(values), 3), round(stdev(values), 3), fragments)


def _placed(seeds: int, openb: dict[str, dict[str, Filled]]) -> Iterable[Claim]:
    loose = 0.0 if seeds >= FULL_SEEDS else LOOSE
    for workload, policies in openb.items():
        wanted = WANTED
        if workload != "default":
            wanted = {"fgd": ((policies["fgd"].published_mean or 0.0) - BELOW_THEIRS, None)}
        for policy, (least, most) in wanted.items():
            what, measured = f"openb {workload}, {policy}: GPUs allocated, %", policies[policy].ours.allocation_mean
            yield Claim(what, measured, round(least - loose, 3), None if most is None else most + loose)
    if "default" in openb:
        fragments = openb["default"]["fgd"].ours.fragmentation_100
        yield Claim("openb default, fgd: fragmented at 100 %, %", fragments, None, FRAGMENTED + loose)


def _waited(batsim: dict[str, Metrics], philly: dict[str, Metrics]) -> Iterable[Claim]:
    for policy, metrics in batsim.items():
        makespan_s = round(metrics["makespan_s"], 2)
        yield Claim(f"Batsim medium, {policy}: makespan, s", makespan_s, THEIR_MAKESPAN_S, THEIR_MAKESPAN_S)
        yield Claim(f"Batsim medium, {policy}: mean wait, s", metrics["wait_mean_s"], None, THEIR_WAIT_S[policy])
    others = sum(metrics["submitted"] - metrics["succeeded"] for metrics in philly.values())
    yield Claim("Philly, all policies: jobs that did not succeed", others, None, 0)
