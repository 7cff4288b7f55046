"""Policies: orders, scores and quotas, each held against a straight rendering of its rule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsched.events import PolicySet, TenantSet
from eventsched.projections.cluster.digest import decode_state, encode_state
from eventsched.projections.scheduling.policies import POLICIES

from ..support import Ledger, asking


def _cluster(*nodes: int, policy: str = "", params: dict[str, int | str] | None = None, **created: object) -> Ledger:
    ledger = Ledger(**created)
    ledger.lead()
    for index, cpus in enumerate(nodes):
        ledger.join(f"n{index}", cpus=cpus)
    if policy:
        ledger.put("ev.admin.policy_set", PolicySet(name=policy, params=params or {}))
    ledger.settle()
    assert not ledger.state.anomalies
    return ledger


def _running(ledger: Ledger) -> list[str]:
    """Keys of what has a run, in the order it was assigned."""
    return [ledger.state.runs[seq].key for seq in sorted(ledger.state.runs)]


def _order_on_one_cpu(ledger: Ledger) -> list[str]:
    order = []
    while True:
        ledger.settle()
        if not ledger.state.runs:
            return order
        (run,) = ledger.state.runs
        order.append(ledger.run(run).key)
        ledger.ended(run)


# ---- orders -----------------------------------------------------------------------------------


def test_fifo_knows_no_priority() -> None:
    ledger = _cluster(1, policy="fifo")
    for index, priority in enumerate((0, 5, -5, 9)):
        ledger.submit(f"j{index}", asking(priority=priority))
    assert _order_on_one_cpu(ledger) == ["t/j0", "t/j1", "t/j2", "t/j3"]


def test_waiting_is_worth_priority_and_ties_go_to_the_earlier() -> None:
    ledger = _cluster(1, policy="quota-aging", params={"aging_ms": 1_000})
    blocker = ledger.submit("blocker", asking())
    ledger.settle()
    ledger.submit("old", asking(priority=0))
    ledger.now_ms += 2_500
    ledger.submit("new", asking(priority=2))
    ledger.submit("newer", asking(priority=3))
    ledger.now_ms += 300
    ledger.ended(max(ledger.state.runs))
    assert blocker
    assert _order_on_one_cpu(ledger) == ["t/newer", "t/old", "t/new"], "2 s waited are worth 2; old was there earlier"


def test_dominant_resource_fairness_by_weight() -> None:
    ledger = _cluster(12, policy="drf")
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="double", weight=2))
    for index in range(20):
        for tenant in ("single", "double"):
            ledger.submit(f"j{index}", asking(priority=index % 3), tenant)
    ledger.settle()
    held = [key.partition("/")[0] for key in _running(ledger)]
    assert (held.count("single"), held.count("double")) == (4, 8)
    for seq in list(ledger.state.runs):
        if ledger.run(seq).key.startswith("double/"):
            ledger.ended(seq)
    ledger.settle()
    held = [key.partition("/")[0] for key in _running(ledger)]
    assert (held.count("single"), held.count("double")) == (4, 8), "who holds least gets what is free"


# ---- scores -----------------------------------------------------------------------------------


def test_spread_is_best_fit_turned_around() -> None:
    for policy, node in (("spread", "n2"), ("best-fit", "n0"), ("first-fit", "n0")):
        ledger = _cluster(2, 4, 8, policy=policy)
        ledger.submit("j", asking())
        ledger.settle()
        assert ledger.job("j").node == node


def test_dot_product_keeps_what_is_alike_apart() -> None:
    """The job asks for cpu; the node with much free cpu and the one with little: the product decides."""
    ledger = _cluster(8, 4, policy="dot-product")
    ledger.submit("j", asking(2))
    ledger.settle()
    assert ledger.job("j").node == "n1"
    (run,) = ledger.state.runs
    assert run


def test_random_is_a_function_of_seed_and_job() -> None:
    def nodes(seed: int) -> list[str]:
        ledger = _cluster(*[64] * 8, policy="random", params={"seed": seed})
        for index in range(64):
            ledger.submit(f"j{index}", asking())
        ledger.settle()
        return [ledger.job(f"j{index}").node for index in range(64)]

    assert nodes(1) == nodes(1)
    assert nodes(1) != nodes(2)
    counts = [nodes(7).count(f"n{index}") for index in range(8)]
    assert min(counts) >= 2, counts
    assert max(counts) <= 20, counts


# ---- choosing ---------------------------------------------------------------------------------


def test_stages_may_be_chosen_and_are_recorded_in_full() -> None:
    ledger = _cluster(1, 9, policy="best-fit", params={"order": "aging", "score": "spread"})
    assert ledger.state.policy.params == {
        "aging_ms": 60_000,
        "backfill": "none",
        "order": "aging",
        "preempt": 0,
        "score": "spread",
        "sweep_every": 0,
    }
    ledger.submit("j", asking())
    ledger.settle()
    assert ledger.job("j").node == "n1"


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("nonsense", {}, "known: backfill"),
        ("best-fit", {"order": "nonsense"}, "no order 'nonsense'; known: priority"),
        ("best-fit", {"score": 3}, "no score '3'"),
        ("best-fit", {"seed": 1}, "takes no parameter 'seed'; it takes: backfill, order, preempt, score"),
        ("random", {"seed": -1}, "from 0 to"),
        ("quota-aging", {"aging_ms": "soon"}, "aging_ms is an integer from 1"),
        ("quota-aging", {"aging_ms": 0}, "aging_ms is an integer from 1"),
    ],
)
def test_what_is_wrong_with_a_choice(name: str, params: dict[str, int | str], says: str) -> None:
    ledger = _cluster(1)
    before = ledger.state.policy
    ledger.put("ev.admin.policy_set", PolicySet(name=name, params=params))
    ledger.settle()
    assert ledger.state.policy == before
    assert says in ledger.state.recent_anomalies[-1].detail


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_switch_sorts_what_waits_anew_and_loses_nothing(name: str) -> None:
    ledger = _cluster(2, 2)
    for index in range(12):
        ledger.submit(f"j{index}", asking(priority=index % 4), tenant=f"t{index % 3}")
    ledger.settle()
    ledger.put("ev.admin.policy_set", PolicySet(name=name))
    ended = 0
    while ledger.state.runs:
        ledger.ended(min(ledger.state.runs))
        ended += 1
        ledger.settle()
    assert ended == 12
    assert {job.state for job in ledger.state.jobs.values()} == {"succeeded"}


# ---- quotas -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "fits", "says"),
    [
        ({"runs": 3}, 3, "asks 1 run; tenant t holds 3 of 3"),
        ({"cpu_millis": 5_000}, 2, "asks 2 cpus; tenant t holds 4 of 5"),
        ({"memory_bytes": 3 << 30}, 3, "asks 1G of memory; tenant t holds 3G of 3G"),
        ({"gpus": 2}, 2, "asks 1 GPUs; tenant t holds 2 of 2"),
        ({"gpu_models": {"a100": 1}}, 1, "asks 1 A100; tenant t holds 1 of 1"),
        ({"gpu_models": {"H100": 0}}, 4, "gpu"),
        ({"cpu_millis": 0}, 0, "asks 2 cpus; tenant t holds 0 of 0"),
    ],
)
def test_each_limit_holds_and_says_so(limits: dict[str, object], fits: int, says: str) -> None:
    ledger = _cluster()
    ledger.join("n0", cpus=64, memory=64 << 30, gpus=("A100",) * 4)
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", **limits))  # type: ignore[arg-type]
    for index in range(5):
        ledger.submit(f"j{index}", asking(2, 1, "A100", 1 << 30))
    ledger.submit("other", asking(2, 0, "", 1 << 30), tenant="free")
    ledger.settle()
    assert len([key for key in _running(ledger) if key.startswith("t/")]) == fits
    assert "free/other" in _running(ledger), "somebody else's quota is no concern of others"
    code, detail = ledger.why("j4")
    assert says in (detail if says != "gpu" else code)
    if fits and says != "gpu":
        ledger.ended(min(ledger.state.runs))
        ledger.settle()
        assert len([key for key in _running(ledger) if key.startswith("t/")]) == fits, "the next one took its place"


def test_a_job_for_any_gpu_gets_a_model_its_tenant_may_still_have() -> None:
    ledger = _cluster()
    ledger.join("n0", gpus=("A100", "A100"))
    ledger.join("n1", gpus=("H100", "H100"))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", gpu_models={"A100": 1, "H100": 1}))
    for index in range(3):
        ledger.submit(f"j{index}", asking(1, 1))
    ledger.settle()
    assert sorted(ledger.job(f"j{index}").node for index in range(2)) == ["n0", "n1"]
    assert ledger.job("j2").state == "pending"
    assert ledger.why("j2")[0] == "quota"


def test_everybody_s_limits_are_for_those_without_their_own() -> None:
    ledger = _cluster(16)
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="*", runs=1))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="rich", runs=3))
    for index in range(4):
        for tenant in ("poor", "rich"):
            ledger.submit(f"j{index}", tenant=tenant)
    ledger.settle()
    held = [key.partition("/")[0] for key in _running(ledger)]
    assert (held.count("poor"), held.count("rich")) == (1, 3)
    assert "limits of *" in ledger.why("j3", "poor")[1]
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="rich", removed=True))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="*", removed=True))
    ledger.settle()
    assert len(_running(ledger)) == 8


def test_a_lowered_limit_stops_nobody_and_lets_nobody_in() -> None:
    ledger = _cluster(16)
    for index in range(4):
        ledger.submit(f"j{index}")
    ledger.settle()
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", runs=2))
    ledger.submit("late")
    ledger.settle()
    assert len(_running(ledger)) == 4
    for _ in range(2):
        ledger.ended(min(ledger.state.runs))
        ledger.settle()
    assert ledger.job("late").state == "pending"
    ledger.ended(min(ledger.state.runs))
    ledger.settle()
    assert ledger.job("late").state == "assigned"


def test_an_array_runs_as_wide_as_its_quota() -> None:
    ledger = _cluster(64)
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", runs=3))
    ledger.submit("array", asking(array=10))
    ledger.settle()
    ended = 0
    while ledger.state.runs:
        assert len(ledger.state.runs) <= 3
        ledger.ended(min(ledger.state.runs))
        ended += 1
        ledger.settle()
    assert ended == 10


@pytest.mark.parametrize("event", [{"tenant": "Not Ok!"}, {"tenant": "t", "runs": -1}, {"tenant": "t", "weight": 0}])
def test_limits_that_make_no_sense_change_nothing(event: dict[str, object]) -> None:
    ledger = _cluster(4)
    ledger.put("ev.admin.tenant_set", TenantSet(**event))  # type: ignore[arg-type]
    assert ledger.state.anomalies == {"bad_tenant": 1}
    assert not ledger.state.tenants


def test_limits_are_part_of_a_snapshot() -> None:
    ledger = _cluster(4)
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", gpu_models={"H100": 1, "A100": 2}, weight=3))
    again = decode_state(encode_state(ledger.state))
    assert again.tenants == ledger.state.tenants
    assert list(again.tenants["t"].gpu_models) == ["a100", "h100"]


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(POLICIES)),
    st.lists(
        st.tuples(
            st.sampled_from(["submit", "end", "limit", "tick"]), st.integers(0, 2), st.integers(0, 3), st.integers(1, 3)
        ),
        max_size=40,
    ),
)
def test_quotas_and_capacity_are_never_exceeded(name: str, steps: list[tuple[str, int, int, int]]) -> None:
    """Any history under any policy; `Ledger` also holds a kept planner against a fresh one each round."""
    ledger = _cluster(3, 5, policy=name)
    limits: dict[str, int] = {}
    for index, (step, who, priority, cpus) in enumerate(steps):
        tenant = f"t{who}"
        if step == "submit":
            ledger.submit(f"j{index}", asking(cpus, priority=priority), tenant)
        elif step == "end" and ledger.state.runs:
            ledger.ended(sorted(ledger.state.runs)[priority % len(ledger.state.runs)])
        elif step == "limit":
            limits[tenant] = max(limits.get(tenant, 0), cpus)  # only raised, so that it must hold at all times
            if tenant not in {key.partition("/")[0] for key in ledger.state.jobs} or tenant in ledger.state.tenants:
                ledger.put("ev.admin.tenant_set", TenantSet(tenant=tenant, runs=limits[tenant]))
        else:
            ledger.now_ms += 61_000
        ledger.settle()
        for tenant_id, own in ledger.state.tenants.items():
            held = [run for run in ledger.state.runs.values() if run.key.startswith(f"{tenant_id}/")]
            assert own.runs is None or len(held) <= own.runs
