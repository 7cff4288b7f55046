"""Whatever is played, the books add up, the state is sound, and skipped rounds would have been empty."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from eventsched.events import PriceSet, TenantSet
from eventsched.projections.cluster.digest import digest
from eventsched.projections.scheduling.policies import POLICIES as BUILT_IN
from eventsched.projections.simulation.engine import Options, Simulation
from eventsched.projections.simulation.metrics import details, measure
from eventsched.projections.simulation.outcome import Outcome
from eventsched.projections.simulation.setup import Setup
from eventsched.projections.simulation.workload import Shape, SimJob, Workload, make_node
from eventsched.resources import Resources
from eventsched.spec import JobSpec

POLICIES = (
    *sorted(BUILT_IN), "order=aging,score=spread", "order=priority,preempt=1", "order=fifo,backfill=easy,preempt=1",
    "order=fifo,sweep_every=3", "order=edf,score=fgd:3,spread:1", "order=drf,score=expected-cost",
)  # fmt: skip
BUDGET = TenantSet(tenant="*", budget_micros=10**6, budget_period_ms=60_000)
SETUPS = (
    Setup(),
    Setup(tenants=(TenantSet(tenant="a", runs=2, weight=3), TenantSet(tenant="b", gpus=1))),
    Setup(quota_default="nothing", tenants=(TenantSet(tenant="a", cpu_millis=2_000, gpus=2),)),
    Setup(prices=PriceSet(core_micros_per_h=10**9), tenants=(BUDGET,)),
    Setup(tenants=tuple(TenantSet(tenant=tenant, cpu_millis=2_000, gpus=1, cohort="c") for tenant in "ab")),
)


@st.composite
def jobs(draw: st.DrawFn, index: int) -> SimJob:
    width = draw(st.sampled_from([0, 0, 0, 2, 3]))
    takes = draw(st.integers(0, 20))
    spec = JobSpec(
        driver="fake",
        resources=Resources(cpu_millis=draw(st.sampled_from([500, 1000, 2000])), gpus=draw(st.integers(0, 2))),
        priority=draw(st.integers(0, 2)),
        array=width,
        gang=width > 0 and draw(st.booleans()),
        estimate_ms=draw(st.sampled_from([0, 1_000, 5_000])),
        max_runtime_ms=draw(st.sampled_from([0, 0, 4_000])),
        queue_timeout_ms=draw(st.sampled_from([0, 0, 9_000])),
        sla=draw(st.sampled_from(["best_effort", "batch", "latency_sensitive"])),
        max_lost=draw(st.sampled_from([0, 3, 1_000])),
        after_any=(f"j{index - 1}",) if index and draw(st.integers(0, 4)) == 0 else (),
    )
    return SimJob(draw(st.integers(0, 6)) * 1_000, draw(st.sampled_from("ab")), f"j{index}", spec, takes * 500)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    nodes = [
        make_node(
            f"n{index}", Shape(draw(st.sampled_from([1_000, 3_000])), 0, "A100", draw(st.integers(0, 2))), spot=spot
        )
        for index, spot in enumerate(draw(st.lists(st.booleans(), min_size=1, max_size=4)))
    ]
    return Workload([draw(jobs(index)) for index in range(draw(st.integers(1, 14)))], nodes)


@settings(max_examples=200)
@given(workloads(), st.sampled_from(POLICIES), st.sampled_from(SETUPS), st.booleans(), st.integers(0, 3))
def test_books_add_up_whatever_is_played(
    workload: Workload, policy: str, setup: Setup, checkpoints: bool, seed: int
) -> None:
    digests = []
    for eager in (False, True):
        options = Options(seed, checkpoints, 400_000, 30_000, eager, setup=setup)
        simulation = Simulation(workload, policy, options)
        outcome = simulation.run()  # raises BrokenLaw
        _laws(outcome)
        metrics = measure(outcome)
        assert len(outcome.records) == len(workload.jobs) == metrics["submitted"]
        assert all(value >= 0 for value in metrics.values())
        assert outcome.accounts.used == [0, 0, 0], "nothing is held at the end"
        for story in details(outcome).values():
            assert story["state"] != "running"
            assert (story["node"] is None) == (story["started_s"] is None)
        digests.append(digest(simulation.state))
    assert digests[0] == digests[1]


def _laws(outcome: Outcome) -> None:
    """Little's law, and conservation of resources x time, by a third count: from the jobs' records alone."""
    in_system = sum((outcome.end_ms if one.is_open else one.finished_ms) - one.submitted_ms for one in outcome.records)
    assert outcome.accounts.jobs_time == in_system
    asked = [(one.job.spec.resources, one.ran_ms) for one in outcome.records]
    assert outcome.accounts.used_time[0] == sum(one.cpu_millis * ran_ms for one, ran_ms in asked)
    assert outcome.accounts.used_time[2] == sum(one.gpus * 1000 * ran_ms for one, ran_ms in asked)
    books = outcome.accounts
    assert all(used <= capacity for used, capacity in zip(books.used_time, books.capacity_time, strict=True))
    tenants = books.tenants.values()
    assert [sum(one.held_time[index] for one in tenants) for index in range(3)] == books.used_time
    assert books.fragments_time <= books.fragmentation.number * (books.capacity_time[2] - books.used_time[2])
