"""Metrics of an outcome, as `deploy/docs/simulation.md` defines them. An array counts as one job.

Seconds and percent; floats, as nothing decides by them. Jobs that have not ended are counted apart:
their waiting and JCT are not made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from eventsched.projections.simulation.fairness import UNFAIR, Isolation, tenant_shares
from eventsched.projections.simulation.outcome import Outcome, Record
from eventsched.projections.simulation.statistics import jain, mean, nearest_rank
from eventsched.projections.simulation.workload import ENDLESS_MEMORY

SLOWDOWN_FLOOR_MS = 10_000
_HOUR = 3_600_000 * 1_000
"""Thousandths x milliseconds in an hour of one GPU, or core."""
_HOUR_OF_MICROS = 3_600_000 * 1_000_000
_UNITS = ("core", "gib", "gpu")
Metrics = dict[str, float]


def measure(outcome: Outcome) -> Metrics:
    """All metrics that apply: a kind of resource no node has is left out, and so on."""
    records, books = outcome.records, outcome.accounts
    started = [one for one in records if one.started_ms >= 0]
    ended = [one for one in started if not one.is_open]
    first = min((one.submitted_ms for one in records), default=outcome.start_ms)
    last = max((one.finished_ms for one in ended), default=first)
    metrics: Metrics = {
        "submitted": len(records),
        "succeeded": sum(one.state == "succeeded" for one in records),
        "pending": sum(one.state == "pending" for one in records),
        "failed": sum(not one.is_open and one.state != "succeeded" for one in records),
        "makespan_s": (last - first) / 1000,
    }
    _spread(metrics, "wait", "_s", [(one.started_ms - one.submitted_ms) / 1000 for one in started])
    _spread(metrics, "idle", "_s", [(_jct_ms(one) - _ran_ms(one)) / 1000 for one in ended])
    _spread(metrics, "jct", "_s", [_jct_ms(one) / 1000 for one in ended])
    _spread(metrics, "slowdown", "", [_slowdown(one) for one in ended])
    _resources(metrics, outcome)
    _fragmentation(metrics, outcome)
    _fairness(metrics, outcome, ended)
    _deadlines(metrics, records, outcome.end_ms)
    metrics["preemptions"] = sum(one.stopped for one in records)
    metrics["preempted_jobs_pct"] = 100 * mean([one.stopped > 0 for one in records])
    lost, held = (books.lost_time[_main(outcome)], books.held_time[_main(outcome)])
    metrics["goodput_pct"] = 100 * (held - lost) / held if held else 100.0
    metrics[f"lost_{_UNITS[_main(outcome)]}_h"] = lost / _HOUR
    _money(metrics, outcome, (held - lost) / _HOUR)
    return metrics


def details(outcome: Outcome) -> dict[str, Any]:
    """Each job by id (`tenant/id` where two tenants share it): state, node (null if it never ran), and its
    times in seconds since the first instant."""

    def since(ms: int) -> float | None:
        return None if ms < 0 else (ms - outcome.start_ms) / 1000

    found = {}
    names = Counter(one.job.job_id for one in outcome.records)
    for one in outcome.records:
        entry: dict[str, Any] = {
            "state": one.state,
            "node": one.nodes[0] if one.nodes else None,
            "submitted_s": since(one.submitted_ms),
            "started_s": since(one.started_ms),
            "finished_s": since(one.finished_ms),
        }
        if len(one.nodes) > 1:
            entry["nodes"] = one.nodes
        if one.reason:
            entry["reason"] = one.reason
        found[one.job.job_id if names[one.job.job_id] == 1 else one.key] = entry
    return found


def tenant_details(outcome: Outcome) -> dict[str, Any]:
    """Each tenant in numbers: its jobs, how long they took, what they held and cost."""
    found = {}
    main = _main(outcome)
    for tenant, books in outcome.accounts.tenants.items():
        records = [one for one in outcome.records if one.job.tenant == tenant]
        started = [one for one in records if one.started_ms >= 0]
        account = outcome.state.accounts.get(tenant)
        found[tenant] = {
            "submitted": len(records),
            "succeeded": sum(one.state == "succeeded" for one in records),
            "pending": sum(one.state == "pending" for one in records),
            "wait_mean_s": mean([(one.started_ms - one.submitted_ms) / 1000 for one in started]),
            "jct_mean_s": mean([_jct_ms(one) / 1000 for one in started if not one.is_open]),
            f"{_UNITS[main]}_h": books.held_time[main] / _HOUR,
            "spent": account.total_micros / 1_000_000 if account else 0.0,
        }
    return found


def _jct_ms(one: Record) -> int:
    return one.finished_ms - one.submitted_ms


def _ran_ms(one: Record) -> int:
    """The time it ran; of an array, from its first start on."""
    return one.finished_ms - one.started_ms if one.job.spec.array else one.ran_ms


def _slowdown(one: Record) -> float:
    return max(1.0, _jct_ms(one) / max(_ran_ms(one), SLOWDOWN_FLOOR_MS))


def _spread(metrics: Metrics, name: str, unit: str, values: list[float]) -> None:
    values.sort()
    metrics[f"{name}_mean{unit}"] = mean(values)
    metrics[f"{name}_p50{unit}"] = nearest_rank(values, 50)
    metrics[f"{name}_p99{unit}"] = nearest_rank(values, 99)


def _main(outcome: Outcome) -> int:
    """Which resource stands for the cluster: GPUs, where there are any, else cores."""
    return 2 if outcome.accounts.capacity_time[2] else 0


def _resources(metrics: Metrics, outcome: Outcome) -> None:
    books = outcome.accounts
    for index, kind in enumerate(("cpu", "memory", "gpu")):
        capacity = books.capacity_time[index]
        endless = index == 1 and capacity >= ENDLESS_MEMORY * max(1, outcome.end_ms - outcome.start_ms)
        if capacity and not endless:
            metrics[f"{kind}_utilisation_pct"] = 100 * books.used_time[index] / capacity

        if books.wanted_capacity_time[index] and not endless:
            share = books.wanted_used_time[index] / books.wanted_capacity_time[index]
            metrics[f"{kind}_allocation_pct"] = 100 * share


def _fragmentation(metrics: Metrics, outcome: Outcome) -> None:
    """Idle parts of GPUs that the average job could not use, of all there is and of what is idle."""
    books, number = outcome.accounts, outcome.accounts.fragmentation.number
    if not number or not books.capacity_time[2]:
        return
    idle = books.capacity_time[2] - books.used_time[2]
    metrics["gpu_fragmentation_pct"] = 100 * books.fragments_time / number / books.capacity_time[2]
    metrics["gpu_fragmentation_idle_pct"] = 100 * books.fragments_time / number / idle if idle else 0.0


def _money(metrics: Metrics, outcome: Outcome, useful_h: float) -> None:
    """What nodes cost by their own prices, and what tenants were charged."""
    books = outcome.accounts
    if books.cost_there:
        metrics["cost"] = books.cost_busy / _HOUR_OF_MICROS
        metrics["cost_spot"] = books.cost_busy_spot / _HOUR_OF_MICROS
        metrics["cost_on_demand"] = (books.cost_busy - books.cost_busy_spot) / _HOUR_OF_MICROS
        metrics["cost_all_nodes"] = books.cost_there / _HOUR_OF_MICROS
        if useful_h:
            metrics[f"cost_per_{_UNITS[_main(outcome)]}_h"] = metrics["cost"] / useful_h
    if outcome.state.accounts:
        metrics["spent"] = sum(one.total_micros for one in outcome.state.accounts.values()) / 1_000_000


def _fairness(metrics: Metrics, outcome: Outcome, ended: list[Record]) -> None:
    by_tenant: dict[str, list[float]] = {}
    for one in ended:
        by_tenant.setdefault(one.job.tenant, []).append(_slowdown(one))
    isolation = Isolation(outcome)
    found = (isolation.rho(one) for one in ended)
    rhos = [rho for rho in found if rho is not None]
    _spread(metrics, "rho", "", rhos)
    metrics["rho_worst"] = max(rhos, default=0.0)
    metrics["rho_unfair_pct"] = 100 * mean([rho > UNFAIR for rho in rhos])
    metrics["jain_jobs"] = jain([_slowdown(one) for one in ended])
    metrics["jain_rho"] = jain(rhos)
    metrics["jain_tenants"] = jain([mean(values) for values in by_tenant.values()])
    metrics["jain_shares"] = jain(tenant_shares(outcome))


def _deadlines(metrics: Metrics, records: Iterable[Record], end_ms: int) -> None:
    """Late is what ended after its deadline, or has not ended though it is past."""
    bound = [one for one in records if one.job.spec.deadline_ms]
    if not bound:
        return
    late_ms = []
    for one in bound:
        end = end_ms if one.is_open else one.finished_ms
        late_ms.append(max(0, end - one.submitted_ms - one.job.spec.deadline_ms))
    metrics["deadlines"] = len(bound)
    metrics["deadline_misses"] = sum(ms > 0 for ms in late_ms)
    metrics["deadline_misses_pct"] = 100 * metrics["deadline_misses"] / len(bound)
    _spread(metrics, "tardiness", "_s", [ms / 1000 for ms in late_ms])
