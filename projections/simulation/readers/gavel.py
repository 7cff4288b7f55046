"""Gavel traces: steps to do, and a table of measured steps per second by job type, GPUs and model.

How long a job takes depends on the GPU model it gets; on a model that was not measured it takes as
long as on the slowest that was. On a number of GPUs that was not measured it is as fast as on the next
smaller one that was (some types train on one GPU only). Commands are labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eventsched.projections.simulation.readers.gpu_jobs import gpu_spec
from eventsched.projections.simulation.readers.source import BadField, Row, Source
from eventsched.projections.simulation.workload import SimJob

SIMULATED = ("job_type", "command", "steps_flag", "needs_data_dir", "total_steps", "arrival_time_s", "scale_factor")
PHYSICAL = (
    "job_type", "command", "working_dir", "steps_flag", "needs_data_dir", "total_steps", "scale_factor",
    "priority_weight", "slo", "arrival_time_s",
)  # fmt: skip
TABLE = "simulation_throughputs.json"
MODELS = ("k80", "p100", "v100")


def looks_like(source: Source) -> bool:
    """By the number of its columns."""
    return source.head.partition("\n")[0].count("\t") + 1 in (len(SIMULATED), len(PHYSICAL))


def read(source: Source) -> Iterator[SimJob]:
    """Rows have no id: jobs are numbered by line. The estimate is the time on the fastest model."""
    first = source.text.partition("\n")[0]
    columns = SIMULATED if first.count("\t") + 1 == len(SIMULATED) else PHYSICAL
    rates = _rates(source)

    def make(item: tuple[str, Row]) -> SimJob:
        place, row = item
        gpus, kind = row.integer("scale_factor", 1, 1_000), row.text("job_type")
        steps = row.integer("total_steps", 1)
        takes = {model: round(steps / rate * 1000) for model in MODELS if (rate := _rate(rates, model, kind, gpus)) > 0}
        if not takes:
            raise BadField("job_type", f"{kind[:80]!r} has no measured throughput")
        slo = row.number("slo", -1, 1_000_000, default=-1)
        best = min(takes.values())
        deadline_ms = round(slo * best) if slo > 0 else 0
        spec = gpu_spec(source, gpus, "scale_factor", best, deadline_ms=deadline_ms)
        name = "g" + place.removeprefix("line ")
        arrival_ms = row.seconds_ms("arrival_time_s")
        return SimJob(arrival_ms, "default", name, spec, max(takes.values()), model_ms=takes)

    rows = ((place, (place, row)) for place, row in source.tabbed(columns))
    return source.each(rows, make)


def _rate(rates: dict[tuple[str, str, int], float], model: str, kind: str, gpus: int) -> float:
    """Steps per second on so many GPUs; where that was not measured, on the most below it that was."""
    counts = [count for a_model, a_kind, count in rates if a_model == model and a_kind == kind and count <= gpus]
    return rates[(model, kind, max(counts))] if counts else 0.0


def _rates(source: Source) -> dict[tuple[str, str, int], float]:
    """Steps per second of a job alone, by GPU model, job type and number of GPUs."""
    table = Source(_table(source)).json()
    found: dict[tuple[str, str, int], float] = {}
    for model in MODELS:
        rows: Any = table.get(model) if isinstance(table, dict) else None
        if not isinstance(rows, dict):
            raise source.fatal(f"the table of throughputs has no {model!r}", f"is it {TABLE}?")
        for key, row in rows.items():
            kind, _, gpus = key.removeprefix("('").removesuffix(")").rpartition("', ")
            rate = row.get("null") if isinstance(row, dict) else None
            if isinstance(rate, int | float) and gpus.isdecimal():
                found[(model, kind, int(gpus))] = float(rate)
    return found


def _table(source: Source) -> Path:
    if source.beside is not None:
        return source.beside
    for name in (TABLE, TABLE + ".gz"):
        path = source.path.with_name(name)
        if path.exists():
            return path
    hint = f"put {TABLE} beside it, or name it with --throughputs"
    raise source.fatal("says how many steps a job has, not how long they take", hint)
