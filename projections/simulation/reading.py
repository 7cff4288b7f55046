"""Readers of workloads and of nodes: one file a format, told apart by what stands in the file.

A reader says whether a file looks like its format, and turns it into `SimJob`s or `SimNode`s. To add
one, write its file in `readers` and add a line to `JOBS` or `NODES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from eventsched.errors import InvalidSpec
from eventsched.projections.simulation.readers.source import BadField, Source, checked
from eventsched.projections.simulation.workload import (
    ENDLESS_CORES_MILLIS,
    Shape,
    SimJob,
    SimNode,
    Workload,
    make_nodes,
)

READERS = "eventsched.projections.simulation.readers"
_ONE_CORE = Shape()
_QUOTA = Shape(ENDLESS_CORES_MILLIS, devices=("A100",) * 4 + ("H100",) * 2)
_V100S = Shape(ENDLESS_CORES_MILLIS, gpu_model="V100", gpus=1)


@dataclass(frozen=True, slots=True)
class Format:
    """One format. shape: of a node, where `--nodes` is only a number. module: holds `looks_like(source)`
    and `read(source)`."""

    name: str
    module: str
    summary: str
    shape: Shape = _ONE_CORE

    def _part(self, name: str) -> Callable[[Source], Any]:
        part: Callable[[Source], Any] = getattr(import_module(f"{READERS}.{self.module}"), name)
        return part

    def looks_like(self, source: Source) -> bool:
        """Whether the file is in this format, as far as its beginning tells."""
        return bool(self._part("looks_like")(source))

    def read(self, source: Source) -> Iterable[Any]:
        """What is in it."""
        found: Iterable[Any] = self._part("read")(source)
        return found


JOBS = (
    Format("ndjson", "ndjson_jobs", "own: a JobSpec a line, with submit_ms and duration_ms", Shape(8_000)),
    Format("s0", "s0_jobs", "jobs.json of the cost-aware scheduler", Shape(64_000, 256 << 30, "A100", 4)),
    Format("quota", "quota_jobs", "jobs of the quota-aware GPU scheduler (NDJSON, CSV)", _QUOTA),
    Format("batsim", "batsim", "Batsim workloads (JSON) with delay profiles"),
    Format("swf", "swf", "Standard Workload Format"),
    Format("openb", "openb_jobs", "openb pods with times (CSV)", Shape(128_000, 768 << 30, "G2", 8)),
    Format("philly", "philly", "extract of the Philly traces (CSV)", Shape(64_000, 0, "GPU", 8)),
    Format("chronus", "chronus", "Chronus traces with deadlines (CSV)", Shape(64_000, 0, "GPU", 8)),
    Format("tiresias", "tiresias", "Tiresias traces (CSV)", Shape(40_000, 256 << 30, "GPU", 4)),
    Format("shockwave", "shockwave", "Shockwave traces (12 columns)", _V100S),
    Format("gavel", "gavel", "Gavel traces (7 or 10 columns), with measured throughputs", _V100S),
)
NODES = (
    Format("ndjson", "ndjson_nodes", "own: a node a line"),
    Format("s0", "s0_nodes", "nodes.json of the cost-aware scheduler"),
    Format("openb", "openb_nodes", "openb nodes (CSV)"),
    Format("tiresias", "tiresias_nodes", "shape of a cluster (CSV)"),
)


def find(source: Source, formats: tuple[Format, ...], name: str = "") -> Format:
    """The format of a file, by its name or by what stands in it; raises InvalidSpec."""
    known = ", ".join(one.name for one in formats)
    for one in formats:
        if one.name == name or (not name and one.looks_like(source)):
            return one
    if name:
        raise InvalidSpec(f"no format {name!r}", f"known: {known}")
    raise source.fatal("is in no format that is known", f"known: {known}; --format names one")


def read_nodes(path: Path, *, skip: bool = False) -> tuple[list[SimNode], list[str]]:
    """The nodes of a file, and what was left out."""
    source = Source(path, skip=skip)
    nodes: dict[str, SimNode] = {}
    for node in find(source, NODES).read(source):
        if node.node_id in nodes:
            source.bad(f"node {node.node_id}", "", "there are two nodes of this name")
            continue
        nodes[node.node_id] = node
    if not nodes:
        raise source.fatal("no node in it", "a simulation needs one")
    return list(nodes.values()), source.notes


def read_workload(
    jobs: Path,
    nodes: Path | int,
    *,
    shape: Shape | None = None,
    format_name: str = "",
    beside: Path | None = None,
    skip: bool = False,
) -> Workload:
    """Jobs and nodes from files. nodes: a file, or how many of a shape (that of the jobs' format by default).

    beside: a second file the jobs' format needs. skip: leave out faulty rows instead of stopping.
    """
    source = Source(jobs, skip=skip, beside=beside)
    chosen = find(source, JOBS, format_name)
    if isinstance(nodes, int):
        source.nodes = make_nodes(nodes, shape or chosen.shape)
    else:
        source.nodes, notes = read_nodes(nodes, skip=skip)
        source.notes.extend(notes)
    found: dict[tuple[str, str], SimJob] = {}
    for job in chosen.read(source):
        place = f"job {job.job_id}"
        try:
            checked(job)
        except BadField as fault:
            source.bad(place, fault.field, fault.text)
            continue
        if (job.tenant, job.job_id) in found:
            source.bad(place, "", "there are two jobs of this name")
            continue
        found[(job.tenant, job.job_id)] = job
    if not found:
        raise source.fatal("no job in it", "a simulation needs one")
    return Workload(sorted(found.values(), key=lambda job: job.submit_ms), source.nodes, source.notes)
