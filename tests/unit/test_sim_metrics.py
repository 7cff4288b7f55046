"""Metrics of a simulation, each held against a story worked out by hand or a straight rendering of it."""

from __future__ import annotations

import random

import msgspec
import pytest

from eventsched.events import PriceSet, TenantSet
from eventsched.projections.simulation.accounts import BrokenLaw
from eventsched.projections.simulation.engine import Options, Simulation
from eventsched.projections.simulation.fragments import Fragments, typical
from eventsched.projections.simulation.loop import Loop
from eventsched.projections.simulation.metrics import details, measure, tenant_details
from eventsched.projections.simulation.outcome import Outcome
from eventsched.projections.simulation.reports import SHOWN, as_csv, summary
from eventsched.projections.simulation.setup import Setup
from eventsched.projections.simulation.workload import Shape, SimJob, SimNode, Workload, make_node, make_nodes
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger

HOUR_MS = 3_600_000


def job(
    job_id: str, at_s: float = 0, takes_s: float = 10, cores: float = 1, tenant: str = "t", **spec: object
) -> SimJob:
    asked = Resources(
        cpu_millis=int(cores * 1000),
        **{name: spec.pop(name) for name in ("gpus", "gpu_millis", "gpu_model") if name in spec},  # type: ignore[arg-type]
    )
    made = JobSpec(driver="fake", resources=asked, **spec)  # type: ignore[arg-type]
    return SimJob(int(at_s * 1000), tenant, job_id, made, int(takes_s * 1000))


def play(jobs: list[SimJob], nodes: list[SimNode] | int = 1, policy: str = "fifo", **options: object) -> Outcome:
    machines = make_nodes(nodes, Shape()) if isinstance(nodes, int) else nodes
    return Simulation(Workload(jobs, machines), policy, Options(**options)).run()  # type: ignore[arg-type]


# ---- fairness -----------------------------------------------------------------------------------


def test_finish_time_fairness_by_hand() -> None:
    """Two jobs of 10 s on one core: with half of it either takes 20 s; the second shares 10 of its 20 s."""
    metrics = measure(play([job("a"), job("b")]))
    assert metrics["rho_p50"] == pytest.approx(10 / 20)
    assert metrics["rho_worst"] == metrics["rho_p99"] == pytest.approx(20 / 15)
    assert metrics["rho_mean"] == pytest.approx((10 / 20 + 20 / 15) / 2)
    assert metrics["rho_unfair_pct"] == 50
    alone = measure(play([job("a"), job("b")], nodes=2))
    assert alone["rho_mean"] == 1, "its share is a core, and nobody can run faster than he runs"
    assert alone["rho_unfair_pct"] == 0
    assert measure(play([job("a", takes_s=0)]))["rho_mean"] == 0, "no time is no ratio"


def test_fairness_of_arrays_counts_the_work_of_all_members() -> None:
    array = msgspec.structs.replace(job("a", array=3), member_ms=(1_000, 2_000, 9_000))
    assert measure(play([array], nodes=3))["rho_mean"] == 1, "as long as its longest member"
    assert measure(play([array]))["rho_mean"] == 1, "12 s of work on one core"


def test_fairness_over_models_is_weighted_by_their_devices() -> None:
    nodes = [make_node("a", Shape(9_000, 0, "A100", 1)), make_node("t", Shape(9_000, 0, "T4", 3))]
    fast = msgspec.structs.replace(job("j", gpus=1), model_ms={"a100": 10_000, "t4": 40_000}, duration_ms=40_000)
    outcome = play([fast], nodes, "first-fit")
    assert details(outcome)["j"]["node"] == "a"
    assert measure(outcome)["rho_mean"] == pytest.approx(1 / 4 * 10 / 10 + 3 / 4 * 10 / 40)
    picky = msgspec.structs.replace(fast, spec=job("j", gpus=1, gpu_model="A100").spec)
    assert measure(play([picky], nodes))["rho_mean"] == 1, "only models it may run on count"


def test_a_run_cut_short_is_measured_against_the_time_it_may_take() -> None:
    assert measure(play([job("a", takes_s=100, max_runtime_ms=10_000)]))["rho_mean"] == 1


def test_tenants_shares_by_weight() -> None:
    """t has the core for 10 of its 10 s, u for 10 of its 20 s."""
    jobs = [job("a"), job("b", tenant="u")]
    assert measure(play(jobs))["jain_shares"] == pytest.approx((1 + 0.5) ** 2 / (2 * (1 + 0.25)))
    setup = Setup(tenants=(TenantSet(tenant="t", weight=2),))
    assert measure(play(jobs, setup=setup))["jain_shares"] == pytest.approx(1)


