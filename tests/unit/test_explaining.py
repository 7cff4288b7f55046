"""explain: every stage of the pipeline asked about one job, with numbers."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from eventsched.cli.explaining import NODES_REFUSED, explanation
from eventsched.events import TenantSet
from eventsched.explanation import Explanation, Quota
from eventsched.projections.queries import Queries
from eventsched.projections.scheduling.filters import FILTERS
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.views.explaining import explain
from eventsched.query import GetRequest
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger, ready


def _explain(ledger: Ledger, job_id: str, tenant: str = "") -> Explanation:
    state = ledger.state
    view = Queries(state, None).get(GetRequest(job_id, tenant), state.clock_ms)
    return explain(state, Planner(state), view, state.clock_ms)


def _spec(priority: int = 0, **asked: Any) -> JobSpec:
    return JobSpec(driver="fake", priority=priority, resources=Resources(**asked))


@pytest.fixture
def ledger() -> Ledger:
    ledger = ready()
    ledger.join("n2", cpus=8, gpus=("A100", "A100"), price_micros_per_h=3_000_000)
    ledger.settle()
    return ledger


def test_a_job_that_waits_for_room(ledger: Ledger) -> None:
    for name in ("a", "b", "c"):
        ledger.submit(name, _spec(cpu_millis=4000))
    ledger.settle()
    ledger.submit("first", _spec(5, cpu_millis=3000))
    ledger.submit("second", _spec(cpu_millis=2000))
    ledger.submit("third", _spec(cpu_millis=2000))
    ledger.settle()
    found = _explain(ledger, "third")
    assert (found.stage, found.code) == ("nodes", "cpu")
    assert found.place is not None
    assert (found.place.position, found.place.waiting) == (3, 3)
    assert [one.job_id for one in found.place.first] == ["first", "second"]
    assert found.nodes is not None
    assert (found.nodes.total, found.nodes.with_room) == (2, 0)
    assert [(one.code, one.nodes, one.asked, one.best) for one in found.nodes.refused] == [
        ("cpu", 2, "2 cpus", "0 cpus")
    ]


def test_the_place_in_the_order_counts_every_class(ledger: Ledger) -> None:
    for index in range(12):
        ledger.submit(f"big{index}", _spec(index % 3, cpu_millis=9000 + index % 4))
    ledger.settle()
    waiting = sorted((-(index % 3), index) for index in range(12))
    for position, (_, index) in enumerate(waiting, 1):
        place = _explain(ledger, f"big{index}").place
        assert place is not None
        assert (place.position, len(place.first)) == (position, min(5, position - 1))
        assert [one.job_id for one in place.first] == [f"big{other}" for _, other in waiting[: position - 1][:5]]


def _refusing(found: Explanation, with_room: int) -> Quota:
    """The quota that refuses it, while so many nodes would have room."""
    assert found.quota is not None
    assert found.nodes is not None
    assert (found.quota.refuses, found.nodes.with_room) == (True, with_room)
    return found.quota


def test_a_job_that_waits_for_its_quota(ledger: Ledger) -> None:
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", gpu_models={"A100": 1}, runs=9))
    ledger.submit("holds", _spec(gpus=1, gpu_model="A100"))
    ledger.settle()
    ledger.submit("waits", _spec(gpus=1, gpu_model="A100"))
    ledger.settle()
    found = _explain(ledger, "waits")
    assert (found.stage, found.code) == ("quota", "quota")
    quota = _refusing(found, with_room=1)
    assert quota.limits == {"runs": 9, "gpu_millis:a100": 1000}
    assert (quota.held["gpu_millis:a100"], quota.held["runs"]) == (1000, 1)
    assert [(one.job_id, one.node, one.gpu_millis) for one in quota.holders] == [("holds", "n2", 1000)]


@pytest.mark.parametrize("asked", [{"gpu_model": "A100"}, {}, {"gpu_model": "a100-sxm4"}])
def test_the_quota_row_says_what_the_reason_says(ledger: Ledger, asked: dict[str, str]) -> None:
    ledger.join("n3", cpus=8, gpus=("A100/A100-SXM4",) * 3)
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", gpu_models={"A100": 1}))
    ledger.submit("holds", _spec(gpus=1, gpu_model="A100-SXM4"))
    ledger.submit("waits", _spec(gpus=1, **asked))
    ledger.settle()
    found = _explain(ledger, "waits")
    assert (found.code, found.text) == ("quota", "asks 1 A100; tenant t holds 1 of 1")
    assert found.quota is not None
    assert found.quota.refuses
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", gpu_models={"A100": 2}))
    found = _explain(ledger, "waits")
    assert found.code == "turn"
    assert found.quota is not None
    assert not found.quota.refuses


def test_the_quota_is_named_before_a_lack_of_room(ledger: Ledger) -> None:
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", gpu_models={"A100": 1}))
    ledger.submit("other", _spec(gpus=1, gpu_model="A100"), tenant="other")
    ledger.submit("holds", _spec(gpus=1, gpu_model="A100"))
    ledger.settle()
    ledger.submit("waits", _spec(gpus=1, gpu_model="A100"))
    ledger.settle()
    found = _explain(ledger, "waits")
    assert (found.stage, found.code) == ("quota", "quota")
    _refusing(found, with_room=0)


@pytest.mark.parametrize("asked", [{"gpu_model": "A100"}, {}])
@pytest.mark.parametrize("kinds", [{"gpu_models": {"A100": 1}}, {"gpus": 1}])
def test_a_gang_that_its_quota_lets_start_in_part(ledger: Ledger, asked: dict[str, str], kinds: dict[str, Any]) -> None:
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", **kinds))
    ledger.submit("g", JobSpec(driver="fake", array=2, gang=True, resources=Resources(gpus=1, **asked)))
    ledger.settle()
    kind = "A100" if "gpu_models" in kinds else "GPUs"
    for name in ("g", "g.1"):
        found = _explain(ledger, name)
        assert found.code == "quota"
        assert found.text == f"asks 1 {kind} for each of 2 members; tenant t holds 0 of 1: enough for 1 of them"
        assert found.quota is not None
        assert found.quota.refuses


def test_a_cohort_that_has_no_more_to_lend(ledger: Ledger) -> None:
    for tenant in ("t", "u"):
        ledger.put("ev.admin.tenant_set", TenantSet(tenant=tenant, gpu_models={"A100": 1}, cohort="c"))
    ledger.submit("borrows", _spec(gpus=2, gpu_model="A100"), tenant="u")
    ledger.settle()
    assert ledger.job("borrows", "u").state != "pending"
    ledger.submit("more", _spec(gpus=1, gpu_model="A100"), tenant="u")
    ledger.settle()
    ledger.submit("mine", _spec(gpus=1, gpu_model="A100"))
    ledger.round(limit=1)  # so much as to accept it
    for job_id, tenant, code in (("more", "u", "quota"), ("mine", "t", "lent_out")):
        found = _explain(ledger, job_id, tenant)
        assert found.quota is not None
        assert (found.code, found.stage, found.quota.refuses) == (code, "quota", True)


def test_a_spent_budget_shows_its_money(ledger: Ledger) -> None:
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", budget_micros=0, runs=3))
    ledger.submit("waits")
    ledger.settle()
    found = _explain(ledger, "waits")
    assert found.code == "budget"
    assert found.quota is not None
    assert (found.quota.refuses, found.quota.limits) == (True, {"runs": 3, "micros": 0})
    screen = Console(width=120, file=StringIO())
    screen.print(explanation(found))
    assert "refuses now; runs 0 of 3, spent 0.00 of 0.00" in screen.file.getvalue()


@pytest.mark.parametrize(
    ("spec", "code", "refused"),
    [
        (_spec(gpus=1, gpu_model="H100"), "gpu_model", [("gpu_model", 2, "", "")]),
        (_spec(gpus=4), "too_big", [("gpu_model", 1, "", ""), ("gpu", 1, "4 GPUs", "2 GPUs")]),
        (
            JobSpec(driver="fake", max_price_micros_per_h=1_000_000, resources=Resources(gpus=1)),
            "resources",
            [("price", 1, "1.00 an hour", "3.00 an hour"), ("gpu_model", 1, "", "")],
        ),
    ],
)
def test_who_refuses_and_for_what(ledger: Ledger, spec: JobSpec, code: str, refused: list[Any]) -> None:
    ledger.submit("j", spec)
    ledger.settle()
    found = _explain(ledger, "j")
    assert found.code == code
    assert found.nodes is not None
    assert [(one.code, one.nodes, one.asked, one.best) for one in found.nodes.refused] == refused


def test_every_filter_has_words_for_the_nodes_it_refuses() -> None:
    assert list(NODES_REFUSED) == [one.code for one in FILTERS]


def test_a_gang_that_cannot_form(ledger: Ledger) -> None:
    ledger.submit("g", JobSpec(driver="fake", array=4, gang=True, resources=Resources(cpu_millis=4000)))
    ledger.settle()
    for name in ("g", "g.2"):
        found = _explain(ledger, name)
        assert (found.code, found.text) == ("gang_forming", "3 of 4 members fit")


def test_jobs_that_do_not_wait_for_the_pipeline(ledger: Ledger) -> None:
    ledger.submit("held", JobSpec(driver="fake", hold=True))
    ledger.submit("runs")
    ledger.settle()
    ledger.submit("new")
    assert (_explain(ledger, "held").stage, _explain(ledger, "new").stage) == ("held", "admission")
    running = _explain(ledger, "runs")
    assert (running.stage, running.place, running.nodes) == ("running", None, None)
    ledger.ended(ledger.job("runs").run, exit_code=3)
    assert (_explain(ledger, "runs").stage, _explain(ledger, "runs").code) == ("ended", "exit_code")
