"""Gangs: all members or none, in one round; and what happens to one happens to all."""

from __future__ import annotations

import pytest

from eventsched import subjects
from eventsched.events import (
    AbortRequested,
    HoldRequested,
    NodeDrained,
    NodeLeaving,
    NodeLost,
    PolicySet,
    ReleaseRequested,
    RequeueRequested,
    RunAssigned,
    StopOrdered,
    TenantSet,
)
from eventsched.projections.cluster.digest import decode_state, encode_state
from eventsched.projections.scheduling.decide import stamp
from eventsched.resources import Resources
from eventsched.spec import JobSpec, problems

from ..support import Ledger


def gang(size: int = 4, cpus: int = 1, **fields: object) -> JobSpec:
    return JobSpec(driver="fake", resources=Resources(cpu_millis=cpus * 1000), array=size, gang=True, **fields)  # type: ignore[arg-type]


def cluster(*cpus: int) -> Ledger:
    ledger = Ledger()
    ledger.lead()
    for index, count in enumerate(cpus):
        ledger.join(f"n{index}", cpus=count)
    ledger.settle()
    return ledger


def runs(ledger: Ledger, job_id: str = "g") -> dict[int, int]:
    """Member -> its open run."""
    prefix = f"t/{job_id}."
    return {
        int(run.key.removeprefix(prefix)): seq for seq, run in ledger.state.runs.items() if run.key.startswith(prefix)
    }


def running(*cpus: int, **fields: object) -> Ledger:
    """A ledger with a gang of four that runs."""
    ledger = cluster(*(cpus or (2, 2)))
    ledger.submit("g", gang(**fields))  # type: ignore[arg-type]
    ledger.settle()
    for run in runs(ledger).values():
        ledger.started(run)
    assert len(runs(ledger)) == 4
    return ledger


# ---- starting -----------------------------------------------------------------------------------


def test_all_members_start_in_one_round_or_none_does() -> None:
    ledger = cluster(2, 1)
    ledger.submit("g", gang())
    ledger.settle()
    assert not ledger.state.runs
    assert ledger.why("g") == ("gang_forming", "3 of 4 members fit")
    ledger.submit("single")
    ledger.settle()
    assert ledger.job("single").state == "assigned", "what does not fit blocks nobody"
    ledger.ended(ledger.job("single").run)
    ledger.settle()
    ledger.join("n2", cpus=1)
    ledger.settle()
    assert sorted(runs(ledger)) == [0, 1, 2, 3]
    assigned = [one for one in ledger.entries if b'"run.assigned"' in one.payload and b'"job":"g"' in one.payload]
    assert len(assigned) == 4
    assert len({one.payload.partition(b'"round":')[2].partition(b",")[0] for one in assigned}) == 1


def test_every_member_is_told_who_is_the_head() -> None:
    ledger = cluster(1, 3)
    ledger.submit("g", gang())
    proposed = [one for one in ledger.round() if isinstance(one.event, RunAssigned)]
    head = next(one for one in proposed if one.event.member == 0)
    assert {one.event.gang_head for one in proposed} == {head.subject.removeprefix("ev.assign.")}
    assert len({one.subject for one in proposed}) == 2


def test_quota_counts_all_members_together() -> None:
    ledger = cluster(8)
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", runs=3))
    ledger.submit("g", gang())
    ledger.submit("small", gang(3))
    ledger.settle()
    assert not runs(ledger)
    assert len(runs(ledger, "small")) == 3
    ledger.put("ev.admin.tenant_set", TenantSet(tenant="t", runs=7))
    ledger.settle()
    assert len(runs(ledger)) == 4


def test_a_gang_that_does_not_fit_the_rest_of_a_round_starts_with_the_next() -> None:
    ledger = cluster(64)
    for name in ("j0", "j1", "j2"):
        ledger.submit(name, JobSpec(driver="fake", priority=5, hold=True))
    ledger.submit("g", gang(5, hold=True))
    ledger.submit("after", JobSpec(driver="fake", hold=True))
    ledger.settle()
    for name in ("j0", "j1", "j2", "g", "after"):
        ledger.ask(name, "release_requested", ReleaseRequested())
    first = ledger.round(limit=6)
    assert [one.event.job for one in first] == ["j0", "j1", "j2"], "what comes after the gang waits for it"
    second = ledger.round(limit=6)
    assert [one.event.job for one in second] == ["g"] * 5 + ["after"]


def test_a_gang_too_large_for_any_round_is_refused() -> None:
    assert [one.field for one in problems(gang(901))] == ["array"]
    ledger = cluster(4)
    ledger.submit("g", gang(900, env={"DATA": "x" * 20_000}))
    ledger.settle()
    job = ledger.job("g")
    assert (job.state, job.reason) == ("rejected", "out_of_range")
    assert "900 members" in job.detail
    assert "one round" in job.detail


