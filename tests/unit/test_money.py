"""Money: what runs cost, what tenants have spent, and budgets that refuse."""

from __future__ import annotations

from itertools import pairwise

import pytest

from eventsched.events import AbortRequested, ClockSet, NodeJoined, PriceSet, TenantSet
from eventsched.projections.cluster.digest import decode_state, digest, encode_state
from eventsched.projections.cluster.money import HOUR_MS, cost_between, rate_of, spent_micros
from eventsched.projections.cluster.state import Account, Node, Run
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.views.present import job_view
from eventsched.projections.views.tenants import price_view, tenant_views
from eventsched.resources import Capacity, Gpu, Resources
from eventsched.spec import JobSpec
from eventsched.views import TenantView
from eventsched.wire import MAX_INT

from ..support import Ledger

CORE = 3_600_000
"""A core then costs one micro a millisecond."""
DAY_MS = 24 * HOUR_MS


def _tick(ledger: Ledger, now_ms: int | None = None) -> None:
    """The clock is set, to the same time if to no other, and its rounds are made."""
    ledger.put("ev.admin.clock_set", ClockSet(now_ms=ledger.state.clock_ms if now_ms is None else now_ms))
    ledger.settle()


def _cluster(cpus: int = 8, price: int = CORE, **limits: object) -> Ledger:
    """A manual clock, one node, one price for a core, and the limits of tenant t."""
    ledger = Ledger(clock_mode="manual")
    ledger.lead()
    ledger.join("n0", cpus=cpus)
    ledger.put("ev.admin.price_set", PriceSet(core_micros_per_h=price))
    if limits:
        ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", **limits))  # type: ignore[arg-type]
    _tick(ledger)
    assert not ledger.state.anomalies
    return ledger


def _at(ledger: Ledger, now_ms: int) -> None:
    """What waits gets its round; then it is so late, and there is another round."""
    _tick(ledger)
    _tick(ledger, now_ms)


def _end_all(ledger: Ledger) -> None:
    for seq in list(ledger.state.runs):
        ledger.ended(seq)


def _view(ledger: Ledger, tenant: str = "t") -> TenantView:
    return next(one for one in tenant_views(ledger.state, ledger.state.clock_ms) if one.tenant == tenant)


# ---- rates ------------------------------------------------------------------------------------

BOOK = {"core": 40_000, "gib": 5_000, "gpu": 900_000, "gpu:a100": 2_500_000, "gpu:a100-80gb": 4_000_000}
DEVICES = (Gpu("g0", "A100", "A100-80GB"), Gpu("g1", "A100", "A100-40GB"), Gpu("g2", "H100"), Gpu("g3", "V100"))


def _rate(price: int = 0, cpus: int = 0, memory: int = 0, gpus: tuple[str, ...] = (), millis: int = 0) -> int:
    capacity = Capacity(16_000, 64 << 30, DEVICES)
    node = Node("n", 1, "ready", "m", "b", capacity, 0, 0, price_micros_per_h=price)
    return rate_of(BOOK, node, Run(1, "n", 1, "t/j", 1, cpus, memory, gpus, millis))


@pytest.mark.parametrize(
    ("asked", "rate"),
    [
        ({"cpus": 2_500}, 100_000),
        ({"cpus": 1}, 40),
        ({"memory": 3 << 29}, 7_500),
        ({"memory": 1}, 1),
        ({"gpus": ("g0",)}, 4_000_000),
        ({"gpus": ("g1",)}, 2_500_000),
        ({"gpus": ("g2",)}, 900_000),
        ({"gpus": ("g0", "g1", "g2", "g3")}, 8_300_000),
        ({"gpus": ("g1",), "millis": 250}, 625_000),
        ({"gpus": ("gone",)}, 0),
        ({"cpus": 1_000, "memory": 1 << 30, "gpus": ("g2",)}, 945_000),
        ({}, 0),
    ],
)
def test_the_price_book(asked: dict[str, int], rate: int) -> None:
    assert _rate(**asked) == rate  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "rate"),
    [
        ({"cpus": 4_000}, 2_500_000),
        ({"cpus": 4_000, "memory": 32 << 30}, 5_000_000),
        ({"cpus": 1_000, "gpus": ("g0", "g1", "g2")}, 7_500_000),
        ({"gpus": ("g0",), "millis": 500}, 1_250_000),
        ({"cpus": 1}, 625),
        ({"cpus": 3}, 1_875),
        ({"cpus": 32_000}, 10_000_000),
    ],
)
def test_a_node_s_own_price_is_shared_by_the_largest_part_a_run_holds(asked: dict[str, int], rate: int) -> None:
    assert _rate(price=10_000_000, **asked) == rate  # type: ignore[arg-type]