# ---- allocation and fragmentation -----------------------------------------------------------------


def test_allocation_is_what_is_held_while_something_waits() -> None:
    metrics = measure(play([job("a", 0, 10), job("b", 0, 10), job("c", 5, 30)], nodes=2))
    assert metrics["cpu_utilisation_pct"] == pytest.approx(100 * 50 / 80)
    assert metrics["cpu_allocation_pct"] == 100, "only from 5 to 10 s does one wait"
    assert "cpu_allocation_pct" not in measure(play([job("a")])), "nobody ever waited"
    stuck = measure(play([job("a", 0, 10), job("huge", 0, cores=99)], nodes=2))
    assert stuck["cpu_allocation_pct"] == 50


def _straight(levels: list[tuple[str, int]], cpu_millis: int, jobs: list[SimJob]) -> int:
    """As published, job by job: what idles, less what the job could use of it."""
    total = 0
    for one in jobs:
        asked = one.spec.resources
        each, model = asked.gpu_millis or 1000, asked.gpu_model.lower()
        enough = [level for name, level in levels if level >= each and model in ("", name)]
        fits = len(enough) >= (asked.gpus or 1) and cpu_millis >= asked.cpu_millis
        total += sum(level for _, level in levels)
        total -= sum(enough) if fits and (asked.gpus or asked.gpu_millis) else 0
    return total


def test_fragmentation_is_that_of_a_straight_count() -> None:
    dice = random.Random(3)
    kinds = [
        {}, {"gpus": 1}, {"gpus": 2}, {"gpu_millis": 250}, {"gpu_millis": 600}, {"gpus": 1, "gpu_model": "T4"},
        {"gpu_millis": 250, "gpu_model": "A100"},
    ]  # fmt: skip
    jobs = [job("j", cores=cores, **dict(kind)) for cores in (1, 4) for kind in kinds]
    fragments = Fragments(jobs)
    assert fragments.number == len(jobs)
    for number in range(60):
        ledger = Ledger()
        models = (("A100",) * 4, ("T4",) * 2, ("A100", "A100", "T4"))[number % 3]
        ledger.join(f"n{number % 3}", cpus=8, gpus=models)
        (node,) = ledger.state.nodes.values()
        node.cpu_free_millis = dice.choice((500, 1_000, 5_000, 8_000))
        levels = [dice.choice((0, 1000, 1000, 750, 500, 100)) for _ in node.capacity.gpus]
        node.gpu_runs = {gpu.uuid: 1 for gpu, level in zip(node.capacity.gpus, levels, strict=True) if not level}
        shared = zip(node.capacity.gpus, levels, strict=True)
        node.gpu_shares = {gpu.uuid: 1000 - level for gpu, level in shared if 0 < level < 1000}
        expected = _straight(
            list(zip((model.lower() for model in models), levels, strict=True)), node.cpu_free_millis, jobs
        )
        assert fragments.of(node) == expected, (models, levels, node.cpu_free_millis)
    assert Fragments([job("a")]).number == 0, "where nobody asks for a GPU nothing is a fragment"


def test_fragmentation_over_time_by_hand() -> None:
    """Two GPUs; all jobs want both. From 0 to 10 s a stray share makes the other one useless."""
    jobs = [job("stray", 0, 10, gpu_millis=400)] + [job(f"j{index}", 10 + 10 * index, gpus=2) for index in range(30)]
    metrics = measure(play(jobs, [make_node("n", Shape(99_000, 0, "A100", 2))]))
    assert [kind.gpus for kind in typical(jobs)] == [2], "one share in thirty is not typical"
    assert metrics["gpu_fragmentation_pct"] == pytest.approx(100 * 1_600 * 10 / (2_000 * 310))
    assert metrics["gpu_fragmentation_idle_pct"] == 100, "nothing idles but what is useless"
    assert "gpu_fragmentation_pct" not in measure(play([job("a")]))


# ---- money ----------------------------------------------------------------------------------------


def test_costs_by_hand() -> None:
    nodes = [
        make_node("a", Shape(), price_micros_per_h=3_000_000),
        make_node("b", Shape(), spot=True, price_micros_per_h=1_000_000),
    ]
    metrics = measure(play([job("x", 0, 3_600), job("y", 0, 1_800)], nodes))
    assert (metrics["cost"], metrics["cost_on_demand"], metrics["cost_spot"]) == (3.5, 3.0, 0.5)
    assert metrics["cost_all_nodes"] == 4
    assert metrics["cost_per_core_h"] == pytest.approx(3.5 / 1.5)


