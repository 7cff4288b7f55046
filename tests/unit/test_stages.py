"""Orders, sweeps, backfill and compositions written as text, each held against its rule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsched import subjects
from eventsched.events import NodeLeaving, PolicySet
from eventsched.ids import job_key
from eventsched.projections.cluster.check import check
from eventsched.projections.cluster.state import PolicyChoice
from eventsched.projections.queries import Queries
from eventsched.projections.scheduling.placing import Placing
from eventsched.projections.scheduling.policies import refuse, written_out
from eventsched.projections.simulation.engine import START_MS, Simulation
from eventsched.projections.simulation.workload import Shape, SimJob, Workload, make_nodes
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger

HOUR = 3_600_000


def spec(cpus: int = 1, gpus: int = 0, **fields: object) -> JobSpec:
    return JobSpec(driver="fake", resources=Resources(cpu_millis=cpus * 1000, gpus=gpus), **fields)  # type: ignore[arg-type]


def cluster(*cpus: int, policy: str, **params: int | str) -> Ledger:
    ledger = Ledger()
    ledger.lead()
    for index, count in enumerate(cpus):
        ledger.join(f"n{index}", cpus=count, gpus=("A100",) * 2)
    ledger.put("ev.admin.policy_set", PolicySet(name=policy, params=params))
    ledger.settle()
    assert not ledger.state.anomalies
    return ledger


def order(ledger: Ledger) -> list[str]:
    """The jobs in the order in which they run one at a time."""
    found = []
    while True:
        ledger.settle()
        if not ledger.state.runs:
            return found
        (run,) = ledger.state.runs
        found.append(ledger.run(run).key.removeprefix("t/"))
        ledger.ended(run)


def blocked(ledger: Ledger, cpus: int = 1) -> int:
    """Fill the cluster; the run to be ended when all are submitted."""
    ledger.submit("blocker", spec(cpus))
    ledger.settle()
    return ledger.job("blocker").run


# ---- orders -------------------------------------------------------------------------------------


def test_the_least_work_first_and_the_unknown_last() -> None:
    ledger = cluster(2, policy="srsf")
    run = blocked(ledger, 2)
    ledger.submit("unknown", spec(2, priority=9))
    ledger.submit("long", spec(2, estimate_ms=10_000))
    ledger.submit("limited", spec(2, max_runtime_ms=9_000))
    ledger.submit("two-gpus", spec(2, gpus=2, estimate_ms=8_000))
    ledger.submit("one-gpu", spec(2, gpus=1, estimate_ms=8_000))
    ledger.submit("short", spec(2, estimate_ms=1_000, max_runtime_ms=HOUR))
    ledger.submit("tie", spec(2, estimate_ms=1_000, priority=1))
    ledger.ended(run)
    assert order(ledger) == ["tie", "short", "one-gpu", "two-gpus", "limited", "long", "unknown"]


def test_the_earliest_deadline_first() -> None:
    ledger = cluster(1, policy="edf")
    run = blocked(ledger)
    ledger.submit("none", spec(priority=9))
    ledger.submit("early", spec(deadline_ms=10_000))
    ledger.now_ms += 5_000
    ledger.submit("later", spec(deadline_ms=6_000))
    ledger.submit("now", spec(deadline_ms=1_000))
    ledger.ended(run)
    assert order(ledger) == ["now", "early", "later", "none"]


@pytest.mark.parametrize("policy", ["best-fit", "quota-aging", "drf"])
def test_what_had_to_give_way_is_worth_one_priority_more(policy: str) -> None:
    ledger = cluster(1, policy=policy)
    ledger.submit("evicted", spec())
    ledger.settle()
    node = ledger.job("evicted").node
    ledger.put(subjects.node(node), NodeLeaving(session=ledger.state.nodes[node].session, reason="spot"))
    ledger.ended(ledger.job("evicted").run, "stopped", 143)
    assert ledger.job("evicted").evictions == 1
    ledger.submit("dearer", spec(priority=2))
    ledger.submit("equal", spec(priority=1))
    ledger.submit("plain", spec())
    ledger.settle()
    ledger.join(node, cpus=1)
    assert order(ledger) == ["dearer", "evicted", "equal", "plain"]


def test_every_so_many_rounds_the_oldest_come_first() -> None:
    def runs(sweep_every: int) -> list[str]:
        ledger = cluster(1, policy="best-fit", sweep_every=sweep_every)
        ledger.submit("old", spec(priority=-5))
        ledger.submit("first", spec(priority=5))
        found = []
        for index in range(8):
            ledger.submit(f"j{index}", spec(priority=5))
            ledger.settle()
            (run,) = ledger.state.runs
            found.append(ledger.run(run).key.removeprefix("t/"))
            ledger.ended(run)
        return found

    assert "old" not in runs(0)
    swept = runs(4)
    assert "old" in swept
    assert swept.index("old") > 0, "only in a round that sweeps"


# ---- compositions as text -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("order=drf,score=spread", {"order": "drf", "score": "spread"}),
        ("order=aging, aging_ms=500", {"order": "aging", "aging_ms": 500}),
        ("backfill=easy", {"backfill": "easy"}),
        ("score=a:3,b:1,order=fifo", {"score": "a:3,b:1", "order": "fifo"}),
    ],
)
def test_a_composition_may_be_one_text(text: str, params: dict[str, int | str]) -> None:
    assert written_out(PolicyChoice(text)) == PolicyChoice("composed", 1, params)


def test_it_is_adopted_like_any_other() -> None:
    ledger = cluster(1, 4, policy="order=drf,score=spread", backfill="easy")
    assert ledger.state.policy.name == "composed"
    assert (ledger.state.policy.params["order"], ledger.state.policy.params["backfill"]) == ("drf", "easy")
    ledger.submit("j", spec())
    ledger.settle()
    assert ledger.job("j").node == "n1"
    assert "no order 'nonsense'" in refuse(written_out(PolicyChoice("order=nonsense")))
    assert "no parameter 'ordr'" in refuse(written_out(PolicyChoice("ordr=drf")))


# ---- backfill -------------------------------------------------------------------------------------


def test_others_start_only_if_they_do_not_delay_the_first() -> None:
    ledger = cluster(4, policy="backfill")
    ledger.submit("running", spec(3, estimate_ms=10_000))
    ledger.settle()
    ledger.started(ledger.job("running").run)
    ledger.submit("head", spec(4, estimate_ms=1_000))
    ledger.submit("unknown", spec(1))
    ledger.submit("long", spec(1, estimate_ms=20_000))
    ledger.submit("short", spec(1, estimate_ms=9_000))
    ledger.settle()
    assert ledger.states() == {
        "running": "assigned" if not ledger.run(ledger.job("running").run).started_ms else "running",
        "head": "pending",
        "unknown": "pending",
        "long": "pending",
        "short": "assigned",
    }


def test_who_waits_for_a_reservation_or_behind_one_is_told() -> None:
    ledger = cluster(4, policy="backfill")
    ledger.submit("running", spec(3, estimate_ms=60_000))
    ledger.settle()
    ledger.submit("head", spec(4, estimate_ms=1_000))
    ledger.submit("long", spec(1, estimate_ms=HOUR))
    ledger.settle()
    queries = Queries(ledger.state, None)
    head, long = (queries.view(ledger.job(name), ledger.state.clock_ms) for name in ("head", "long"))
    assert head.reason == "reserved"
    assert head.detail.startswith("starts in 60.0s")
    assert head.detail.endswith("on n0, if runs end as expected")
    assert long.reason == "backfill"
    assert long.detail.startswith("it fits now, but may delay job head of t, which starts in 60.0s")


def test_what_stays_free_may_be_used_by_all() -> None:
    ledger = cluster(4, policy="backfill")
    ledger.submit("running", spec(3, estimate_ms=10_000))
    ledger.settle()
    ledger.submit("head", spec(3, estimate_ms=1_000))
    ledger.submit("unknown", spec(1))
    ledger.settle()
    assert ledger.job("unknown").state == "assigned", "three of four are enough for the head"


def test_runs_of_unknown_length_give_no_reservation_and_overdue_ones_end_now() -> None:
    ledger = cluster(4, policy="backfill")
    ledger.submit("unknown", spec(3))
    ledger.settle()
    ledger.submit("head", spec(4, estimate_ms=1_000))
    ledger.submit("any", spec(1, estimate_ms=HOUR))
    ledger.settle()
    assert ledger.job("any").state == "assigned", "nobody knows when the head can start"

    ledger = cluster(4, policy="backfill")
    ledger.submit("overdue", spec(3, estimate_ms=1_000))
    ledger.settle()
    ledger.now_ms += 60_000
    ledger.submit("head", spec(4, estimate_ms=1_000))
    ledger.submit("tiny", spec(1, estimate_ms=1))
    ledger.settle()
    assert ledger.job("tiny").state == "pending", "the head may start any moment"


def test_what_never_fits_is_no_obstacle() -> None:
    ledger = cluster(4, policy="backfill")
    ledger.submit("running", spec(2, estimate_ms=10_000))
    ledger.settle()
    ledger.submit("huge", spec(64, estimate_ms=1_000))
    ledger.submit("head", spec(4, estimate_ms=1_000))
    ledger.submit("long", spec(1, estimate_ms=HOUR))
    ledger.submit("short", spec(1, estimate_ms=5_000))
    ledger.settle()
    assert [ledger.job(name).state for name in ("huge", "head", "long", "short")] == [
        *["pending"] * 3,
        "assigned",
    ]


@pytest.mark.parametrize(("policy", "late"), [("backfill", "assigned"), ("backfill-conservative", "pending")])
def test_conservative_keeps_a_place_for_the_second_as_well(policy: str, late: str) -> None:
    """The first may start in 10 s and the second 5 s later, on all cpus; one is not needed until then."""
    ledger = cluster(4, policy=policy)
    ledger.submit("running", spec(3, estimate_ms=10_000))
    ledger.settle()
    ledger.submit("head", spec(3, estimate_ms=5_000))
    ledger.submit("second", spec(4, estimate_ms=5_000))
    ledger.submit("late", spec(1, estimate_ms=20_000))
    ledger.submit("fits", spec(1, estimate_ms=14_000))
    ledger.settle()
    assert ledger.job("head").state == ledger.job("second").state == "pending"
    assert ledger.job("late").state == late, "only without a place for the second may it run so long"
    assert ledger.job("fits").state == ("pending" if late == "assigned" else "assigned")


WORK = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4), st.integers(1, 30)), min_size=1, max_size=25)


@settings(max_examples=60)
@given(WORK, st.sampled_from(["backfill", "backfill-conservative"]))
def test_with_exact_estimates_every_promise_is_kept(work: list[tuple[int, int, int]], policy: str) -> None:
    """The first that waits starts no later than it was ever promised; where each has a promise, none starts
    later than without any overtaking. Invariants are checked after every round."""
    jobs = [
        SimJob(at * 1000, "t", f"j{index:02}", _gang(width, length * 1000), length * 1000)
        for index, (at, width, length) in enumerate(work)
    ]
    simulation = Simulation(Workload(jobs, make_nodes(4, Shape())), policy)
    promised: dict[str, int] = {}
    while simulation.step():
        assert check(simulation.state) == []
        _note_promises(simulation, promised)
    records = simulation.finish().records
    started = {record.key: record.started_ms for record in records if record.state == "succeeded"}
    assert len(started) == len(jobs)
    if policy == "backfill":
        late = {key: at for key, at in promised.items() if started[key] > at}
        assert not late, (late, started)
    else:
        strict = _strict_fifo(4, jobs)
        assert all(started[key] <= strict[key] for key in strict), (started, strict)


def _note_promises(simulation: Simulation, promised: dict[str, int]) -> None:
    """The earliest time each job that waits has been promised."""
    simulation.planner.sync(simulation.state)
    placing = Placing(simulation.state, simulation.planner, simulation.now_ms, {}, lambda *_: True)
    assert not list(placing.run()), "a round follows that should be empty"
    for key, reservation in placing.reserved.items():
        promised[key] = min(reservation.at_ms, promised.get(key, reservation.at_ms))


def _gang(width: int, length_ms: int) -> JobSpec:
    return JobSpec(
        driver="fake",
        resources=Resources(cpu_millis=1000),
        estimate_ms=length_ms,
        array=width if width > 1 else 0,
        gang=width > 1,
    )


def _strict_fifo(cores: int, jobs: list[SimJob]) -> dict[str, int]:
    """Start times when nobody ever overtakes anybody."""
    free_at = [0] * cores
    started: dict[str, int] = {}
    last = 0
    for job in sorted(jobs, key=lambda one: one.submit_ms):
        width = max(1, job.spec.array)
        free_at.sort()
        last = max(last, START_MS + job.submit_ms, free_at[width - 1])
        free_at[:width] = [last + job.duration_ms] * width
        started[job_key(job.tenant, job.job_id)] = last
    return started
