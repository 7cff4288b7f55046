"""Preemption: who gives way, what it is told, and that nobody is stopped in vain."""

from __future__ import annotations

from eventsched import subjects
from eventsched.cli.tables import job_block
from eventsched.events import NodeJoined, PolicySet, RunAssigned, StopOrdered, TenantSet
from eventsched.projections.scheduling.decide import Proposed
from eventsched.projections.views.present import job_view
from eventsched.resources import Capacity, Gpu, Resources
from eventsched.spec import JobSpec

from ..support import Ledger


def spec(cpus: int = 1, priority: int = 0, gpus: int = 0, model: str = "", **fields: object) -> JobSpec:
    asked = Resources(cpu_millis=cpus * 1000, gpus=gpus, gpu_model=model)
    return JobSpec(driver="fake", resources=asked, priority=priority, **fields)  # type: ignore[arg-type]


def cluster(*cpus: int, gpus: tuple[str, ...] = (), policy: str = "best-fit", **params: int | str) -> Ledger:
    ledger = Ledger()
    ledger.lead()
    for index, count in enumerate(cpus):
        ledger.join(f"n{index}", cpus=count, gpus=gpus)
    ledger.put("ev.admin.policy_set", PolicySet(name=policy, params={"preempt": 1, **params}))
    ledger.settle()
    assert not ledger.state.anomalies
    return ledger


def start(ledger: Ledger, job_id: str, what: JobSpec, tenant: str = "t") -> int:
    ledger.submit(job_id, what, tenant)
    ledger.settle()
    run = ledger.job(job_id, tenant).run
    assert run, job_id
    ledger.started(run)
    return run


def stops(proposed: list[Proposed]) -> list[StopOrdered]:
    return [one.event for one in proposed if isinstance(one.event, StopOrdered)]


def stopping(ledger: Ledger) -> list[str]:
    return [run.key.partition("/")[2] for run in ledger.state.runs.values() if run.stop_reason]


def test_the_lower_gives_way_and_is_told_for_whom() -> None:
    ledger = cluster(2)
    low = start(ledger, "low", spec(2))
    ledger.submit("high", spec(2, priority=10))
    (stop,) = stops(ledger.round())
    assert (stop.run, stop.reason, stop.detail) == (low, "preempted", "in favour of t/high (priority 10)")
    assert stop.in_favour_of == "t/high"
    assert not ledger.round(), "once is enough"
    assert ledger.why("high") == ("promised", "runs on n0 are being stopped for it: 1")
    ledger.ended(low, "stopped", 143)
    ledger.settle()
    victim = ledger.job("low")
    assert ledger.job("high").state == "assigned"
    assert (victim.state, victim.reason, victim.detail) == ("pending", "preempted", stop.detail)
    assert (victim.evictions, victim.failures) == (1, 0)
    view = job_view(ledger.state, victim)
    assert (view.evictions, view.losses) == (1, 1)
    names, values = ([str(cell) for cell in column.cells] for column in job_block(view, 0).columns)
    assert dict(zip(names, values, strict=True))["attempt"] == "1  (failures 0, losses 1, gave way once)"


def test_equals_do_not_and_nobody_is_stopped_without_the_switch() -> None:
    ledger = cluster(2)
    start(ledger, "low", spec(2, priority=5))
    ledger.submit("same", spec(2, priority=5))
    ledger.settle()
    assert not stopping(ledger)
    ledger = cluster(2, preempt=0)
    start(ledger, "low", spec(2))
    ledger.submit("high", spec(2, priority=5))
    ledger.settle()
    assert not stopping(ledger)


def test_best_effort_gives_way_to_all_and_latency_sensitive_to_none_of_its_priority() -> None:
    ledger = cluster(2)
    start(ledger, "dear", spec(1, priority=9, sla="best_effort"))
    start(ledger, "plain", spec(1))
    ledger.submit("one", spec(1))
    ledger.settle()
    assert stopping(ledger) == ["dear"], "best effort, whatever its priority"
    ledger.submit("two", spec(1, sla="latency_sensitive"))
    ledger.settle()
    assert stopping(ledger) == ["dear", "plain"]


