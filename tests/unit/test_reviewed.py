"""Defects that a review found, each with the smallest story that showed it."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from eventsched import codec, subjects
from eventsched.events import AbortRequested, LeaderClaimed, NodeDrained, PolicySet, ReleaseRequested, TenantSet
from eventsched.log.gather import GatheringWriter
from eventsched.log.memory import MemoryLog
from eventsched.log.port import Conflict, Outgoing
from eventsched.projections.cluster.state import PolicyChoice
from eventsched.projections.leader.core import SchedulerCore
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.forecast import forecast
from eventsched.projections.scheduling.planner import Planner
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import FAKE, Ledger, ready


def test_the_largest_job_is_assigned_and_disturbs_no_other() -> None:
    """Its assign is larger than a submission may be; it was void, and its round with it, for ever."""
    ledger = ready()
    label = "x" * (codec.PAYLOAD_MAX - 200)
    ledger.submit("large", JobSpec(driver="fake", labels={"big": label}))
    ledger.submit("small")
    ledger.settle()
    assert ledger.states() == {"large": "assigned", "small": "assigned"}
    assert not ledger.state.anomalies
    sizes = [len(entry.payload) for entry in ledger.entries if entry.subject.startswith("ev.assign.")]
    assert max(sizes) > codec.PAYLOAD_MAX


def test_a_submission_is_not_larger_because_decisions_may_be() -> None:
    ledger = ready()
    ledger.raw("ev.job.t.huge.submitted", b'{"driver":"fake","name":"' + b"x" * codec.PAYLOAD_MAX + b'"}')
    ledger.settle()
    assert (ledger.job("huge").state, ledger.job("huge").reason) == ("rejected", "too_large")


@pytest.mark.parametrize("length", [60_000, 250_000])
def test_a_verdict_does_not_quote_at_length(length: int) -> None:
    ledger = ready()
    ledger.submit("bad", JobSpec(driver="fake", env={"=" + "x" * length: "1"}))
    ledger.raw("ev.job.t.odd.submitted", b'{"' + b"y" * length + b'":1}')
    ledger.submit("good")
    ledger.settle()
    assert ledger.states() == {"bad": "rejected", "odd": "rejected", "good": "assigned"}
    assert max(len(entry.payload) for entry in ledger.entries if entry.subject.startswith("ev.decide")) < 3_000


def test_junk_on_the_leader_s_subject_costs_an_election_and_not_the_cluster() -> None:
    ledger = ready()
    junk = ledger.raw(subjects.LEADER, b'{"type":"io.nats.jetstream.api.v1.account_info_response"}')
    core = SchedulerCore("s2", ledger.state, "0")
    write = core.claim("n")
    assert write is not None
    assert write.messages[0].expect == junk, "the broker's last sequence on that subject"
    ledger.put(subjects.LEADER, LeaderClaimed(leader="s2", nonce="n"))
    assert not ledger.state.leader_junk
    ledger.submit("j")
    ledger.settle()
    assert ledger.job("j").state == "assigned"


async def test_an_id_twice_at_once_is_one_conflict() -> None:
    """The server refuses a batch that names a subject twice with an expectation, and every retry of it."""
    log = MemoryLog()
    writer = GatheringWriter(log, give_up_s=5)
    ids = ("a", "j1", "b", "j1")
    futures = [
        writer.put_soon(Outgoing(f"ev.job.t.{job_id}.submitted", codec.encode(FAKE), msg_id=f"m{index}", expect=0))
        for index, job_id in enumerate(ids)
    ]
    outcomes = []
    for future in futures:
        try:
            outcomes.append(await future)
        except Conflict:
            outcomes.append(0)
    await writer.close()
    assert [bool(outcome) for outcome in outcomes] == [True, True, True, False]


# ---- scheduling -------------------------------------------------------------------------------


def _lenders(*zones: str) -> Ledger:
    """Nodes of 4 cpus, all lent by `owner` to `bor`."""
    ledger = Ledger()
    ledger.lead()
    for index, zone in enumerate(zones):
        ledger.join(f"n{index}", cpus=4, labels={"zone": zone})
    ledger.settle()
    for index in range(4 * len(zones)):
        ledger.submit(f"b{index}", tenant="bor")
    ledger.settle()
    return ledger


def _in_a_cohort(ledger: Ledger, owned: int) -> None:
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="owner", cpu_millis=owned, cohort="c"))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="bor", cpu_millis=0, cohort="c"))


def test_nobody_gives_way_to_an_owner_s_job_that_no_node_may_take() -> None:
    ledger = _lenders("x", "x")
    _in_a_cohort(ledger, 8_000)
    ledger.submit("o", replace(FAKE, node_labels={"zone": "y"}), tenant="owner")
    ledger.settle()
    assert not [run for run in ledger.state.runs.values() if run.stop_reason]


def test_an_owner_that_waited_before_it_owned_anything_gets_back_what_is_lent() -> None:
    """Its jobs had been set aside for want of room, until a node gained some."""
    ledger = _lenders("x")
    ledger.submit("o", tenant="owner")
    ledger.settle()
    _in_a_cohort(ledger, 4_000)
    ledger.settle()
    assert [run.stop_reason for run in ledger.state.runs.values()].count("preempted") == 1


@pytest.mark.parametrize(("nodes", "policy"), [("ab", "best-fit"), ("b", "cost-aware")], ids=["one", "the last"])
def test_a_node_that_comes_back_without_its_gpus_is_laid_out_anew(nodes: str, policy: str) -> None:
    ledger = Ledger()
    ledger.lead()
    for name in nodes:
        ledger.join(name, cpus=4, gpus=("A100",) * 4)
    ledger.put("ev.admin.policy_set", PolicySet(name=policy))
    ledger.settle()
    ledger.decide()
    ledger.join("b", cpus=4)
    ledger.submit("j")
    ledger.settle()
    assert ledger.job("j").node == "b"


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("order=drf,sweep_every=" + "9" * 5_000, {}, "parameter sweep_every is an integer"),
        ("best-fit", {"score": "fgd" + " " * 197 + ",bogus"}, "at most 200 characters"),
    ],
    ids=["digits", "score"],
)
def test_no_choice_of_a_policy_makes_deciding_fail(name: str, params: dict[str, int | str], said: str) -> None:
    ledger = ready()
    ledger.put("ev.admin.policy_set", PolicySet(name=name, params=params))
    ledger.settle()
    assert said in ledger.state.recent_anomalies[-1].detail
    ledger.submit("j")
    ledger.settle()
    assert ledger.job("j").state == "assigned"


def test_a_scheduler_without_the_policy_in_force_leaves_the_lead_to_others() -> None:
    ledger = ready()
    ledger.state.policy = PolicyChoice("fgd", 2, {})
    core = SchedulerCore("old", ledger.state)
    assert core.claim("n") is None
    assert core.lacks() == "fgd/2"
    assert forecast(ledger.state, 0) == {}


def test_the_weight_of_everybody_counts_for_who_has_none() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join(cpus=10)
    ledger.put("ev.admin.policy_set", PolicySet(name="drf"))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="*", weight=4))
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="x", weight=1))
    ledger.settle()
    for index in range(10):
        for tenant in ("x", "y"):
            ledger.submit(f"{tenant}{index}", tenant=tenant)
    ledger.settle()
    tenants = [run.key[0] for run in ledger.state.runs.values()]
    assert (tenants.count("x"), tenants.count("y")) == (2, 8)


def test_a_job_released_before_anybody_looked_at_it_starts() -> None:
    ledger = ready()
    ledger.submit("j", replace(FAKE, hold=True))
    ledger.ask("j", "release_requested", ReleaseRequested())
    ledger.settle()
    assert ledger.job("j").state == "assigned"


def test_a_drained_node_that_is_empty_is_nothing_to_wake_up_for() -> None:
    ledger = ready()
    ledger.submit("j", replace(FAKE, on_lost="fail"))
    ledger.settle()
    ledger.put("ev.admin.node_drained", NodeDrained(node="n1", deadline_ms=5_000))
    ledger.settle()
    planner = Planner(ledger.state)
    assert planner.next_due_ms(ledger.state) == ledger.state.nodes["n1"].drain_at_ms
    ledger.settle(ledger.state.clock_ms + 6_000)
    planner.sync(ledger.state)
    assert planner.next_due_ms(ledger.state) is None


@pytest.mark.parametrize("timeout_ms", [0, 1_000])
def test_the_deadline_of_a_forgotten_job_is_not_that_of_the_next_one_of_its_name(timeout_ms: int) -> None:
    ledger = Ledger(finished_keep=0)
    ledger.lead()
    ledger.submit("j", replace(FAKE, queue_timeout_ms=50))
    ledger.settle()
    ledger.ask("j", "abort_requested", AbortRequested())
    ledger.submit("j", replace(FAKE, queue_timeout_ms=timeout_ms))
    ledger.settle(ledger.state.clock_ms + 100)
    assert ledger.job("j").state == "pending"
    ledger.settle(ledger.state.clock_ms + 2_000)
    assert ("t/j" in ledger.state.jobs) == (timeout_ms == 0)


@pytest.mark.parametrize("shrunk", [1_000_000_000, 1_000])
def test_the_largest_node_may_come_back_much_smaller(shrunk: int) -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join("a", memory=100_000_000_000)
    ledger.settle()
    ledger.decide()
    ledger.join("a", memory=shrunk)
    ledger.submit("j", JobSpec(driver="fake", resources=Resources(memory_bytes=shrunk)))
    ledger.settle()
    assert ledger.job("j").state == "assigned"
    assert ledger.planner is not None
    assert np.array_equal(ledger.planner.fleet.left, Planner(ledger.state).fleet.left)


def test_a_fork_has_all_that_its_fleet_has() -> None:
    ledger = Ledger()
    ledger.join("a", gpus=("A100",) * 2)
    fleet = Fleet(ledger.state)
    fork = fleet.fork()
    names = [name for name in dir(fleet) if not callable(getattr(fleet, name)) and not name.startswith("__")]
    assert len(names) > 40
    assert [name for name in names if not hasattr(fork, name)] == []
    changing = ("room", "left", "gpu_millis", "levels", "groups", "diary", "touched", "gpu_full", "gpu_most")
    assert [name for name in changing if getattr(fork, name) is getattr(fleet, name)] == []
