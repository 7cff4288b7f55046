"""Reports of a comparison: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from eventsched.projections.simulation.statistics import interval, mean

Runs = dict[str, list[dict[str, float]]]
"""Policy -> metrics of each seed."""

Columns = tuple[tuple[str, str, str], ...]
"""Of a table: metric, heading, unit."""
SHOWN: Columns = (
    ("makespan_s", "makespan", "s"),
    ("jct_mean_s", "JCT", "s"),
    ("jct_p99_s", "p99", "s"),
    ("wait_mean_s", "wait", "s"),
    ("wait_p99_s", "p99", "s"),
    ("slowdown_mean", "slowdown", "x"),
    ("rho_mean", "rho", "x"),
    ("cpu_utilisation_pct", "cpu", "%"),
    ("gpu_utilisation_pct", "GPU", "%"),
    ("gpu_allocation_pct", "alloc", "%"),
    ("gpu_fragmentation_pct", "frag", "%"),
    ("jain_jobs", "Jain", ""),
    ("jain_tenants", "tenants", ""),
    ("preemptions", "preempted", "n"),
    ("deadline_misses_pct", "late", "%"),
    ("cost", "cost", ""),
    ("succeeded", "done", "n"),
    ("pending", "waiting", "n"),
)


def summary(runs: Runs) -> dict[str, dict[str, Any]]:
    """Means over the seeds, by policy; with several seeds `ci95` holds the interval of each mean."""
    found: dict[str, dict[str, Any]] = {}
    for policy, seeds in runs.items():
        names = list(dict.fromkeys(name for one in seeds for name in one))
        values = {name: [one[name] for one in seeds if name in one] for name in names}
        found[policy] = {name: _round(mean(values[name])) for name in names}
        if len(seeds) > 1:
            found[policy]["seeds"] = len(seeds)
            found[policy]["ci95"] = {name: [_round(end) for end in interval(values[name])] for name in names}
    return found


def _round(value: float) -> float:
    """As many digits as mean something."""
    return int(value) if value == int(value) else round(value, 6)


def table(result: Mapping[str, Mapping[str, Any]], shown: Columns = SHOWN) -> Table:
    """One line a policy; with several seeds the mean and half the width of its interval."""
    grid = Table(box=None, pad_edge=False)
    grid.add_column("POLICY", no_wrap=True)
    columns = [one for one in shown if any(one[0] in metrics for metrics in result.values())]
    for _, heading, unit in columns:
        grid.add_column(
            f"{heading} {unit}".strip().upper() if not unit else f"{heading.upper()} {unit}", justify="right"
        )
    for policy, metrics in result.items():
        grid.add_row(policy, *(_cell(metrics, name) for name, _, _ in columns))
    return grid


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    if name not in metrics:
        return "-"
    text = _number(metrics[name])
    low, high = metrics.get("ci95", {}).get(name, (0, 0))
    return f"{text} ±{_number((high - low) / 2)}" if high > low else text


def _number(value: float) -> str:
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:,.2f}" if abs(value) < 1_000 else f"{value:,.0f}"


def as_csv(runs: Runs) -> str:
    """One line for each policy and seed; a metric that does not apply is empty."""
    names = list(dict.fromkeys(name for seeds in runs.values() for one in seeds for name in one))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["policy", "seed", *names])
    for policy, seeds in runs.items():
        for seed, one in enumerate(seeds):
            writer.writerow([policy, seed, *(_round(one[name]) if name in one else "" for name in names)])
    return out.getvalue()
