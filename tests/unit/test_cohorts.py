"""Cohorts: what is lent, what is borrowed, and how owners get back what is theirs."""

from __future__ import annotations

import pytest

from eventsched.events import NodeJoined, RunAssigned, TenantSet
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.quota import BORROWS, LENT_OUT, LIMIT, POOL, Quotas
from eventsched.projections.scheduling.reclaiming import Reclaiming
from eventsched.projections.scheduling.usage import GPUS, RUNS, Usage
from eventsched.resources import Capacity, Gpu, Resources
from eventsched.spec import JobSpec

from ..support import Ledger


def _gpus(count: int = 1, model: str = "A100", **fields: object) -> JobSpec:
    asked = Resources(cpu_millis=1000, gpus=count, gpu_model=model if count else "")
    return JobSpec(driver="fake", resources=asked, **fields)  # type: ignore[arg-type]


def _cluster(*gpus: str, **created: object) -> Ledger:
    ledger = Ledger(**created)
    ledger.lead()
    ledger.join("n0", cpus=64, gpus=gpus)
    ledger.settle()
    return ledger


def _tenants(ledger: Ledger, **owned: int) -> None:
    """Members of the cohort `lab`, each owning so many A100."""
    for tenant, count in owned.items():
        _own(ledger, tenant, gpu_models={"A100": count})


def _own(ledger: Ledger, tenant: str, **limits: object) -> None:
    ledger.put("ev.admin.tenant_set", TenantSet(**{"tenant": tenant, "cohort": "lab", **limits}))  # type: ignore[arg-type]
    assert not ledger.state.anomalies


def _submit(ledger: Ledger, tenant: str, count: int, first: int = 0, **fields: object) -> None:
    for index in range(first, first + count):
        ledger.submit(f"{tenant}{index}", _gpus(**fields), tenant)  # type: ignore[arg-type]


def _running(ledger: Ledger, tenant: str) -> int:
    return sum(run.key.startswith(f"{tenant}/") for run in ledger.state.runs.values())


def _stopped(ledger: Ledger) -> dict[str, str]:
    """Job id -> what its run was told when it was ordered to stop."""
    return {
        run.key.partition("/")[2]: f"{run.stop_reason}: {run.stop_detail}"
        for run in ledger.state.runs.values()
        if run.stop_reason
    }


def _stop(ledger: Ledger) -> None:
    """The agent carries out all stops."""
    for seq in [seq for seq, run in ledger.state.runs.items() if run.stop_reason]:
        ledger.ended(seq, "stopped", 143)


# ---- lending and borrowing --------------------------------------------------------------------


def test_what_nobody_uses_is_lent() -> None:
    ledger = _cluster(*["A100"] * 8)
    _tenants(ledger, a=2, b=2)
    _submit(ledger, "a", 6)
    ledger.settle()
    assert _running(ledger, "a") == 4, "its own 2 and the 2 of b"
    says = "asks 1 A100; tenant a holds 4 of 2, and cohort lab has no more to lend"
    assert ledger.why("a5", "a") == ("quota", says)


@pytest.mark.parametrize(
    ("borrower", "lender", "holds", "says"),
    [
        ({"borrow_percent": 0}, {}, 4, "asks 1 A100; tenant a holds 4 of 4"),
        ({"borrow_percent": 50}, {}, 6, "asks 1 A100; tenant a holds 6 of 6"),
        ({"borrow_percent": 1_000}, {}, 8, "holds 8 of 4, and cohort lab has no more to lend"),
        ({}, {"lend_percent": 0}, 4, "holds 4 of 4, and cohort lab has no more to lend"),
        ({}, {"lend_percent": 50}, 6, "holds 6 of 4, and cohort lab has no more to lend"),
        ({}, {"cohort": "elsewhere"}, 4, "holds 4 of 4"),
    ],
)
def test_how_far_borrowing_and_lending_go(
    borrower: dict[str, object], lender: dict[str, object], holds: int, says: str
) -> None:
    ledger = _cluster(*["A100"] * 10)
    _own(ledger, "a", gpu_models={"A100": 4}, **borrower)
    _own(ledger, "b", gpu_models={"A100": 4}, **lender)
    _submit(ledger, "a", 10)
    ledger.settle()
    assert _running(ledger, "a") == holds
    assert says in ledger.why("a9", "a")[1]
    _submit(ledger, "b", 10)
    ledger.settle()
    assert _running(ledger, "b") == 8 - holds


