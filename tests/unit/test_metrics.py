"""Metrics as Prometheus reads them: parsed, never compared as text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eventsched.events import AbortRequested, NodeDrained, PriceSet
from eventsched.projections.http.metrics import render
from eventsched.projections.views.census import take_census
from eventsched.query import ReplicaReport
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import FAKE, Ledger, ready

DEPLOY = Path(__file__).parents[2] / "deploy"
LEADER = ReplicaReport(
    "s1",
    "leading",
    seq=5,
    lag=2,
    rounds=4,
    placements=9,
    decide_ns=2_000_000_000,
    commit_ns=500_000_000,
    heartbeat_age_ms={"ready": 1_500, "suspect": 20_000},
)
STANDBY = ReplicaReport("s2", "standby", seq=3, digest_mismatches=1, heartbeat_age_ms={"ready": 2_500})
Samples = dict[tuple[str, tuple[str, ...]], float]


def _read(text: bytes) -> Samples:
    """(name, values of labels) -> value; every sample once, each family with words about it."""
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def _scrape(ledger: Ledger, **more: Any) -> Samples:
    return _read(render(ledger.state, ledger.state.clock_ms, **more))


def _of(samples: Samples, name: str) -> dict[str, float]:
    return {labels[0]: value for (found, labels), value in samples.items() if found == f"eventsched_{name}"}


def test_waiting_jobs_count_by_tenant_and_members_one_by_one() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=10), "t1")  # four of them run
    ledger.settle()
    ledger.submit("held", JobSpec(driver="fake", hold=True), "t2")
    ledger.submit("child", JobSpec(driver="fake", after_ok=("held",)), "t2")
    ledger.settle()
    ledger.state.clock_ms += 90_000
    samples = _scrape(ledger)
    assert _of(samples, "queue_jobs") == {"t1": 6, "t2": 2}
    assert _of(samples, "queue_oldest_wait_seconds") == {"t1": pytest.approx(90, abs=1)}, "t2's wait for others"
    assert _of(samples, "jobs") == {"assigned": 4, "pending": 8}
    assert _of(samples, "runs") == {"assigned": 4}


@pytest.mark.parametrize("finish", [False, True])
def test_the_census_agrees_with_a_count_of_every_member(finish: bool) -> None:
    """Members of an array that were touched before their turn are counted once."""
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=9))
    ledger.settle()
    ledger.ask("a", "abort_requested", AbortRequested(member=7))
    ledger.settle()
    while finish and ledger.state.runs:
        ledger.ended(next(iter(ledger.state.runs)))
        ledger.settle()
    census, ended = take_census(ledger.state, ledger.state.clock_ms), sum(ledger.state.ended.values())
    arrays_ended = 1 if finish else 0  # the array itself is among the ended
    assert sum(census.jobs.values()) + ended - arrays_ended == 9
    assert census.waiting == ({} if finish else {"t": 4})


def test_tenants_beyond_the_largest_are_added_up() -> None:
    ledger = ready()
    for tenant, count in (("big", 3), ("small1", 1), ("small2", 1), ("middle", 2)):
        for index in range(count):
            ledger.submit(f"j{index}", JobSpec(driver="fake", resources=Resources(cpu_millis=100_000)), tenant)
    ledger.settle()
    samples = _scrape(ledger, labels_max=2)
    assert _of(samples, "queue_jobs") == {"big": 3, "middle": 2, "_other": 2}
    assert set(_of(samples, "queue_oldest_wait_seconds")) == {"big", "middle", "_other"}


def test_money_includes_open_runs_and_all_tenants() -> None:
    ledger = ready()
    ledger.put("ev.admin.price_set", PriceSet(core_micros_per_h=3_600_000))
    for tenant in ("t1", "t2"):
        ledger.submit("j", tenant=tenant)
    ledger.settle()
    ledger.state.clock_ms += 10_000
    first = _scrape(ledger)
    assert _of(first, "tenant_spent_micros_total") == {tenant: pytest.approx(10_000, abs=20) for tenant in ("t1", "t2")}
    ledger.ended(ledger.job("j", "t1").run)
    ledger.state.clock_ms += 10_000
    spent = _of(_scrape(ledger, labels_max=1), "tenant_spent_micros_total")
    assert spent == {"t2": pytest.approx(20_000, abs=20), "_other": pytest.approx(10_000, abs=20)}
    assert _scrape(ledger)["eventsched_spent_micros_total", ()] == sum(spent.values())


def test_machines_and_what_runs_hold_of_them() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("n1", cpus=8, gpus=("A100", "A100", "T4"))
    ledger.join("n2", cpus=2, memory=1 << 30)
    ledger.settle()
    ledger.submit("whole", JobSpec(driver="fake", resources=Resources(cpu_millis=1_500, gpus=1, gpu_model="A100")))
    ledger.submit("other", JobSpec(driver="fake", resources=Resources(cpu_millis=500)))
    ledger.settle()
    ledger.put("ev.admin.node_drained", NodeDrained(node="n2"))
    ledger.state.nodes["n1"].gpu_shares["n1-gpu2"] = 250
    samples = _scrape(ledger)
    assert _of(samples, "gpus") == {"A100": 2, "T4": 1}
    assert _of(samples, "gpus_allocated") == {"A100": 1, "T4": 0.25}
    assert samples["eventsched_cpu_cores", ()] == 10
    assert samples["eventsched_cpu_cores_allocated", ()] == 2
    assert samples["eventsched_memory_bytes", ()] == 9 << 30
    assert _of(samples, "agents") == {"ready": 1, "draining" if ledger.state.nodes["n2"].runs else "drained": 1}


def test_totals_of_the_log() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    ledger.ended(ledger.job("j").run, exit_code=1)
    ledger.raw("ev.leader", b"nonsense")
    samples = _scrape(ledger)
    assert _of(samples, "jobs_ended_total") == {"failed": 1}
    assert samples["eventsched_rounds_total", ()] == ledger.state.rounds > 1
    assert sum(_of(samples, "anomalies_total").values()) == 1
    assert samples["eventsched_log_events", ()] == ledger.state.seq


def test_replicas_are_compared_with_whoever_knows_most() -> None:
    ledger = Ledger()  # one event
    samples = _scrape(ledger, lag=1, mismatches=2, replicas=[LEADER, STANDBY])
    assert _of(samples, "replica_lag_events") == {"s1": 2, "s2": 4, "_http": 6}
    assert _of(samples, "replica_leading") == {"s1": 1, "s2": 0}
    assert _of(samples, "digest_mismatches_total") == {"s1": 0, "s2": 1, "_http": 2}
    assert _of(samples, "placements_total") == {"s1": 9, "s2": 0}
    assert _of(samples, "round_decide_seconds_sum") == {"s1": 2.0, "s2": 0.0}
    assert _of(samples, "round_commit_seconds_count") == {"s1": 4, "s2": 0}
    assert _of(samples, "agent_heartbeat_age_max_seconds") == {"ready": 2.5, "suspect": 20}


def test_what_users_write_is_escaped() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("n1", gpus=('A "quoted"\nmodel\\',))
    ledger.settle()
    assert _of(_scrape(ledger), "gpus") == {'A "quoted"\nmodel\\': 1}


def _everything() -> Samples:
    """A scrape in which every family has a sample."""
    ledger = ready()
    ledger.join("n2", gpus=("A100",))
    ledger.put("ev.admin.price_set", PriceSet(core_micros_per_h=1_000))
    ledger.settle()
    for index in range(30):
        ledger.submit(f"j{index}", FAKE)
    ledger.settle()
    ledger.ended(next(iter(ledger.state.runs)))
    ledger.raw("ev.leader", b"nonsense")
    return _scrape(ledger, replicas=[LEADER])


def test_the_dashboard_asks_for_metrics_that_exist_and_shows_them_all() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"eventsched_\w+", target["expr"])
    }
    there = {name for name, _ in _everything()}
    assert asked <= there, asked - there
    assert there - asked == {"eventsched_cluster_info", "eventsched_replica_folded_events"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_documentation_names_every_metric() -> None:
    text = (DEPLOY / "docs/operations.md").read_text()
    there = {re.sub(r"_(sum|count)$", "", name) for name, _ in _everything()}
    assert not [name for name in sorted(there) if f"`{name}" not in text]