def test_amounts_round_up_and_parts_add_up_exactly() -> None:
    assert cost_between(1, 0, 0, 1) == 1, "a begun micro is a micro"
    assert cost_between(7, 100, 0, 100) == 0, "before its assign a run costs nothing"
    cuts = [100, 1_000, 3_333, 9_999, 1_000_003, 7_654_321]
    for rate in (1, 7, 1_234_567, MAX_INT):
        parts = [cost_between(rate, 100, start, end) for start, end in pairwise(cuts)]
        assert sum(parts) == cost_between(rate, 100, 100, cuts[-1])
    assert cost_between(MAX_INT, 0, 0, MAX_INT) == MAX_INT


# ---- settling ---------------------------------------------------------------------------------


def test_a_run_costs_from_its_assign_to_its_end_at_the_price_of_its_assign() -> None:
    ledger = _cluster()
    ledger.submit("j", JobSpec(driver="fake", resources=Resources(cpu_millis=2_000)))
    _at(ledger, 1_000)
    ledger.put("ev.admin.price_set", PriceSet(core_micros_per_h=1))
    _at(ledger, 1_500)
    assert job_view(ledger.state, ledger.job("j")).cost_micros == 3_000, "so far, from the round that assigned it"
    assert _view(ledger).total_micros == 3_000
    _end_all(ledger)
    assert ledger.job("j").cost_micros == 3_000
    assert job_view(ledger.state, ledger.job("j")).cost_micros == 3_000
    assert ledger.state.accounts["t"].total_micros == 3_000
    assert not ledger.state.rates
    _at(ledger, 9_000)
    assert _view(ledger).total_micros == 3_000


def test_all_attempts_of_a_job_and_all_members_of_an_array_add_up() -> None:
    ledger = _cluster()
    ledger.submit("again", JobSpec(driver="fake", retries=1, retry_backoff_ms=0))
    ledger.submit("array", JobSpec(driver="fake", array=3))
    _at(ledger, 1_000)
    for seq in list(ledger.state.runs):
        ledger.ended(seq, "exited", int(ledger.run(seq).key == "t/again"))
    _tick(ledger)
    _at(ledger, 3_000)
    _end_all(ledger)
    assert ledger.job("again").cost_micros == 1_000 + 2_000
    assert ledger.job("array").cost_micros == 3_000
    assert [ledger.job(f"array.{index}").cost_micros for index in range(3)] == [1_000] * 3
    assert ledger.state.accounts["t"].total_micros == 6_000


def test_a_run_nobody_wanted_any_more_is_the_tenant_s_not_the_job_s() -> None:
    ledger = _cluster()
    ledger.submit("j")
    ledger.put("ev.admin.clock_set", ClockSet(now_ms=0))
    proposed = ledger.decide()
    ledger.ask("j", "abort_requested", AbortRequested())
    for one in proposed:
        ledger.put(one.subject, one.event)
    _at(ledger, 500)
    _end_all(ledger)
    assert (ledger.job("j").cost_micros, ledger.state.accounts["t"].total_micros) == (0, 500)


def test_without_prices_nothing_is_noted() -> None:
    ledger = _cluster(price=0)
    ledger.submit("j")
    _at(ledger, 5_000)
    _end_all(ledger)
    assert (ledger.state.prices, ledger.state.rates, ledger.state.accounts) == ({}, {}, {})


def test_sums_stop_at_the_largest_number_and_stay_there() -> None:
    ledger = _cluster(cpus=8, price=MAX_INT)
    for index in range(4):
        ledger.submit(f"j{index}", JobSpec(driver="fake", resources=Resources(cpu_millis=2_000)))
    _at(ledger, 10 * HOUR_MS)
    _end_all(ledger)
    assert ledger.state.accounts["t"] == Account(total_micros=MAX_INT)
    assert decode_state(encode_state(ledger.state)).accounts == ledger.state.accounts
    assert _view(ledger).total_micros == MAX_INT


