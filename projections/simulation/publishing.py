"""`eventsched evaluate published`: all published results at once, as tables, with what has to come out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from eventsched.cli.common import Output, number, print_json
from eventsched.cli.tables import plain, row, show
from eventsched.errors import InvalidSpec
from eventsched.projections.simulation import reports
from eventsched.projections.simulation.progress import bar
from eventsched.projections.simulation.published import (
    FULL_SEEDS,
    OPENB_OTHERS,
    THEIR_MAKESPAN_S,
    THEIR_WAIT_S,
    WORKLOADS,
    Claim,
    Filled,
    Results,
    play,
)

PHILLY_SHOWN = (
    ("jct_mean_s", "JCT", "s"),
    ("jct_p99_s", "p99", "s"),
    ("wait_mean_s", "wait", "s"),
    ("wait_p99_s", "p99", "s"),
    ("slowdown_mean", "slowdown", "x"),
    ("gpu_utilisation_pct", "GPU", "%"),
    ("gpu_allocation_pct", "alloc", "%"),
    ("rho_mean", "rho", "x"),
    ("rho_p50", "p50", "x"),
    ("rho_unfair_pct", "unfair", "%"),
    ("jain_jobs", "Jain", ""),
    ("jain_tenants", "tenants", ""),
    ("jain_shares", "shares", ""),
)


def published(
    *,
    data: Annotated[Path, Parameter(help="the traces: tests/data of the source tree")] = Path("tests/data"),
    workload: Annotated[tuple[str, ...], Parameter(help="only this openb workload; repeatable")] = (),
    seeds: Annotated[int, number(1, 1_000), Parameter(help="orders of arrival for each openb workload")] = FULL_SEEDS,
    workers: Annotated[int, number(0, 1_000), Parameter(help="processes; 0 = one for each core")] = 0,
    output: Output = "table",
) -> int:
    """Play the workloads of published studies again and hold the results against theirs. Exit 1 if one is missed.

    openb (GPU sharing), Batsim's medium (backfilling), two days of Philly (orders).
    """
    unknown = [name for name in workload if name not in WORKLOADS]
    if unknown:
        raise InvalidSpec(f"--workload: no {unknown[0][:80]!r}", f"known: {', '.join(WORKLOADS)}")
    with bar() as progress:
        results = play(data, workload or WORKLOADS, seeds, workers or os.cpu_count() or 1, progress)
    missed = [claim for claim in results.claims if not claim.met]
    if output == "json":
        answer: dict[str, Any] = msgspec.to_builtins(results)
        for claim, found in zip(results.claims, answer["claims"], strict=True):
            found["met"] = claim.met
        print_json(answer)
    else:
        for table in tables(results):
            show(table)
    return 1 if missed else 0


def tables(results: Results) -> list[Table | Text]:
    """Everything, each table under its heading."""
    found: list[Table | Text] = []
    if "default" in results.openb:
        heading = f"openb default, {results.seeds} seeds: percent of 6,212 GPUs"
        found += [Text(heading), _default(results.openb["default"]), Text()]
    others = {name: row for name, row in results.openb.items() if name != "default"}
    if others:
        heading = f"openb, {results.seeds} seeds: percent of all GPUs allocated"
        found += [Text(heading), _others(others), Text()]
    found += [Text("Batsim medium: 801 rigid jobs on 32 machines"), _batsim(results), Text()]
    found += [Text("Philly, two days: 1,650 jobs of 7 tenants on 24 nodes of 8 GPUs")]
    found += [reports.table(dict(results.philly), PHILLY_SHOWN), Text()]
    found += [Text("What has to come out"), _claims(results.claims)]
    return found


def _default(policies: dict[str, Filled]) -> Table:
    table = plain("POLICY", "ALLOCATED", "PUBLISHED", "FRAGMENTED AT 100 %", "PUBLISHED")
    for policy, one in policies.items():
        mean, std, fragments = one.published_mean, one.published_std, one.published_fragmentation_100
        row(
            table,
            policy,
            f"{one.ours.allocation_mean:.2f} ± {one.ours.allocation_std:.2f}",
            "-" if mean is None else f"{mean:.2f} ± {std:.2f}",
            f"{one.ours.fragmentation_100:.2f}",
            "-" if fragments is None else f"{fragments:.2f}",
        )
    return table


def _others(openb: dict[str, dict[str, Filled]]) -> Table:
    headings = [text for policy in OPENB_OTHERS for text in (policy.upper(), "PUBLISHED")]
    table = plain("WORKLOAD", *headings)
    for name, policies in openb.items():
        found = [policies[policy] for policy in OPENB_OTHERS]
        means = [mean for one in found for mean in (one.ours.allocation_mean, one.published_mean)]
        row(table, name, *("-" if mean is None else f"{mean:.2f}" for mean in means))
    return table


def _batsim(results: Results) -> Table:
    table = plain("POLICY", "MAKESPAN s", "PUBLISHED", "MEAN WAIT s", "PUBLISHED")
    for policy, metrics in results.batsim.items():
        makespan, wait = f"{metrics['makespan_s']:,.2f}", f"{metrics['wait_mean_s']:.3f}"
        row(table, policy, makespan, f"{THEIR_MAKESPAN_S:,.2f}", wait, f"{THEIR_WAIT_S[policy]:.3f}")
    return table


def _claims(claims: list[Claim]) -> Table:
    table = plain("WHAT", "MEASURED", "WANTED", "")
    for claim in claims:
        row(table, claim.what, f"{claim.measured:,.2f}", _wanted(claim), "met" if claim.met else "MISSED")
    return table


def _wanted(claim: Claim) -> str:
    least, most = claim.least, claim.most
    if least is None or most is None:
        return f"at most {most:,.2f}" if least is None else f"at least {least:,.2f}"
    return f"{least:,.2f}" if least == most else f"{least:,.2f} to {most:,.2f}"
