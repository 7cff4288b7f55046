"""Filters: which node may take which job, each refusal with its code and numbers."""

from __future__ import annotations

import pytest

from eventsched.events import NodeCordoned, PolicySet
from eventsched.projections.scheduling.filters import FILTERS, Refused, refusals
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.needs import need_of
from eventsched.reasons import REASONS
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger


def _cluster(policy: str = "", **params: int | str) -> Ledger:
    ledger = Ledger()
    ledger.lead()
    if policy:
        ledger.put("ev.admin.policy_set", PolicySet(name=policy, params=params))
        ledger.settle()
    return ledger


def _spec(gpus: int = 0, millis: int = 0, model: str = "", cpus: int = 1, **fields: object) -> JobSpec:
    asked = Resources(cpu_millis=cpus * 1000, gpus=gpus, gpu_millis=millis, gpu_model=model)
    return JobSpec(driver="fake", resources=asked, **fields)  # type: ignore[arg-type]


def _nodes(ledger: Ledger) -> dict[str, str]:
    ledger.settle()
    return {job.job_id: job.node for job in ledger.state.jobs.values()}


def _gpus(ledger: Ledger, job_id: str) -> tuple[tuple[str, ...], int]:
    run = ledger.run(ledger.job(job_id).run)
    return run.gpus, run.gpu_millis


# ---- shares of GPUs ---------------------------------------------------------------------------


def test_shares_fill_a_begun_device_and_leave_whole_ones_alone() -> None:
    ledger = _cluster()
    ledger.join("n1", gpus=("A100", "A100"))
    for name, millis in (("half", 500), ("third", 300), ("big", 600)):
        ledger.submit(name, _spec(millis=millis))
    ledger.settle()
    assert _gpus(ledger, "half") == (("n1-gpu0",), 500)
    assert _gpus(ledger, "third") == (("n1-gpu0",), 300), "the fullest device with room for it"
    assert _gpus(ledger, "big") == (("n1-gpu1",), 600)
    ledger.submit("whole", _spec(gpus=1))
    ledger.submit("much", _spec(millis=700))
    ledger.settle()
    assert ledger.why("whole") == ("gpu", "asks 1 GPU, at most 0 free on one of 1 nodes")
    assert ledger.why("much") == ("gpu", "asks 700/1000 of a GPU, at most 400 free on one of 1 nodes")
    ledger.ended(ledger.job("big").run)
    ledger.settle()
    assert _gpus(ledger, "whole") == (("n1-gpu1",), 0), "an untouched device; nobody shares it"
    assert ledger.job("much").state == "pending"
    ledger.ended(ledger.job("whole").run)
    assert _nodes(ledger)["much"] == "n1"


def test_one_of_several_models_and_all_devices_of_it() -> None:
    ledger = _cluster()
    ledger.join("n1", cpus=16, gpus=("A100", "H100", "H100", "T4"))
    ledger.submit("two", _spec(gpus=2, model="A100|H100"))
    ledger.settle()
    assert _gpus(ledger, "two")[0] == ("n1-gpu1", "n1-gpu2"), "only one A100: both are H100"
    ledger.submit("one", _spec(gpus=1, model="T4|A100"))
    ledger.settle()
    assert _gpus(ledger, "one")[0] == ("n1-gpu3",), "both would do: the first named"
    ledger.submit("share", _spec(millis=100, model="a100|t4"))
    ledger.settle()
    assert _gpus(ledger, "share") == (("n1-gpu0",), 100)
    ledger.submit("none", _spec(gpus=3, model="A100|H100"))
    ledger.submit("unknown", _spec(gpus=1, model="B200|B300"))
    ledger.settle()
    assert ledger.why("none") == ("too_big", "asks 3 A100|H100, the largest node has 2")
    assert ledger.why("unknown")[0] == "gpu_model"


def test_a_variant_is_a_name_too() -> None:
    ledger = _cluster()
    ledger.join("n1", gpus=("A100",))
    ledger.join("n2", gpus=("H100",))
    ledger.submit("j", _spec(gpus=1, model="h100"))
    assert _nodes(ledger) == {"j": "n2"}


# ---- what a node is ---------------------------------------------------------------------------


def test_labels_and_taints() -> None:
    ledger = _cluster()
    ledger.join("n1", labels={"zone": "a", "disk": "ssd"}, taints=("gpu-only",))
    ledger.join("n2", labels={"zone": "b"})
    ledger.submit("b", _spec(node_labels={"zone": "b"}))
    ledger.submit("any-disk", _spec(node_labels={"disk": ""}))
    ledger.submit("tolerant", _spec(node_labels={"disk": "ssd", "zone": "a"}, tolerations=("gpu-only",)))
    ledger.submit("of-all", _spec(node_labels={"disk": ""}, tolerations=("*",)))
    ledger.submit("c", _spec(node_labels={"zone": "c"}))
    assert _nodes(ledger) == {"b": "n2", "any-disk": "", "tolerant": "n1", "of-all": "n1", "c": ""}
    assert ledger.why("c") == ("node_labels", "none of 2 nodes has the labels zone=c")
    assert ledger.why("any-disk")[0] == "resources", "one node lacks the label, the other is tainted"
    ledger.join("n2", labels={"zone": "c"})
    assert _nodes(ledger)["c"] == "n2", "a node that came back with other labels is looked at again"


