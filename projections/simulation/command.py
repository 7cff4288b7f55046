"""`eventsched evaluate …`: recorded workloads through policies, measured as published."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from cyclopts import Parameter
from rich import box
from rich.table import Table

from eventsched.cli.common import Output, print_json
from eventsched.cli.tables import show
from eventsched.errors import InvalidSpec
from eventsched.events import NodeJoined
from eventsched.garbage import collect_rarely
from eventsched.projections.simulation.engine import parse_policy
from eventsched.projections.simulation.placement import Inflation, Outcome, Summary, summarise
from eventsched.projections.simulation.readers.openb import Pod, read_nodes, read_pods
from eventsched.projections.simulation.readers.source import Source
from eventsched.projections.simulation.simulating import tell

FIRST_SEED = 42
DEFAULT = ("fgd", "best-fit", "first-fit", "packing", "dot-product", "random")


def placement(
    *,
    nodes: Annotated[Path, Parameter(help="nodes, as openb CSV, gzipped or not")],
    pods: Annotated[Path, Parameter(help="jobs, as openb CSV, gzipped or not")],
    policy: Annotated[
        list[str] | None, Parameter(help="a policy, or stages as in score=fgd:3,spread:1; repeatable")
    ] = None,
    seeds: Annotated[int, Parameter(help="so many orders of arrival; the mean is shown")] = 10,
    workers: Annotated[int, Parameter(help="processes; 0 = one for each core")] = 0,
    skip_bad_rows: Annotated[bool, Parameter(help="leave out faulty rows and go on")] = False,
    output: Output = "table",
) -> None:
    """How much of all GPUs each policy fills before it must refuse: the published inflation protocol.

    The jobs of the file, and drawn ones, arrive in random order until they ask for 130 % of all GPUs; none ends.
    """
    if seeds < 1:
        raise InvalidSpec(f"--seeds: {seeds} is below 1")
    policies = list(dict.fromkeys(policy or DEFAULT))
    for text in policies:
        parse_policy(text)
    _, _, notes = _read(nodes, pods, skip_bad_rows)  # mistakes in the files show before anything starts
    tell(notes)
    tasks = [
        Task(nodes, pods, text, seed, skip_bad_rows)
        for text in policies
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
    ]
    found = outcomes(tasks, workers or os.cpu_count() or 1)
    summaries = {
        text: summarise([one for task, one in zip(tasks, found, strict=True) if task.policy == text])
        for text in policies
    }
    if output == "json":
        print_json({text: msgspec.to_builtins(one) for text, one in summaries.items()})
    else:
        show(_table(summaries))


class Task(NamedTuple):
    """One run of the protocol: on these files, under this policy. skip: leave out faulty rows."""

    nodes: Path
    pods: Path
    policy: str
    seed: int
    skip: bool = False


def outcomes(tasks: list[Task], workers: int) -> list[Outcome]:
    """All runs, several at a time."""
    if workers == 1 or len(tasks) == 1:
        return [run(task) for task in tasks]
    with ProcessPoolExecutor(min(workers, len(tasks)), get_context("forkserver"), collect_rarely) as pool:
        return list(pool.map(run, tasks))


def run(task: Task) -> Outcome:
    """One run of the protocol."""
    nodes, pods, _ = _read(task.nodes, task.pods, task.skip)
    choice = parse_policy(task.policy)
    return Inflation(nodes, pods, choice.name, choice.params).run(task.seed)


def _read(nodes: Path, pods: Path, skip: bool) -> tuple[dict[str, NodeJoined], list[Pod], list[str]]:
    """Nodes and pods of two files, and what was left out."""
    first, second = Source(nodes, skip=skip), Source(pods, skip=skip)
    return read_nodes(first), read_pods(second), first.notes + second.notes


def _table(summaries: dict[str, Summary]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="GPUs in percent of all", title_justify="left")
    table.add_column("policy")
    for name in ("allocated", "±", "fragmented at 100 %", "jobs placed", "of"):
        table.add_column(name, justify="right")
    for name, one in sorted(summaries.items(), key=lambda item: -item[1].allocation_mean):
        table.add_row(
            name,
            f"{one.allocation_mean:.2f}",
            f"{one.allocation_std:.2f}",
            f"{one.fragmentation_100:.2f}",
            f"{one.placed_mean:.0f}",
            f"{one.arrived_mean:.0f}",
        )
    return table