def test_a_member_that_owns_nothing_may_borrow_and_one_without_limits_takes_nothing_from_the_pool() -> None:
    ledger = _cluster(*["A100"] * 12)
    _tenants(ledger, a=0, b=3)
    _own(ledger, "free")
    _submit(ledger, "free", 5)
    _submit(ledger, "a", 5)
    ledger.settle()
    assert (_running(ledger, "free"), _running(ledger, "a")) == (5, 3)


@pytest.mark.parametrize("kind", ["runs", "cpu_millis", "memory_bytes", "gpus"])
def test_every_kind_is_lent(kind: str) -> None:
    ledger = _cluster(*["A100"] * 12)
    unit = {"runs": 1, "cpu_millis": 1000, "memory_bytes": 1 << 20, "gpus": 1}[kind]
    _own(ledger, "a", **{kind: 2 * unit})
    _own(ledger, "b", **{kind: 3 * unit})
    spec = JobSpec(driver="fake", resources=Resources(cpu_millis=1000, memory_bytes=1 << 20, gpus=1))
    for index in range(8):
        ledger.submit(f"a{index}", spec, "a")
    ledger.settle()
    assert _running(ledger, "a") == 5


def test_owners_come_before_borrowers_whatever_the_priority() -> None:
    ledger = _cluster(*["A100"] * 8)
    _tenants(ledger, a=1, b=3)
    _submit(ledger, "a", 4, priority=9)
    _submit(ledger, "b", 3, priority=-9)
    ledger.settle()
    assert (_running(ledger, "a"), _running(ledger, "b")) == (1, 3)


def test_an_array_goes_on_borrowing_where_its_own_ended() -> None:
    ledger = _cluster(*["A100"] * 8)
    _tenants(ledger, a=2, b=2)
    ledger.submit("array", _gpus(array=6), "a")
    ledger.settle()
    keys = [run.key for run in ledger.state.runs.values()]
    assert keys == [f"a/array.{index}" for index in range(4)]


# ---- reclaiming -------------------------------------------------------------------------------


def test_an_owner_gets_back_what_is_lent_from_the_youngest() -> None:
    ledger = _cluster(*["A100"] * 8)
    _tenants(ledger, a=2, b=2)
    _submit(ledger, "a", 6)
    ledger.settle()
    _submit(ledger, "b", 1)
    ledger.round()
    assert ledger.why("b0", "b") == ("lent_out", "asks 1 A100; tenant b holds 0 of 2; more than they own hold: a")
    assert _stopped(ledger) == {"a3": "preempted: reclaimed by tenant b for job b0"}
    ledger.settle()
    assert len(_stopped(ledger)) == 1, "what is being stopped counts: no more of them"
    _stop(ledger)
    ledger.settle()
    assert (_running(ledger, "a"), _running(ledger, "b")) == (3, 1), "the borrower does not snatch it again"
    job = ledger.job("a3", "a")
    assert (job.state, job.reason, job.evictions) == ("pending", "preempted", 1)
    assert job.detail == "reclaimed by tenant b for job b0"


def test_nothing_is_reclaimed_beyond_what_is_owned_or_for_nothing() -> None:
    ledger = _cluster(*["A100"] * 8)
    _tenants(ledger, a=2, b=2)
    _submit(ledger, "a", 6)
    ledger.settle()
    ledger.submit("large", _gpus(3), "b")
    ledger.settle()
    assert not _stopped(ledger), "b would have to borrow for it"


def test_no_run_is_given_up_that_can_be_spared() -> None:
    ledger = _cluster(*["A100"] * 12)
    _tenants(ledger, a=0, b=4)
    ledger.submit("wide", _gpus(3), "a")
    ledger.settle()
    ledger.submit("narrow", _gpus(1), "a")
    ledger.settle()
    ledger.submit("owner", _gpus(3), "b")
    ledger.settle()
    assert list(_stopped(ledger)) == ["wide"], "the youngest alone would not do, and is not needed"
    _stop(ledger)
    ledger.settle()
    assert ledger.job("owner", "b").state == "assigned"
    assert ledger.job("narrow", "a").state == "assigned"


