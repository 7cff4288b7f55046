"""The life of a job in the fold: every way it begins, waits and ends."""

from __future__ import annotations

import pytest

from eventsched.events import (
    AbortRequested,
    CompleteRequested,
    HoldRequested,
    NodeCordoned,
    NodeUncordoned,
    ReleaseRequested,
    RequeueRequested,
)
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import FAKE, Ledger, ready


def test_submit_assign_start_end() -> None:
    ledger = ready()
    ledger.submit("j")
    assert ledger.job("j").state == "pending"
    (assign,) = ledger.round()
    run = ledger.state.seq
    assert assign.subject == "ev.assign.n1"
    job = ledger.job("j")
    assert (job.state, job.run, job.node, job.attempt, job.admitted) == ("assigned", run, "n1", 1, True)
    assert ledger.state.nodes["n1"].cpu_free_millis == 3000
    ledger.started(run)
    assert job.state == "running"
    ledger.ended(run)
    assert (job.state, job.exit_code) == ("succeeded", 0)
    assert ledger.state.nodes["n1"].cpu_free_millis == 4000
    assert ledger.state.ended == {"succeeded": 1}
    assert job.submitted_ms < job.assigned_ms < job.started_ms < job.finished_ms


def test_an_unreadable_submission_becomes_a_rejected_job() -> None:
    ledger = ready()
    ledger.raw("ev.job.t.j.submitted", b'{"imge":"busybox"}')
    ledger.settle()
    job = ledger.job("j")
    assert (job.state, job.reason) == ("rejected", "unknown_field")
    assert "imge" in job.detail


def test_bad_values_are_rejected_with_the_field() -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(image="", command=("a",)))
    ledger.submit("k", JobSpec(image="x", priority=5000))
    ledger.settle()
    assert (ledger.job("j").state, ledger.job("j").reason) == ("rejected", "missing_field")
    assert "priority: 5000 is not between -1000 and 1000" in ledger.job("k").detail


def test_a_second_submission_never_touches_the_first() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.round()
    ledger.submit("j", JobSpec(driver="manual"))
    ledger.raw("ev.job.t.j.submitted", b"{")
    assert ledger.job("j").spec == FAKE
    assert ledger.job("j").state == "assigned"
    assert ledger.state.anomalies == {"duplicate_submission": 2}


def test_ids_are_unique_per_tenant_or_in_the_cluster() -> None:
    ledger = ready()
    ledger.submit("j", tenant="a")
    ledger.submit("j", tenant="b")
    assert not ledger.state.anomalies
    strict = ready(job_id_scope="cluster")
    strict.submit("j", tenant="a")
    strict.submit("j", tenant="b")
    assert strict.state.anomalies == {"duplicate_submission": 1}


@pytest.mark.parametrize("when", ["unjudged", "pending", "assigned", "starting", "running", "stopping"])
def test_abort_in_every_state(when: str) -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(driver="fake", resources=Resources(cpu_millis=9000)) if when == "pending" else FAKE)
    if when != "unjudged":
        ledger.settle()
    job = ledger.job("j")
    if when == "starting":
        ledger.raw("ev.run.n1", b'{"type":"run.starting","run":%d}' % job.run)
    if when in ("running", "stopping"):
        ledger.started(job.run)
    if when == "stopping":
        ledger.ask("j", "requeue_requested", RequeueRequested())
        ledger.settle()
    ledger.ask("j", "abort_requested", AbortRequested(reason="enough"))
    if when in ("unjudged", "pending"):
        assert (job.state, job.reason, job.detail) == ("aborted", "aborted", "enough")
        return
    ledger.settle()
    assert ledger.run(job.run).state == "stopping"
    assert ledger.state.nodes["n1"].cpu_free_millis == 3000, "a stopping run holds its resources"
    ledger.ended(job.run, "stopped", 143)
    assert (job.state, job.exit_code) == ("aborted", 143)
    ledger.settle()
    assert not ledger.state.runs


def test_an_end_before_the_abort_stands() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    ledger.ended(ledger.job("j").run)
    ledger.ask("j", "abort_requested", AbortRequested())
    assert ledger.job("j").state == "succeeded"
    assert ledger.state.anomalies == {"job_ended": 1}


def test_an_abort_before_the_end_wins_whatever_the_exit_code() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    ledger.ask("j", "abort_requested", AbortRequested())
    ledger.ended(ledger.job("j").run, "exited", 0)
    assert ledger.job("j").state == "aborted"


