"""Fragmentation of a simulated cluster: idle parts of GPUs that the jobs of the workload could not use.

As published with FGD (Weng et al., USENIX ATC 2023): for one kind of job, all idle GPU thousandths of a
node where it does not fit for cpu, GPUs or model; else those on devices with less free than it takes. The
kinds are the most frequent of the workload, 95 % of it, those without GPUs included; their mean, weighted by
their numbers, is the node's. Memory is not looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

from eventsched.projections.cluster.demand import TYPICAL_PERCENT
from eventsched.projections.cluster.state import Node
from eventsched.projections.scheduling.fgd import Kind
from eventsched.projections.scheduling.layouts import WHOLE, gpu_names
from eventsched.projections.scheduling.needs import models_of
from eventsched.projections.simulation.workload import SimJob

KEPT_MAX = 100_000
Names = tuple[tuple[str, ...], ...]
"""The names of each device of a node."""


class Fragments:
    """What is typical, and answers that were found once.

    number: how many typical jobs there are: amounts are sums over all of them. 0: nobody asks for a GPU.
    """

    def __init__(self, jobs: Iterable[SimJob]) -> None:
        self.kinds = typical(jobs)
        with_gpus = any(kind.gpus or kind.gpu_millis for kind in self.kinds)
        self.number = sum(kind.number for kind in self.kinds) if with_gpus else 0
        self._cpus = sorted(dict.fromkeys(kind.cpu_millis for kind in self.kinds))
        self._names: dict[str, Names] = {}
        self._found: dict[tuple[Names, int, tuple[int, ...]], int] = {}

    def of(self, node: Node) -> int:
        """Idle thousandths of the node's GPUs that a typical job could not use, summed over all of these."""
        devices = node.capacity.gpus
        if not devices or not self.number:
            return 0
        names = self._names.get(node.node_id)
        if names is None or len(names) != len(devices):
            names = self._names[node.node_id] = tuple(gpu_names(gpu) for gpu in devices)
        busy, shares = node.gpu_runs, node.gpu_shares
        levels = [0 if gpu.uuid in busy else WHOLE - shares.get(gpu.uuid, 0) for gpu in devices]
        if names.count(names[0]) == len(names):
            levels.sort()
        key = (names, bisect_right(self._cpus, node.cpu_free_millis), tuple(levels))
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= KEPT_MAX:
                self._found.clear()
            found = self._found[key] = self._sum(node.cpu_free_millis, names, levels)
        return found

    def _sum(self, cpu_millis: int, names: Names, levels: list[int]) -> int:
        idle = sum(levels)
        return sum(kind.number * (idle - _usable(kind, cpu_millis, names, levels)) for kind in self.kinds)


def _usable(kind: Kind, cpu_millis: int, names: Names, levels: list[int]) -> int:
    """Of the idle parts, what a kind of job can use; all devices of a run are of one model."""
    if cpu_millis < kind.cpu_millis or not (kind.gpus or kind.gpu_millis):
        return 0
    usable = dict.fromkeys(range(len(levels)), 0)
    for model in kind.models or ("",):
        enough = [
            index for index, level in enumerate(levels) if level >= (kind.gpu_millis or WHOLE) and model in names[index]
        ]
        if len(enough) >= (kind.gpus or 1):
            usable.update((index, levels[index]) for index in enough)
    return sum(usable.values())


def typical(jobs: Iterable[SimJob]) -> list[Kind]:
    """The most frequent kinds that make up 95 % of the jobs; each member of an array counts."""
    counts: Counter[tuple[int, int, int, str]] = Counter()
    for job in jobs:
        asked = job.spec.resources
        model = asked.gpu_model.lower() if asked.gpus or asked.gpu_millis else ""
        counts[asked.cpu_millis, asked.gpus, asked.gpu_millis, model] += max(1, job.spec.array)
    found: list[Kind] = []
    covered, total = 0, counts.total()
    for (cpu, gpus, millis, model), number in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        if covered * 100 >= total * TYPICAL_PERCENT:
            break
        covered += number
        found.append(Kind(cpu, gpus, millis, models_of(model), number))
    return found