def test_the_fewest_with_the_least_to_lose_on_one_node() -> None:
    ledger = cluster(4, 4)
    old = start(ledger, "old", spec(4))
    ledger.now_ms += 60_000
    start(ledger, "a", spec(2))
    start(ledger, "b", spec(1))
    start(ledger, "c", spec(1))
    assert old
    ledger.submit("high", spec(3, priority=1))
    ledger.settle()
    assert sorted(stopping(ledger)) in (["a", "b"], ["a", "c"]), "not the old one, and not all three"


def test_on_spot_first() -> None:
    ledger = Ledger()
    ledger.lead()
    for name, spot in (("n0", False), ("n1", True)):
        joined = NodeJoined(machine_id=name, boot_id="b", capacity=Capacity(1000, 0), drivers=("fake",), spot=spot)
        ledger.put(subjects.node(name), joined)
    ledger.put("ev.admin.policy_set", PolicySet(name="first-fit", params={"preempt": 1}))
    ledger.settle()
    start(ledger, "safe", spec())
    start(ledger, "spot", spec())
    ledger.submit("high", spec(priority=1))
    ledger.settle()
    assert stopping(ledger) == ["spot"]


def test_it_never_helps_nobody() -> None:
    ledger = cluster(2, 2, gpus=("A100",))
    start(ledger, "a", spec(2))
    start(ledger, "b", spec(2))
    ledger.submit("huge", spec(3, priority=10))  # no node is large enough
    ledger.submit("rare", spec(1, priority=10, gpus=1, model="H100"))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="poor", runs=0))
    ledger.submit("over", spec(1, priority=10), "poor")
    ledger.settle()
    assert not stopping(ledger)


def test_a_model_over_the_quota_drives_out_nobody() -> None:
    ledger = cluster(4, gpus=("A100",))
    start(ledger, "low", spec(1, gpus=1), "other")
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", gpu_models={"A100": 0}))
    ledger.submit("high", spec(1, priority=3, gpus=1))
    ledger.settle()
    assert not stopping(ledger)


def test_the_place_is_kept_while_the_victims_stop() -> None:
    """In order of submission the others are ahead; the place is promised all the same."""
    ledger = cluster(4, policy="fifo")
    first, second = start(ledger, "first", spec(2)), start(ledger, "second", spec(2))
    ledger.submit("early", spec(2))
    ledger.settle()
    ledger.submit("high", spec(4, priority=5))
    ledger.settle()
    assert sorted(stopping(ledger)) == ["first", "second"]
    ledger.ended(first, "stopped", 143)
    ledger.settle()
    assert ledger.job("early").state == "pending", "half of the place is free, and promised"
    assert ledger.job("first").state == "pending"
    ledger.planner = None  # nothing but the state remembers the promise
    ledger.ended(second, "stopped", 143)
    ledger.settle()
    assert ledger.job("high").state == "assigned"
    assert [ledger.job(name).state for name in ("early", "first", "second")] == ["pending"] * 3
    assert ledger.job("high").promised == ""


def test_what_is_not_promised_may_be_used_meanwhile() -> None:
    ledger = cluster(4)
    start(ledger, "low", spec(3))
    ledger.submit("high", spec(2, priority=5))
    ledger.settle()
    assert stopping(ledger) == ["low"]
    ledger.submit("small", spec(1))
    ledger.submit("late", spec(2))
    ledger.settle()
    assert ledger.job("small").state == "assigned", "one cpu is free, and two of three will be promised"
    assert ledger.job("late").state == "pending"


def test_a_promise_on_a_node_that_is_gone_is_void() -> None:
    ledger = cluster(2, 2)
    low = start(ledger, "low", spec(2))
    start(ledger, "other", spec(2, priority=3))
    ledger.submit("high", spec(2, priority=5))
    ledger.settle()
    assert stopping(ledger) == ["low"]
    node = ledger.run(low).node
    ledger.join(node, cpus=1)  # it came back smaller; its run is closed
    ledger.settle()
    assert stopping(ledger) == ["other"]
    (run,) = (run.seq for run in ledger.state.runs.values() if run.stop_reason)
    ledger.ended(run, "stopped", 143)
    ledger.settle()
    assert ledger.job("high").state == "assigned"