def test_an_assign_overtaken_by_an_abort_opens_a_run_and_owes_its_stop() -> None:
    ledger = ready()
    ledger.submit("j")
    (assign,) = ledger.decide()
    ledger.ask("j", "abort_requested", AbortRequested())
    run = ledger.put(assign.subject, assign.event)
    assert ledger.job("j").state == "aborted"
    assert ledger.state.nodes["n1"].cpu_free_millis == 3000
    (stop,) = ledger.round()
    assert stop.event.reason == "unwanted"  # type: ignore[attr-defined]
    ledger.ended(run, "stopped", 143)
    assert ledger.job("j").state == "aborted"
    assert ledger.state.nodes["n1"].cpu_free_millis == 4000


def test_an_assign_for_a_session_that_is_over_is_void() -> None:
    ledger = ready()
    ledger.submit("j")
    (assign,) = ledger.decide()
    ledger.join()
    ledger.put(assign.subject, assign.event)
    assert (ledger.job("j").state, ledger.state.void_assigns) == ("pending", 1)
    ledger.settle()
    assert ledger.job("j").state == "assigned"


def test_an_assign_overtaken_by_a_hold_is_taken_back() -> None:
    ledger = ready()
    ledger.submit("j")
    (assign,) = ledger.decide()
    ledger.ask("j", "hold_requested", HoldRequested())
    run = ledger.put(assign.subject, assign.event)
    ledger.settle()
    ledger.ended(run, "stopped", 143)
    job = ledger.job("j")
    assert (job.state, job.held, job.losses) == ("pending", True, 0)
    ledger.settle()
    assert job.state == "pending"
    ledger.ask("j", "release_requested", ReleaseRequested())
    ledger.settle()
    assert job.state == "assigned"


def test_failures_are_retried_with_growing_backoff_elsewhere() -> None:
    ledger = ready()
    ledger.join("n2")
    ledger.submit("j", JobSpec(driver="fake", retries=2, retry_backoff_ms=1000))
    nodes, waits = [], []
    for _ in range(3):
        ledger.settle(ledger.state.clock_ms + 100_000)
        job = ledger.job("j")
        nodes.append(job.node)
        ledger.ended(job.run, "exited", 3, "exit_code")
        if job.state == "pending":
            waits.append(job.not_before_ms - ledger.state.clock_ms)
            assert not ledger.decide(), "not before its time"
    assert nodes[0] != nodes[1]
    assert nodes[1] != nodes[2]
    assert waits == [1000, 2000]
    assert (job.state, job.reason, job.exit_code, job.attempt) == ("failed", "exit_code", 3, 3)


def test_a_backoff_counts_again_when_the_time_of_a_round_goes_back() -> None:
    """An event recorded before the last round and folded after it does that."""
    ledger = ready()
    ledger.submit("j", JobSpec(driver="fake", retries=1, retry_backoff_ms=1000))
    ledger.settle()
    ledger.put("ev.admin.node_cordoned", NodeCordoned(node="n1"))
    ledger.ended(ledger.job("j").run, "exited", 3, "exit_code")
    assert not ledger.decide(ledger.state.clock_ms + 1_500), "its time has come, and no node is open"
    ledger.put("ev.admin.node_uncordoned", NodeUncordoned(node="n1"))
    assert not ledger.decide()
    ledger.settle(ledger.state.clock_ms + 1_000)
    assert ledger.job("j").state == "assigned"


def test_the_failed_node_is_taken_again_when_it_is_the_only_one() -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(driver="fake", retries=1, retry_backoff_ms=0))
    ledger.settle()
    ledger.ended(ledger.job("j").run, "oom", 137, "out_of_memory")
    ledger.settle()
    assert (ledger.job("j").state, ledger.job("j").node) == ("assigned", "n1")


def test_a_time_out_is_final() -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(driver="fake", retries=5))
    ledger.settle()
    ledger.ended(ledger.job("j").run, "timed_out", 143)
    assert (ledger.job("j").state, ledger.job("j").reason) == ("timed_out", "max_runtime")