def test_runs_that_end_one_by_one_are_kept_for_the_owner() -> None:
    """A borrower that waits does not take the first GPU given back while the owner waits for the second."""
    ledger = _cluster(*["A100"] * 8)
    _tenants(ledger, a=2, b=2)
    _submit(ledger, "a", 8)
    ledger.settle()
    ledger.submit("owner", _gpus(2), "b")
    ledger.settle()
    assert sorted(_stopped(ledger)) == ["a2", "a3"]
    first, second = [seq for seq, run in ledger.state.runs.items() if run.stop_reason]
    ledger.ended(first, "stopped", 143)
    ledger.settle()
    assert _running(ledger, "a") == 3
    ledger.ended(second, "stopped", 143)
    ledger.settle()
    assert (_running(ledger, "a"), _running(ledger, "b")) == (2, 1)


def test_whoever_would_end_by_it_gives_way_last() -> None:
    ledger = _cluster(*["A100"] * 8)
    _tenants(ledger, a=0, b=3)
    ledger.submit("old", _gpus(), "a")
    ledger.settle()
    ledger.submit("brittle", _gpus(max_lost=0), "a")
    ledger.settle()
    ledger.submit("middle", _gpus(), "a")
    ledger.settle()
    quotas = Quotas(ledger.state, Usage(ledger.state), ledger.state.clock_ms)
    lent = Reclaiming(ledger.state, quotas).lent("b", {GPUS: 1000, f"{GPUS}:a100": 1000})
    assert [held.run.key for held in lent] == ["a/middle", "a/old", "a/brittle"]


def test_the_causes_of_a_refusal() -> None:
    ledger = _cluster(*["A100"] * 8)
    for tenant in ("a", "b"):
        _own(ledger, tenant, runs=2)
    _submit(ledger, "a", 3)
    ledger.settle()
    quotas = Quotas(ledger.state, Usage(ledger.state), ledger.state.clock_ms)
    assert quotas.judge("a", {RUNS: 1}) is None
    refused = quotas.judge("a", {RUNS: 1}, borrow=False)
    assert refused is not None
    assert (refused.cause, refused.held, refused.limit) == (BORROWS, 3, 2)
    assert getattr(quotas.judge("a", {RUNS: 2}), "cause", "") == POOL
    refused = quotas.judge("b", {RUNS: 2})
    assert refused is not None
    assert (refused.cause, refused.borrowers) == (LENT_OUT, ("a",))
    copy = quotas.copy()
    copy.change("a", {RUNS: 1}, -1)
    assert copy.judge("b", {RUNS: 2}) is None
    assert quotas.judge("b", {RUNS: 2}) == refused, "a copy is another one"
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="a", runs=2))
    refused = Quotas(ledger.state, Usage(ledger.state), 0).judge("a", {RUNS: 1})
    assert getattr(refused, "cause", "") == LIMIT


# ---- shares of GPUs ---------------------------------------------------------------------------


def test_a_share_of_a_gpu_is_worth_its_share() -> None:
    ledger = Ledger()
    ledger.lead()
    devices = (Gpu("g0", "A100"), Gpu("g1", "A100"))
    session = ledger.put(
        "ev.node.n0", NodeJoined(machine_id="m", boot_id="b", capacity=Capacity(8000, 0, devices), drivers=("fake",))
    )
    ledger.settle()
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", gpus=2, gpu_models={"A100": 1}))
    for index, millis in enumerate((300, 450)):
        ledger.submit(f"j{index}", JobSpec(driver="fake", hold=True))
        ledger.settle()
        ledger.put(
            "ev.assign.n0",
            RunAssigned(
                epoch=ledger.state.epoch,
                round=ledger.state.rounds + 1,
                basis=ledger.state.seq,
                session=session,
                tenant="t",
                job=f"j{index}",
                gpus=("g0",),
                gpu_millis=millis,
            ),
        )
    quotas = Quotas(ledger.state, Usage(ledger.state), 0)
    held = quotas.shares.held("t")
    assert (held[RUNS], held[GPUS], held[f"{GPUS}:a100"]) == (2, 750, 750)
    need = Need("fake", 1000, 0, 0, 250, "", "")
    assert quotas.refusal("t", need) is None
    assert quotas.model_refusal("t", need, ("A100",)) is None
    quotas.take("t", need, ["A100"])
    refused = quotas.model_refusal("t", need, ("A100",))
    assert refused is not None
    assert (refused.asked, refused.held, refused.limit) == (250, 1000, 1000)
    assert quotas.refusal("t", Need("fake", 1000, 0, 1, 0, "", "")) is None
    assert quotas.refusal("t", Need("fake", 1000, 0, 2, 0, "", "")) is not None
    quotas.take("t", need, ["A100"], -1)
    assert quotas.model_refusal("t", need, ("A100",)) is None