def test_a_victim_does_not_come_back_at_its_preemptor() -> None:
    ledger = cluster(1)
    runs = {"low": start(ledger, "low", spec(1, max_lost=100))}
    ledger.submit("high", spec(1, priority=1))
    ledger.settle()
    ledger.ended(runs["low"], "stopped", 143)
    ledger.settle()
    for _ in range(20):
        ledger.settle()
        assert not stopping(ledger)
    assert ledger.job("high").state == "assigned"


def test_a_tenant_gives_way_only_so_often_at_a_time() -> None:
    ledger = cluster(*[1] * 6, preempt_max=2)
    for index in range(6):
        start(ledger, f"low{index}", spec(), "victim")
    for index in range(6):
        ledger.submit(f"high{index}", spec(priority=1))
    ledger.settle()
    assert len(stopping(ledger)) == 2
    first = next(run.seq for run in ledger.state.runs.values() if run.stop_reason)
    ledger.ended(first, "stopped", 143)
    ledger.settle()
    assert len(stopping(ledger)) == 2, "another one's turn"


def test_who_would_not_survive_it_is_left_alone() -> None:
    ledger = cluster(1)
    start(ledger, "low", spec(1, max_lost=0))
    ledger.submit("high", spec(1, priority=1))
    ledger.settle()
    assert not stopping(ledger)


def test_what_is_about_to_be_free_drives_out_nobody() -> None:
    from eventsched.events import RequeueRequested

    ledger = cluster(1, 1)
    start(ledger, "a", spec())
    start(ledger, "b", spec())
    ledger.ask("a", "requeue_requested", RequeueRequested())
    ledger.settle()
    ledger.submit("high", spec(priority=1))
    ledger.settle()
    assert stopping(ledger) == ["a"], "its node will do"


def test_a_whole_gang_gives_way() -> None:
    ledger = cluster(2, 2)
    ledger.submit("gang", spec(1, array=4, gang=True))
    ledger.settle()
    ledger.submit("high", spec(2, priority=1))
    ledger.settle()
    assert len(stopping(ledger)) == 4
    assert ledger.job("gang").evictions == 1
    for run in list(ledger.state.runs):
        ledger.ended(run, "stopped", 143)
    ledger.settle()
    assert ledger.job("high").state == "assigned"
    assert ledger.job("gang").state == "pending"


def test_the_members_of_an_array_drive_out_one_after_the_other() -> None:
    ledger = cluster(3)
    for index in range(3):
        start(ledger, f"low{index}", spec())
    ledger.submit("array", spec(priority=2, array=3))
    for _ in range(3):
        ledger.settle()
        for run in [run.seq for run in ledger.state.runs.values() if run.stop_reason]:
            ledger.ended(run, "stopped", 143)
    ledger.settle()
    assert sorted(run.key for run in ledger.state.runs.values()) == ["t/array.0", "t/array.1", "t/array.2"]


def test_gpus_of_victims_are_given_on() -> None:
    ledger = Ledger()
    ledger.lead()
    devices = tuple(Gpu(f"g{index}", model) for index, model in enumerate(("A100", "A100", "H100", "H100")))
    joined = NodeJoined(machine_id="m", boot_id="b", capacity=Capacity(64_000, 0, devices), drivers=("fake",))
    ledger.put(subjects.node("n1"), joined)
    ledger.put("ev.admin.policy_set", PolicySet(name="best-fit", params={"preempt": 1}))
    ledger.settle()
    start(ledger, "a", spec(1, gpus=1, model="A100"))
    start(ledger, "h", spec(1, gpus=2, model="H100"))
    ledger.submit("high", spec(1, priority=1, gpus=2, model="A100"))
    ledger.settle()
    assert stopping(ledger) == ["a"]
    ledger.submit("any", spec(1, gpus=1))
    ledger.settle()
    assert ledger.job("any").state == "pending", "the free A100 is promised"
    (run,) = (run.seq for run in ledger.state.runs.values() if run.stop_reason)
    ledger.ended(run, "stopped", 143)
    (assign,) = (one.event for one in ledger.round() if isinstance(one.event, RunAssigned))
    assert assign.gpus == ("g0", "g1")