def test_spot_and_price() -> None:
    ledger = _cluster()
    ledger.join("cheap", spot=True, price_micros_per_h=500_000)
    ledger.join("dear", price_micros_per_h=2_500_000)
    ledger.submit("firm", _spec(spot="never"))
    ledger.submit("poor", _spec(max_price_micros_per_h=1_000_000))
    ledger.submit("both", _spec(spot="never", max_price_micros_per_h=1_000_000))
    ledger.submit("free", _spec(max_price_micros_per_h=0))
    assert _nodes(ledger) == {"firm": "dear", "poor": "cheap", "both": "", "free": ""}
    assert ledger.why("free") == ("price", "pays 0.00 an hour at most; the cheapest of 2 nodes costs 0.50")
    assert ledger.why("both")[0] == "resources"


def test_strict_sla_keeps_latency_sensitive_jobs_off_spot() -> None:
    for params, node in (({}, "a-spot"), ({"strict_sla": 1}, "")):
        ledger = _cluster("first-fit", **params)  # type: ignore[arg-type]
        ledger.join("a-spot", spot=True)
        ledger.submit("j", _spec(sla="latency_sensitive"))
        ledger.submit("batch", _spec())
        assert _nodes(ledger) == {"j": node, "batch": "a-spot"}
    assert ledger.why("j") == ("spot", "it may not run on spot nodes, and all of 1 nodes are")


def test_an_evicted_job_prefers_a_node_that_stays() -> None:
    for after, node in ((1, "safe"), (0, "a-spot")):
        ledger = _cluster("cost-aware", on_demand_after=after)
        ledger.join("a-spot", spot=True, price_micros_per_h=1)
        ledger.join("safe", price_micros_per_h=100_000_000)
        ledger.submit("j", _spec())
        assert _nodes(ledger) == {"j": "a-spot"}
        job = ledger.job("j")
        ledger.ended(job.run, "stopped", None)
        job.evictions, job.not_before_ms = 1, 0
        assert _nodes(ledger) == {"j": node}


def test_so_many_of_a_group_per_node() -> None:
    ledger = _cluster()
    ledger.join("n1", cpus=8)
    ledger.join("n2", cpus=8)
    ledger.submit("array", _spec(array=6, max_per_node=2))
    ledger.settle()
    nodes = [run.node for run in ledger.state.runs.values()]
    assert sorted(nodes) == ["n1", "n1", "n2", "n2"]
    assert ledger.why("array") == ("per_node", "each of 2 nodes has 2 of its group already (max_per_node)")
    ledger.ended(min(ledger.state.runs))
    ledger.settle()
    assert len(ledger.state.runs) == 4, "the next member takes the place"


def test_apart_from_jobs_of_the_same_tenant_only() -> None:
    ledger = _cluster()
    ledger.join("n1", cpus=8)
    ledger.submit("a", _spec(anti_affinity="db"))
    ledger.submit("b", _spec(anti_affinity="db"))
    ledger.submit("c", _spec(anti_affinity="web"))
    ledger.submit("d", _spec(anti_affinity="db"), tenant="other")
    assert _nodes(ledger) == {"a": "n1", "b": "", "c": "n1", "d": "n1"}
    ledger.ended(ledger.job("a").run)
    assert _nodes(ledger)["b"] == "n1"


# ---- refusals ---------------------------------------------------------------------------------


def test_each_node_counts_at_its_first_refusal() -> None:
    ledger = _cluster()
    ledger.join("away")
    ledger.join("cordoned", cpus=64)
    ledger.join("tainted", taints=("x",))
    ledger.join("spot", spot=True)
    ledger.join("dear", price_micros_per_h=7)
    ledger.join("no-gpu")
    ledger.join("small", cpus=2, gpus=("A100",))
    ledger.join("smaller", cpus=1, gpus=("A100",))
    ledger.join("one-gpu", cpus=8, gpus=("A100",))
    ledger.put("ev.admin.node_cordoned", NodeCordoned(node="cordoned"))
    ledger.settle()
    ledger.raw("ev.node.away", b'{"type":"node.leaving","session":%d}' % ledger.state.nodes["away"].session)
    ledger.submit("j", _spec(gpus=2, model="A100", cpus=4, spot="never", max_price_micros_per_h=5))
    ledger.settle()
    found = refusals(Fleet(ledger.state), need_of(ledger.job("j")))
    assert found == [
        Refused("no_nodes", 1),
        Refused("cordoned", 1),
        Refused("taint", 1),
        Refused("spot", 1),
        Refused("price", 1, asked=5, best=7),
        Refused("gpu_model", 1),
        Refused("cpu", 2, asked=4_000, best=2_000),
        Refused("gpu", 1, asked=2, best=1),
    ]


@pytest.mark.parametrize("name", ["anti_affinity", "max_per_node"])
def test_limits_per_node_hold_in_a_planner_that_saw_them_late(name: str) -> None:
    """`Ledger` holds the kept planner against a fresh one; here runs come first, the planner after."""
    ledger = _cluster()
    ledger.join("n1", cpus=8)
    fields = {"anti_affinity": "x"} if name == "anti_affinity" else {"array": 3, "max_per_node": 1}
    ledger.submit("first", _spec())
    ledger.settle()
    ledger.submit("a", _spec(**fields))
    ledger.settle()
    ledger.planner = None
    ledger.submit("b", _spec(**fields))
    ledger.settle()
    assert len([run for run in ledger.state.runs.values() if not run.key.endswith("first")]) == (
        1 if name == "anti_affinity" else 2
    )


def test_every_filter_s_code_is_a_reason() -> None:
    assert not [one.code for one in FILTERS if one.code not in REASONS]