# ---- nothing by default -----------------------------------------------------------------------


def test_where_nothing_is_given_by_default() -> None:
    ledger = _cluster("A100", "A100", "H100", "H100", quota_default="nothing")
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="some", gpu_models={"A100": 1}))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="any", gpus=1))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="cpus", cpu_millis=9_000))
    for tenant in ("some", "any", "cpus", "nobody"):
        for model in ("A100", "H100"):
            ledger.submit(model, _gpus(model=model), tenant)
        ledger.submit("none", _gpus(0), tenant)
    ledger.settle()
    running = {run.key for run in ledger.state.runs.values()}
    assert running == {"some/A100", "some/none", "any/A100", "any/none", "cpus/none"}
    assert ledger.why("H100", "some") == ("quota", "asks 1 H100; tenant some holds 0 of 0")
    assert ledger.why("none", "nobody")[1].startswith("tenant nobody has no quota, and this cluster gives nothing")


def test_a_member_that_was_granted_no_gpus_borrows_models_from_the_pool_only() -> None:
    ledger = _cluster(*["A100"] * 4, *["H100"] * 4, quota_default="nothing")
    _own(ledger, "a", runs=9)
    _own(ledger, "b", gpu_models={"A100": 2}, gpus=4)
    for index in range(4):
        ledger.submit(f"h{index}", _gpus(model="H100"), "a")
        ledger.submit(f"a{index}", _gpus(), "a")
    ledger.settle()
    assert [run.key for run in ledger.state.runs.values()] == ["a/a0", "a/a1"]


def test_an_owner_gets_its_devices_back_when_borrowers_hold_all_there_are() -> None:
    ledger = _cluster("A100", "A100", "A100", "A100")
    _tenants(ledger, owner=2, other=2)
    _submit(ledger, "other", 4)
    ledger.settle()
    assert _running(ledger, "other") == 4, "it borrows what the owner leaves"
    _submit(ledger, "owner", 3)
    ledger.settle()
    told = "preempted: reclaimed by tenant owner for job "
    assert _stopped(ledger) == {"other3": told + "owner0", "other2": told + "owner1"}, "what it owns, and no more"
    _stop(ledger)
    ledger.settle()
    assert (_running(ledger, "owner"), _running(ledger, "other")) == (2, 2)
    assert not _stopped(ledger)


def test_a_node_is_cleared_for_a_job_that_needs_several_devices() -> None:
    ledger = Ledger()
    ledger.lead()
    for node in ("n0", "n1"):
        ledger.join(node, cpus=64, gpus=("A100", "A100"))
    ledger.settle()
    _tenants(ledger, owner=2, other=2)
    _submit(ledger, "other", 4)
    ledger.settle()
    ledger.submit("pair", _gpus(2), "owner")
    ledger.settle()
    stopping = {run.node for run in ledger.state.runs.values() if run.stop_reason}
    assert (len(_stopped(ledger)), len(stopping)) == (2, 1), "both on one node"
    _stop(ledger)
    ledger.settle()
    assert ledger.job("pair", "owner").node == stopping.pop()


def test_nobody_gives_way_to_an_owner_whose_job_would_fit_nowhere_all_the_same() -> None:
    ledger = _cluster("A100", "A100")
    _tenants(ledger, owner=4, other=0)
    _submit(ledger, "other", 2)
    ledger.settle()
    ledger.submit("large", _gpus(3), "owner")
    ledger.settle()
    assert (_running(ledger, "other"), _stopped(ledger)) == (2, {})
