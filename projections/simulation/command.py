"""`eventsched evaluate …`: recorded workloads through policies, measured as published."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich import box
from rich.table import Table

from eventsched.cli.common import Output, print_json
from eventsched.cli.tables import show
from eventsched.errors import InvalidSpec
from eventsched.projections.cluster.state import PolicyChoice
from eventsched.projections.scheduling.policies import parse, refuse
from eventsched.projections.simulation.placement import Inflation, Outcome, Summary, summarise
from eventsched.projections.simulation.readers.openb import read_nodes, read_pods

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
    output: Output = "table",
) -> None:
    """How much of all GPUs each policy fills before it must refuse: the published inflation protocol.

    The jobs of the file, and drawn ones, arrive in random order until they ask for 130 % of all GPUs; none ends.
    """
    if seeds < 1:
        raise InvalidSpec(f"--seeds: {seeds} is below 1")
    choices = {text: checked(text) for text in dict.fromkeys(policy or DEFAULT)}
    read_nodes(nodes), read_pods(pods)  # mistakes in the files show before anything starts
    tasks = [(nodes, pods, text, seed) for text in choices for seed in range(FIRST_SEED, FIRST_SEED + seeds)]
    found = outcomes(tasks, workers or os.cpu_count() or 1)
    summaries = {
        text: summarise([one for task, one in zip(tasks, found, strict=True) if task[2] == text]) for text in choices
    }
    if output == "json":
        print_json({text: msgspec.to_builtins(one) for text, one in summaries.items()})
    else:
        show(_table(summaries))


def checked(text: str) -> PolicyChoice:
    """A policy as it is written on the command line; InvalidSpec when there is none like it."""
    choice = parse(text)
    why = refuse(choice)
    if why:
        raise InvalidSpec(f"--policy {text}: {why}", "see `eventsched policy list`")
    return choice


Task = tuple[Path, Path, str, int]
"""Nodes, pods, policy, seed."""


def outcomes(tasks: list[Task], workers: int) -> list[Outcome]:
    """All runs, several at a time."""
    if workers == 1 or len(tasks) == 1:
        return [run(task) for task in tasks]
    with ProcessPoolExecutor(min(workers, len(tasks)), get_context("forkserver")) as pool:
        return list(pool.map(run, tasks))


def run(task: Task) -> Outcome:
    """One run of the protocol."""
    nodes, pods, text, seed = task
    choice = parse(text)
    return Inflation(read_nodes(nodes), read_pods(pods), choice.name, choice.params).run(seed)


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