def test_lost_runs_do_not_use_up_retries_but_are_bounded() -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(driver="fake", max_lost=2))
    job = ledger.job("j")
    for attempt in (1, 2, 3):
        ledger.settle()
        assert job.attempt == attempt
        ledger.ended(job.run, "lost", None, "engine_lost")
    assert (job.state, job.reason, job.losses, job.failures) == ("failed", "node_lost", 3, 0)


def test_on_lost_fail_is_the_jobs_choice() -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(driver="fake", on_lost="fail"))
    ledger.settle()
    ledger.ended(ledger.job("j").run, "lost")
    assert (ledger.job("j").state, ledger.job("j").reason) == ("failed", "node_lost")


def test_queue_timeout_expires_only_what_never_ran() -> None:
    ledger = ready()
    ledger.submit("big", JobSpec(driver="fake", resources=Resources(cpu_millis=99_000), queue_timeout_ms=5_000))
    ledger.submit("runs", JobSpec(driver="fake", queue_timeout_ms=5_000))
    ledger.settle()
    later = ledger.state.clock_ms + 10_000
    ledger.ended(ledger.job("runs").run, "lost")
    ledger.settle(later)
    assert (ledger.job("big").state, ledger.job("big").reason) == ("expired", "queue_timeout")
    assert ledger.job("runs").state == "assigned"


def test_requeue_puts_back_without_cost() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    job, run = ledger.job("j"), ledger.job("j").run
    ledger.ask("j", "requeue_requested", RequeueRequested())
    ledger.settle()
    ledger.ended(run, "stopped", 143)
    assert (job.state, job.losses, job.failures) == ("pending", 0, 0)
    ledger.settle()
    assert (job.state, job.attempt) == ("assigned", 2)


def test_a_manual_job_is_finished_by_hand() -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(driver="manual"))
    ledger.submit("other")
    ledger.settle()
    ledger.started(ledger.job("j").run)
    ledger.ask("j", "complete_requested", CompleteRequested(exit_code=4))
    (order,) = ledger.round()
    assert (order.event.run, order.event.exit_code) == (ledger.job("j").run, 4)  # type: ignore[attr-defined]
    ledger.ask("other", "complete_requested", CompleteRequested())
    assert ledger.state.anomalies == {"not_completable": 1}


def test_late_and_repeated_reports_change_nothing() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    run = ledger.job("j").run
    ledger.ended(run)
    for payload in (
        b'{"type":"run.ended","run":%d,"outcome":"exited","exit_code":1}',
        b'{"type":"run.started","run":%d}',
    ):
        ledger.raw("ev.run.n1", payload % run)
    assert (ledger.job("j").state, ledger.state.late_reports) == ("succeeded", 2)


def test_a_report_from_another_node_is_void() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    ledger.raw("ev.run.n2", b'{"type":"run.ended","run":%d,"outcome":"exited","exit_code":0}' % ledger.job("j").run)
    assert ledger.job("j").state == "assigned"
    assert ledger.state.anomalies == {"foreign_report": 1}


def test_requests_about_unknown_jobs_are_anomalies() -> None:
    ledger = ready()
    for verb in ("abort", "hold", "release", "requeue", "complete"):
        ledger.raw(f"ev.job.t.nobody.{verb}_requested", b"{}")
    assert ledger.state.anomalies == {"unknown_job": 5}
    assert ledger.state.recent_anomalies[-1].detail == "t/nobody"


def test_ended_jobs_leave_the_state_after_so_many_later_ones() -> None:
    ledger = ready(finished_keep=3)
    for index in range(10):
        ledger.submit(f"j{index}")
        ledger.settle()
        ledger.ended(ledger.job(f"j{index}").run)
    assert list(ledger.states()) == ["j7", "j8", "j9"]
    assert ledger.state.finished_total == 10
    assert ledger.state.ended == {"succeeded": 10}


def test_nothing_counts_before_the_cluster_is_created() -> None:
    from eventsched.projections.cluster.evolve import evolve
    from eventsched.projections.cluster.state import ClusterState
    from eventsched.recorded import Recorded

    state = ClusterState()
    evolve(state, Recorded(1, 1, "ev.job.t.j.submitted", FAKE))
    assert not state.jobs
    assert state.anomalies == {"not_created": 1}


def test_a_cluster_is_created_once() -> None:
    ledger = Ledger()
    ledger.raw("ev.admin.cluster_created", b'{"cluster_id":"another"}')
    assert ledger.state.cluster_id == "test"
    assert ledger.state.anomalies == {"created_twice": 1}