def test_the_time_to_form_is_limited() -> None:
    ledger = cluster(2)
    ledger.submit("g", gang(queue_timeout_ms=5_000))
    ledger.settle()
    ledger.settle(ledger.state.clock_ms + 6_000)
    job = ledger.job("g")
    assert (job.state, job.reason) == ("expired", "gang_timeout")
    ledger = running(4, queue_timeout_ms=5_000)
    ledger.settle(ledger.state.clock_ms + 6_000)
    assert ledger.job("g").state == "running", "it has formed"


def test_a_held_member_holds_all() -> None:
    ledger = cluster(4)
    ledger.submit("g", gang(hold=True))
    ledger.settle()
    ledger.ask("g", "hold_requested", HoldRequested(member=2))
    ledger.ask("g", "release_requested", ReleaseRequested())
    ledger.ask("g", "hold_requested", HoldRequested(member=2))
    ledger.settle()
    assert not ledger.state.runs
    assert ledger.why("g")[0] == "held"
    ledger.ask("g", "release_requested", ReleaseRequested(member=2))
    ledger.settle()
    assert len(runs(ledger)) == 4


# ---- ending -------------------------------------------------------------------------------------


def test_it_succeeds_when_all_members_do() -> None:
    ledger = running()
    for run in runs(ledger).values():
        ledger.ended(run)
    assert ledger.job("g").state == "succeeded"


def test_one_failure_for_good_fails_all() -> None:
    ledger = running()
    mine = runs(ledger)
    ledger.ended(mine[0])
    ledger.ended(mine[2], exit_code=3, reason="exit_code")
    stops = [one.event for one in ledger.round() if isinstance(one.event, StopOrdered)]
    assert {(one.run, one.reason) for one in stops} == {(mine[1], "gang_failed"), (mine[3], "gang_failed")}
    ledger.ended(mine[1], "stopped", 143)
    assert ledger.job("g").state == "running"
    ledger.ended(mine[3], "exited", 1)
    job = ledger.job("g")
    assert (job.state, job.reason, job.detail) == ("failed", "gang_failed", "member 2 failed: exit_code")
    assert [ledger.job(f"g.{index}").state for index in range(4)] == ["succeeded", "failed", "failed", "failed"]
    assert ledger.job("g.2").reason == "exit_code"
    assert ledger.job("g.1").reason == "gang_failed"


def test_a_retry_restarts_all_and_counts_once() -> None:
    ledger = running(retries=1, retry_backoff_ms=10)
    mine = runs(ledger)
    ledger.ended(mine[1], exit_code=1)
    ledger.ended(mine[3], exit_code=1)  # its peer is gone
    stops = [one.event for one in ledger.round() if isinstance(one.event, StopOrdered)]
    assert {(one.run, one.reason) for one in stops} == {(mine[0], "gang"), (mine[2], "gang")}
    ledger.ended(mine[0], "stopped", 143)
    ledger.settle(ledger.state.clock_ms + 1_000)
    assert sorted(runs(ledger)) == [2], "nobody starts before all are stopped"
    ledger.ended(mine[2], "stopped", 143)
    assert ledger.job("g").state == "pending"
    ledger.settle(ledger.state.clock_ms + 1_000)
    again = runs(ledger)
    assert sorted(again) == [0, 1, 2, 3]
    assert (ledger.job("g").failures, ledger.job("g").attempt) == (1, 2)
    assert {ledger.job(f"g.{index}").attempt for index in range(4)} == {2}
    ledger.ended(again[0], exit_code=1)
    ledger.settle()
    for member in (1, 2, 3):
        ledger.ended(again[member], "stopped", 143)
    assert (ledger.job("g").state, ledger.job("g").reason) == ("failed", "gang_failed")


@pytest.mark.parametrize("how", ["lost", "spot", "drain", "requeue", "requeue_one", "restart"])
def test_one_put_back_puts_all_back(how: str) -> None:
    ledger = running(2, 2, 4)
    nodes = {ledger.job(f"g.{index}").node for index in range(4)}
    node = min(nodes)
    session = ledger.state.nodes[node].session
    match how:
        case "lost":
            (one,) = stamp(ledger.state, ledger.state.clock_ms, [(f"ev.assign.{node}", NodeLost, {"session": session})])
            ledger.put(one.subject, one.event)
        case "spot":
            ledger.put(subjects.node(node), NodeLeaving(session=session, reason="spot"))
        case "drain":
            ledger.put("ev.admin.node_drained", NodeDrained(node=node, now=True))
        case "requeue":
            ledger.ask("g", "requeue_requested", RequeueRequested())
        case "requeue_one":
            ledger.ask("g", "requeue_requested", RequeueRequested(member=3))
        case "restart":
            ledger.join(node, cpus=2)
    ledger.settle()
    for run in list(ledger.state.runs.values()):
        assert run.stop_reason
        ledger.ended(run.seq, "stopped", 143)
    job = ledger.job("g")
    assert job.losses == (0 if how.startswith("requeue") else 1)
    assert job.evictions == (how == "spot")
    assert job.failures == 0
    if how == "drain":
        assert ledger.state.nodes[node].cordoned
        ledger.join("n9", cpus=4)
    ledger.join("n8", cpus=4)
    ledger.settle()
    assert len(runs(ledger)) == 4
    for run in runs(ledger).values():
        ledger.ended(run)
    assert ledger.job("g").state == "succeeded"


