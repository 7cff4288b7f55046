"""decide: what is placed where and in which order, within budgets; and that it is a function."""

from __future__ import annotations

import pytest

from eventsched import codec
from eventsched.events import Admitted, PolicyJudged, PolicySet, RunAssigned, Ticked
from eventsched.projections.cluster.digest import decode_state, digest, encode_state
from eventsched.projections.scheduling.decide import decide
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.planner import Planner
from eventsched.resources import Resources
from eventsched.spec import FakeRun, JobSpec

from ..support import Ledger, asking, ready


def _placed(ledger: Ledger) -> dict[str, str]:
    ledger.settle()
    return {job.job_id: job.node for job in ledger.state.jobs.values() if job.state == "assigned"}


def _fleet(*cpus: int, policy: str = "") -> Ledger:
    ledger = Ledger()
    ledger.lead()
    for index, count in enumerate(cpus):
        ledger.join(f"n{index}", cpus=count)
    if policy:
        ledger.put("ev.admin.policy_set", PolicySet(name=policy))
    ledger.settle()
    return ledger


def test_priority_then_submission() -> None:
    ledger = _fleet(1)
    ledger.submit("low", asking(priority=-5))
    ledger.submit("first", asking())
    ledger.submit("second", asking())
    ledger.submit("high", asking(priority=9))
    order = []
    for _ in range(4):
        ledger.settle()
        (run,) = ledger.state.runs
        order.append(ledger.run(run).key.partition("/")[2])
        ledger.ended(run)
    assert order == ["high", "first", "second", "low"]


def test_what_does_not_fit_blocks_nobody() -> None:
    ledger = _fleet(2)
    ledger.submit("huge", asking(cpus=50, priority=9))
    ledger.submit("small", asking())
    assert _placed(ledger) == {"small": "n0"}


def test_best_fit_fills_the_fullest_node() -> None:
    ledger = _fleet(8, 4, 16)
    ledger.submit("a", asking(cpus=3))
    ledger.submit("b", asking())
    assert _placed(ledger) == {"a": "n1", "b": "n1"}


def test_first_fit_takes_the_first_node() -> None:
    ledger = _fleet(8, 4, 16, policy="first-fit")
    ledger.submit("a", asking(cpus=3))
    assert _placed(ledger) == {"a": "n0"}


def test_ties_go_to_the_smallest_node_id_whatever_the_order_of_joining() -> None:
    for order in (("n1", "n2", "n3"), ("n3", "n1", "n2")):
        ledger = Ledger()
        ledger.lead()
        for name in order:
            ledger.join(name)
        ledger.settle()
        ledger.submit("a", asking())
        assert _placed(ledger) == {"a": "n1"}


def test_memory_counts_only_when_asked_for() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("n1", cpus=8, memory=2 << 30)
    ledger.settle()
    ledger.submit("a", asking(memory=1 << 30))
    ledger.submit("b", asking(memory=1 << 30))
    ledger.submit("c", asking(memory=1 << 20))
    ledger.submit("d", asking())
    assert _placed(ledger) == {"a": "n1", "b": "n1", "d": "n1"}


def test_gpus_are_exact_devices_of_the_model() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("n1", gpus=("A100", "H100", "A100"))
    ledger.settle()
    ledger.submit("two", asking(gpus=2, model="a100"))
    ledger.submit("any", asking(gpus=1))
    ledger.submit("none-left", asking(gpus=1, model="A100"))
    ledger.settle()
    assert ledger.run(ledger.job("two").run).gpus == ("n1-gpu0", "n1-gpu2")
    assert ledger.run(ledger.job("any").run).gpus == ("n1-gpu1",)
    assert ledger.job("none-left").state == "pending"
    ledger.ended(ledger.job("two").run)
    ledger.settle()
    assert ledger.run(ledger.job("none-left").run).gpus == ("n1-gpu0",)


def test_a_driver_is_a_filter() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("n1", drivers=("docker",))
    ledger.settle()
    ledger.submit("fake", asking())
    ledger.submit("image", JobSpec(image="busybox"))
    assert _placed(ledger) == {"image": "n1"}