# ---- budgets ----------------------------------------------------------------------------------


def test_a_spent_budget_starts_nothing_until_the_next_period() -> None:
    ledger = _cluster(budget_micros=10_000, budget_period_ms=20_000)
    _at(ledger, 100_000)
    ledger.submit("first", JobSpec(driver="fake", resources=Resources(cpu_millis=2_000)))
    ledger.submit("other", tenant="other")
    _tick(ledger)
    _at(ledger, 104_999)
    ledger.submit("second")
    _tick(ledger)
    assert ledger.job("second").state == "assigned", "9,998 of 10,000 are spent"
    _at(ledger, 105_000)
    ledger.submit("third")
    _tick(ledger)
    assert ledger.job("third").state == "pending", "2 x 5,000 of the first, 1 of the second"
    assert ledger.job("first").state == "assigned", "what runs goes on"
    spent = "tenant t has spent 0.010001 of 0.01; the next period begins in 15.0s"
    assert ledger.why("third") == ("budget", spent)
    assert (_view(ledger).spent_micros, _view(ledger).next_period_ms) == (10_001, 120_000)
    _end_all(ledger)
    _tick(ledger)
    assert ledger.job("third").state == "pending", "ending what runs brings no money back"
    assert ledger.planner is not None
    assert ledger.planner.next_due_ms(ledger.state) == 120_000
    ledger.put("ev.admin.clock_set", ClockSet(now_ms=120_000))
    _tick(ledger)
    assert ledger.job("third").state == "assigned"
    assert ledger.planner.next_due_ms(ledger.state) is None
    view = _view(ledger)
    assert (view.spent_micros, view.previous_micros, view.total_micros) == (0, 10_001, 10_001)


def test_a_run_over_several_periods_is_split_between_them() -> None:
    ledger = _cluster(budget_micros=MAX_INT, budget_period_ms=1_000)
    _at(ledger, 400)
    ledger.submit("j")
    _tick(ledger)
    for now_ms, spent, previous in ((900, 500, 0), (1_300, 300, 600), (3_700, 700, 1_000)):
        _at(ledger, now_ms)
        assert (_view(ledger).spent_micros, _view(ledger).previous_micros) == (spent, previous)
    _end_all(ledger)
    assert ledger.state.accounts["t"] == Account(3_300, 1_000, 3, 700, 1_000)
    assert (_view(ledger).spent_micros, _view(ledger).previous_micros) == (700, 1_000)
    _at(ledger, 4_100)
    assert (_view(ledger).spent_micros, _view(ledger).previous_micros) == (0, 700)
    _at(ledger, 5_100)
    assert (_view(ledger).spent_micros, _view(ledger).previous_micros) == (0, 0)


def test_a_budget_without_a_period_counts_everything_ever() -> None:
    ledger = _cluster()
    ledger.submit("early")
    _at(ledger, 600)
    _end_all(ledger)
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", budget_micros=600))
    ledger.submit("late")
    _at(ledger, 10 * DAY_MS)
    assert ledger.why("late") == ("budget", "tenant t has spent 0.0006 of 0.0006")
    assert ledger.planner is not None
    assert ledger.planner.next_due_ms(ledger.state) is None
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", budget_micros=601))
    _tick(ledger)
    assert ledger.job("late").state == "assigned"


def test_periods_of_another_length_begin_with_nothing_spent() -> None:
    ledger = _cluster(budget_micros=500, budget_period_ms=DAY_MS)
    ledger.submit("j")
    _at(ledger, 700)
    _end_all(ledger)
    ledger.submit("next")
    _tick(ledger)
    assert ledger.job("next").state == "pending"
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", budget_micros=500, budget_period_ms=2 * DAY_MS))
    _tick(ledger)
    assert ledger.job("next").state == "assigned"
    _at(ledger, 900)
    _end_all(ledger)
    assert ledger.state.accounts["t"] == Account(900, 2 * DAY_MS, 0, 200, 0)