def test_members_that_succeeded_are_not_run_again() -> None:
    ledger = running()
    mine = runs(ledger)
    ledger.ended(mine[0])
    ledger.ended(mine[1], "lost", None)
    ledger.settle()
    ledger.ended(mine[2], "stopped", 143)
    ledger.ended(mine[3], "stopped", 143)
    ledger.settle()
    assert sorted(runs(ledger)) == [1, 2, 3]


def test_too_many_losses_fail_it() -> None:
    ledger = running(max_lost=0)
    ledger.ended(runs(ledger)[0], "lost", None)
    ledger.settle()
    for run in runs(ledger).values():
        ledger.ended(run, "stopped", 143)
    job = ledger.job("g")
    assert (job.state, job.reason, job.detail) == ("failed", "gang_failed", "member 0 failed: node_lost")


def test_aborts_of_all_and_of_one() -> None:
    ledger = running()
    ledger.ask("g", "abort_requested", AbortRequested())
    ledger.settle()
    for run in runs(ledger).values():
        ledger.ended(run, "stopped", 143)
    assert (ledger.job("g").state, ledger.job("g").reason) == ("aborted", "aborted")

    ledger = running()
    ledger.ask("g", "abort_requested", AbortRequested(member=1))
    ledger.settle()
    mine = runs(ledger)
    ledger.ended(mine[1], "stopped", 143)
    ledger.settle()
    for member in (0, 2, 3):
        ledger.ended(mine[member], "stopped", 143)
    assert (ledger.job("g").state, ledger.job("g").reason) == ("failed", "gang_failed")

    ledger = cluster(1)
    ledger.submit("g", gang())
    ledger.settle()
    ledger.ask("g", "abort_requested", AbortRequested(member=1))
    assert (ledger.job("g").state, ledger.job("g").detail) == ("failed", "member 1 aborted: aborted")


# ---- what overtakes a round -----------------------------------------------------------------------


@pytest.mark.parametrize("overtaken_by", ["session", "abort_one", "hold", "abort"])
def test_an_overtaken_round_never_leaves_a_part_running(overtaken_by: str) -> None:
    """Something is recorded between the decision and its commit; `Ledger` checks that no gang is split."""
    ledger = cluster(2, 2)
    ledger.submit("g", gang(hold=overtaken_by == "abort_one"))
    if overtaken_by == "abort_one":  # of members that are known already
        ledger.settle()
        ledger.ask("g", "release_requested", ReleaseRequested())
    proposed = ledger.decide()
    assert len(proposed) == 4
    match overtaken_by:
        case "session":
            ledger.join("n0", cpus=2)
        case "abort_one":
            ledger.ask("g", "abort_requested", AbortRequested(member=0))
        case "hold":
            ledger.ask("g", "hold_requested", HoldRequested())
        case "abort":
            ledger.ask("g", "abort_requested", AbortRequested())
    for one in proposed:
        ledger.put(one.subject, one.event)
    ledger.settle()
    for run in list(ledger.state.runs.values()):
        assert run.stop_reason, run
        ledger.ended(run.seq, "stopped", 143)
    ledger.settle()
    job = ledger.job("g")
    if overtaken_by == "session":
        assert len(runs(ledger)) == 4
        assert job.losses == 0
    else:
        assert job.state == {"abort_one": "failed", "hold": "pending", "abort": "aborted"}[overtaken_by]
        assert not ledger.state.runs


def test_a_snapshot_in_the_middle_of_a_restart_makes_no_difference() -> None:
    ledger = running(retries=1)
    ledger.ended(runs(ledger)[0], exit_code=1)
    ledger.state = decode_state(encode_state(ledger.state))
    ledger.planner = None
    ledger.settle()
    for run in list(ledger.state.runs):
        ledger.ended(run, "stopped", 143)
    ledger.settle(ledger.state.clock_ms + 10_000)
    assert len(runs(ledger)) == 4


def test_a_gang_counts_as_one_for_a_reservation() -> None:
    ledger = cluster(4)
    ledger.put("ev.admin.policy_set", PolicySet(name="backfill"))
    ledger.submit("long", JobSpec(driver="fake", resources=Resources(cpu_millis=2000), estimate_ms=10_000))
    ledger.settle()
    ledger.submit("g", gang(4, estimate_ms=5_000))
    ledger.settle()
    ledger.submit("delays", JobSpec(driver="fake", estimate_ms=20_000))
    ledger.submit("short", JobSpec(driver="fake", estimate_ms=8_000))
    ledger.settle()
    assert ledger.states() == {"long": "assigned", "g": "pending", "delays": "pending", "short": "assigned"}
    ledger.ended(ledger.job("long").run)
    ledger.ended(ledger.job("short").run)
    ledger.settle()
    assert len(runs(ledger)) == 4