def test_a_round_keeps_its_budget_and_the_next_one_goes_on() -> None:
    ledger = _fleet(100)
    ledger.submit("a", asking(array=50))
    seen = 0
    while True:
        proposed = ledger.round(limit=7)
        assert len(proposed) <= 7
        if not proposed:
            break
        seen += sum(isinstance(one.event, RunAssigned) for one in proposed)
    assert seen == 50


def test_a_round_is_stamped_and_only_its_first_message_says_on_what_it_was_decided() -> None:
    ledger = _fleet(4)
    for index in range(3):
        ledger.submit(f"j{index}")
    rounds, basis, now = ledger.state.rounds, ledger.state.seq, ledger.state.clock_ms + 5
    events = [one.event for one in ledger.decide(now)]
    assert [(e.round, e.index, e.count) for e in events] == [(rounds + 1, index, 3) for index in range(3)]
    assert (events[0].basis, events[0].now_ms, events[0].policy) == (basis, now, "fgd/1")
    assert (events[1].basis, events[1].now_ms, events[1].policy) == (0, 0, "")


def test_a_lone_job_is_accepted_by_its_assign() -> None:
    ledger = _fleet(4)
    ledger.submit("j")
    (only,) = ledger.round()
    assert isinstance(only.event, RunAssigned)
    assert ledger.job("j").admitted


def test_what_cannot_be_placed_is_admitted_by_a_verdict() -> None:
    ledger = _fleet(4)
    ledger.submit("j", asking(cpus=99))
    (only,) = ledger.round()
    assert isinstance(only.event, Admitted)
    assert ledger.job("j").admitted


def test_deciding_changes_nothing() -> None:
    ledger = _fleet(4, 4)
    for index in range(20):
        ledger.submit(f"j{index}", asking(gpus=index % 2))
    before = digest(ledger.state)
    ledger.decide()
    assert digest(ledger.state) == before


def test_folding_the_output_gives_the_working_state() -> None:
    ledger = _fleet(6, 7)
    for index in range(30):
        ledger.submit(f"j{index}", asking(cpus=1 + index % 3))
    planner = Planner(ledger.state)
    for one in decide(ledger.state, ledger.state.clock_ms, planner):
        ledger.put(one.subject, one.event)
    after = Fleet(ledger.state)
    planner.sync(ledger.state)
    assert planner.fleet.cpu_free.tolist() == after.cpu_free.tolist()
    assert min(after.cpu_free) >= 0


def test_the_same_decisions_from_a_snapshot() -> None:
    ledger = _fleet(4, 4, 4)
    for index in range(40):
        ledger.submit(f"j{index}", asking(priority=index % 3))
    copy = decode_state(encode_state(ledger.state))
    one, other = decide(ledger.state, 5_000_000), decide(copy, 5_000_000)
    assert [codec.encode(a.event) for a in one] == [codec.encode(b.event) for b in other]


def test_shifting_all_times_changes_no_choice() -> None:
    choices = []
    for shift in (0, 10**9):
        ledger = Ledger()
        ledger.now_ms += shift
        ledger.lead()
        ledger.join("n0")
        ledger.join("n1")
        ledger.settle()
        for index in range(10):
            ledger.submit(f"j{index}", asking(retries=1))
        choices.append(_placed(ledger))
    assert choices[0] == choices[1]


def test_a_policy_is_adopted_by_an_event_and_a_wrong_one_refused() -> None:
    ledger = _fleet(8, 4)
    ledger.put("ev.admin.policy_set", PolicySet(name="first-fit"))
    (judged,) = ledger.round()
    assert isinstance(judged.event, PolicyJudged)
    assert ledger.state.policy.name == "first-fit"
    ledger.put("ev.admin.policy_set", PolicySet(name="lottery"))
    ledger.put("ev.admin.policy_set", PolicySet(name="best-fit", params={"x": 1}))
    ledger.settle()
    assert ledger.state.policy.name == "first-fit"
    assert ledger.state.anomalies == {"policy_refused": 2}
    ledger.submit("a", asking(cpus=3))
    assert _placed(ledger) == {"a": "n0"}