def test_everybody_s_budget_is_one_for_each() -> None:
    ledger = _cluster()
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="*", budget_micros=100, budget_period_ms=DAY_MS))
    ledger.submit("j", tenant="a")
    _at(ledger, 100)
    for tenant in ("a", "b"):
        ledger.submit("k", tenant=tenant)
    _tick(ledger)
    assert (ledger.job("k", "a").state, ledger.job("k", "b").state) == ("pending", "assigned")


def test_an_account_outlives_the_limits_and_windows_that_have_gone_count_nothing() -> None:
    assert spent_micros(None, DAY_MS, 0) == (0, 0)
    account = Account(90, DAY_MS, 5, 30, 20)
    assert spent_micros(account, 0, 5 * DAY_MS) == (90, 0)
    assert spent_micros(account, DAY_MS, 5 * DAY_MS) == (30, 20)
    assert spent_micros(account, DAY_MS, 6 * DAY_MS) == (0, 30)
    assert spent_micros(account, DAY_MS, 7 * DAY_MS) == (0, 0)
    assert spent_micros(account, 2 * DAY_MS, 5 * DAY_MS) == (0, 0)


# ---- events -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "event", "kind"),
    [
        ("price_set", PriceSet(core_micros_per_h=-1), "bad_price"),
        ("price_set", PriceSet(gpu_models={"A100": -1}), "bad_price"),
        ("price_set", PriceSet(gpu_models={f"m{index}": 1 for index in range(101)}), "bad_price"),
        ("tenant_set", TenantSet(tenant="t", budget_micros=-1), "bad_tenant"),
        ("tenant_set", TenantSet(tenant="t", budget_period_ms=-1), "bad_tenant"),
        ("tenant_set", TenantSet(tenant="t", lend_percent=101), "bad_tenant"),
        ("tenant_set", TenantSet(tenant="t", borrow_percent=-1), "bad_tenant"),
        ("tenant_set", TenantSet(tenant="t", cohort="not ok"), "bad_tenant"),
        ("tenant_set", TenantSet(tenant="*", cohort="lab"), "bad_tenant"),
    ],
)
def test_what_makes_no_sense_changes_nothing(subject: str, event: PriceSet | TenantSet, kind: str) -> None:
    ledger = _cluster()
    before = (ledger.state.prices, dict(ledger.state.tenants))
    ledger.put(f"ev.admin.{subject}", event)
    assert ledger.state.anomalies == {kind: 1}
    assert (ledger.state.prices, ledger.state.tenants) == before


def test_the_price_book_is_replaced_as_a_whole_and_is_part_of_a_snapshot() -> None:
    ledger = _cluster()
    ledger.put("ev.admin.price_set", PriceSet(gpu_micros_per_h=5, gpu_models={"H100": 3, "A100": 0}))
    view = price_view(ledger.state)
    assert (view.core_micros_per_h, view.gpu_micros_per_h, view.gpu_models) == (0, 5, {"a100": 0, "h100": 3})
    again = decode_state(encode_state(ledger.state))
    assert (again.prices, digest(again)) == (ledger.state.prices, digest(ledger.state))


def test_a_planner_made_from_a_snapshot_knows_what_open_runs_cost() -> None:
    ledger = _cluster(budget_micros=1_000, budget_period_ms=DAY_MS)
    ledger.submit("j")
    _at(ledger, 1_000)
    copy = decode_state(encode_state(ledger.state))
    assert Planner(copy).usage.rates == Planner(ledger.state).usage.rates == {"t": {ledger.job("j").run: (CORE, 0)}}


def test_a_node_that_states_its_price_ignores_the_book() -> None:
    ledger = _cluster()
    joined = NodeJoined(
        machine_id="m1",
        boot_id="b",
        capacity=Capacity(4_000, 0),
        drivers=("process",),
        price_micros_per_h=4 * HOUR_MS,
    )
    ledger.put("ev.node.dear", joined)
    ledger.submit("j", JobSpec(driver="process", command=("true",)))
    ledger.put("ev.node.n0", NodeJoined(machine_id="machine-n0", boot_id="c", capacity=Capacity(), drivers=("fake",)))
    _tick(ledger)
    assert ledger.job("j").node == "dear"
    assert list(ledger.state.rates.values()) == [HOUR_MS]