def test_a_budget_that_is_spent_stops_its_tenant_until_the_next_period() -> None:
    setup = Setup(
        tenants=(TenantSet(tenant="t", budget_micros=1_000_000, budget_period_ms=2 * HOUR_MS),),
        prices=PriceSet(core_micros_per_h=1_000_000),
    )
    jobs = [job("a", 0, 3_600), job("b", 0, 3_600), job("c", 0, 60, tenant="u")]
    outcome = play(jobs, setup=setup, policy="fifo")
    started = {name: one["started_s"] for name, one in details(outcome).items()}
    assert started == {"a": 0, "c": 3_600, "b": 7_200}
    assert measure(outcome)["spent"] == pytest.approx(2 + 1 / 60, abs=1e-6)
    tenants = tenant_details(outcome)
    assert (tenants["t"]["spent"], tenants["t"]["succeeded"], tenants["t"]["core_h"]) == (2, 2, 2)
    assert tenants["t"]["wait_mean_s"] == 3_600
    forever = Setup(tenants=(TenantSet(tenant="t", budget_micros=1_000_000),), prices=setup.prices)
    assert details(play(jobs, setup=forever))["b"]["state"] == "pending"


def test_time_goes_on_while_spot_nodes_come_and_go_and_jobs_wait_for_a_budget() -> None:
    """The renewal is in two hours; each node is taken away within the first, and comes back."""
    limits = TenantSet(tenant="t", budget_micros=1, budget_period_ms=2 * HOUR_MS)
    setup = Setup(tenants=(limits,), prices=PriceSet(core_micros_per_h=10**9))
    times: list[int] = []
    nodes = [make_node(f"n{index}", Shape(), spot=True) for index in range(3)]
    options = Options(spot_ppm_per_h=1_000_000, away_ms=60_000, setup=setup)
    workload = Workload([job("a"), job("b", at_s=20)], nodes)
    simulation = Simulation(workload, "fifo", options, sink=lambda recorded: times.append(recorded.at_ms))
    outcome = simulation.run()
    assert times == sorted(times)
    story = details(outcome)["b"]
    assert story["started_s"] == pytest.approx(2 * HOUR_MS / 1000)


def test_ids_that_are_unique_in_the_cluster_refuse_a_second_one() -> None:
    jobs = [job("a", 0), job("a", 1, tenant="u")]
    outcome = play(jobs, setup=Setup(job_id_scope="cluster"))
    assert {key: one["state"] for key, one in details(outcome).items()} == {"t/a": "succeeded", "u/a": "rejected"}
    assert measure(outcome)["failed"] == 1
    assert measure(play(jobs))["succeeded"] == 2


def test_a_tenant_without_limits_gets_nothing_where_that_is_the_rule() -> None:
    outcome = play([job("a")], setup=Setup(quota_default="nothing"))
    assert details(outcome)["a"]["state"] == "pending"


# ---- reports --------------------------------------------------------------------------------------


def test_every_metric_is_in_the_csv_and_those_of_the_table_exist() -> None:
    nodes = [make_node("n", Shape(4_000, 0, "A100", 2), spot=True, price_micros_per_h=1)]
    jobs = [job("a", gpus=1, deadline_ms=1), job("b", gpus=2, cores=2)]
    setup = Setup(prices=PriceSet(core_micros_per_h=1_000_000))
    metrics = measure(play(jobs, nodes, setup=setup))
    assert {name for name, _, _ in SHOWN} - set(metrics) == set()
    assert as_csv({"p": [metrics]}).splitlines()[0].split(",") == ["policy", "seed", *metrics]
    assert set(summary({"p": [metrics, metrics]})["p"]["ci95"]) == set(metrics)


def test_the_laws_are_checked_at_the_end_of_the_continuous_view_too(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload([job("a"), job("b", 3)], make_nodes(1, Shape()))
    assert Loop(workload, "fifo", Options(endless=True), lambda action: None, speed=0).run(5) == "5 rounds"
    loop = Loop(workload, "fifo", Options(endless=True), lambda action: _spoil(loop), speed=0)
    with pytest.raises(BrokenLaw, match="Little"):
        loop.run(5)


def _spoil(loop: Loop) -> None:
    if loop.simulation is not None:
        loop.simulation.accounts.jobs_time += 1