def test_an_assign_says_why() -> None:
    ledger = _fleet(8, 4)
    ledger.put("ev.admin.policy_set", PolicySet(name="best-fit"))
    ledger.settle()
    ledger.submit("a", asking(cpus=2))
    (one,) = ledger.decide()
    assert isinstance(one.event, RunAssigned)
    assert (one.subject, one.event.score, one.event.runner_up, one.event.feasible) == ("ev.assign.n1", -1250, "n0", 2)
    assert (one.event.runner_up_score, one.event.terms) == (-1750, {}), "750 of the cpu and all memory is left there"


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        (asking(cpus=99), "too_big", "asks 99 cpus, the largest node has 4"),
        (asking(cpus=4), "cpu", "at most 3 free on one of 2 nodes"),
        (asking(memory=100 << 30), "too_big", "the largest node has 8G"),
        (asking(gpus=1, model="H100"), "gpu_model", "none of 2 nodes has a GPU H100"),
        (asking(gpus=2, model="A100"), "too_big", "the largest node has 1"),
        (JobSpec(driver="fake", hold=True), "held", "release"),
        (JobSpec(driver="process", command=("x",)), "driver", "none of 2 nodes offers the process driver"),
        (asking(cpus=4, gpus=1), "cpu", "at most 3 free"),
    ],
)
def test_a_waiting_job_says_why(spec: JobSpec, code: str, words: str) -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("n1", gpus=("A100",), drivers=("fake",))
    ledger.join("n2", drivers=("fake",))
    ledger.settle()
    ledger.submit("x1")
    ledger.submit("x2", JobSpec(driver="fake", resources=Resources(cpu_millis=4000), fake=FakeRun()))
    ledger.settle()
    ledger.submit("j", spec)
    ledger.settle()
    why = ledger.why("j")
    assert (why[0], words in why[1]) == (code, True), why


def test_a_cluster_without_nodes_says_so() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.submit("j")
    ledger.settle()
    assert ledger.why("j")[0] == "no_nodes"


def test_a_manual_clock_places_only_when_it_moves() -> None:
    ledger = Ledger(clock_mode="manual")
    ledger.lead()
    ledger.join()
    assert ledger.state.clock_ms == 0
    ledger.settle()
    ledger.submit("j")
    (verdict,) = ledger.round()
    assert isinstance(verdict.event, Admitted)
    assert not ledger.round()
    ledger.raw("ev.admin.clock_set", b'{"now_ms":60000}')
    assert ledger.state.clock_ms == 60_000
    assert [type(one.event) for one in ledger.round()] == [RunAssigned, Ticked]
    ledger.raw("ev.admin.clock_set", b'{"now_ms":1}')
    assert (ledger.state.clock_ms, ledger.state.anomalies) == (60_000, {"clock_back": 1})


def test_a_tick_lasts_until_all_that_can_start_is_placed_however_many_rounds_it_takes() -> None:
    ledger = Ledger(clock_mode="manual")
    ledger.lead()
    ledger.join(cpus=8)
    for index in range(5):
        ledger.submit(f"j{index}")
    ledger.settle()
    ledger.raw("ev.admin.clock_set", b'{"now_ms":60000}')
    sizes = [len(ledger.round(limit=2)) for _ in range(4)]
    assert sizes == [2, 2, 2, 0]
    assert len(ledger.state.runs) == 5
    assert not ledger.state.tick


def test_what_comes_after_a_tick_that_placed_nothing_waits_for_the_next() -> None:
    """Also for a leader that was not there when the tick was served."""
    ledger = Ledger(clock_mode="manual")
    ledger.lead()
    ledger.join()
    ledger.settle()
    ledger.raw("ev.admin.clock_set", b'{"now_ms":60000}')
    assert [type(one.event) for one in ledger.round()] == [Ticked]
    ledger.submit("j")
    ledger.settle()
    ledger.lead("s2")
    ledger.settle()
    assert ledger.job("j").state == "pending"


def test_ten_thousand_waiting_jobs_of_one_kind_cost_one_look() -> None:
    ledger = ready()
    state = ledger.state
    ledger.submit("full", asking(cpus=4))
    ledger.settle()
    ledger.submit("many", asking(array=10_000))
    ledger.settle()
    planner = Planner(state)
    assert sum(len(queue) for queue in planner.queues.values()) == 1
    assert decide(state, state.clock_ms, planner) == []
