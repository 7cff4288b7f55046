"""Arrays (one submission, n jobs) and dependencies."""

from __future__ import annotations

from eventsched import codec
from eventsched.events import AbortRequested, HoldRequested, ReleaseRequested
from eventsched.projections.cluster.check import check
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.scheduling.decide import decide
from eventsched.projections.views.members import fate_of_range, view_of_range
from eventsched.projections.views.present import job_view
from eventsched.recorded import Recorded
from eventsched.spec import JobSpec

from ..support import FAKE, Ledger, ready


def _run_all(ledger: Ledger, exit_code: int = 0) -> None:
    ledger.settle()
    while ledger.state.runs:
        for run in list(ledger.state.runs):
            ledger.started(run)
            ledger.ended(run, "exited", exit_code)
        ledger.settle(ledger.state.clock_ms + 600_000)


def test_an_array_runs_every_member_once() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=10))
    ledger.settle()
    assert len(ledger.state.runs) == 4
    assert [job.job_id for job in ledger.state.jobs.values()] == ["a", "a.0", "a.1", "a.2", "a.3"], (
        "the rest is a range"
    )
    _run_all(ledger)
    parent = ledger.job("a")
    assert (parent.state, parent.array.ended) == ("succeeded", {"succeeded": 10})  # type: ignore[union-attr]
    assert sorted(ledger.states()) == sorted(["a", *(f"a.{index}" for index in range(10))])


def test_a_huge_array_costs_nothing_until_it_runs() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=100_000))
    ledger.settle()
    assert len(ledger.state.jobs) == 5
    ledger.ask("a", "abort_requested", AbortRequested())
    ledger.settle()
    for run in list(ledger.state.runs):
        ledger.ended(run, "stopped", 143)
    assert ledger.job("a").state == "aborted"
    assert ledger.state.ended == {"aborted": 100_001}


def test_an_array_fails_when_a_member_does() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=3))
    ledger.settle()
    runs = list(ledger.state.runs)
    ledger.ended(runs[0], "exited", 1)
    for run in runs[1:]:
        ledger.ended(run)
    job = ledger.job("a")
    assert (job.state, job.reason, job.detail) == ("failed", "members_failed", "1 of 3 members did not succeed")


def test_one_member_can_be_aborted_before_its_turn() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=8))
    ledger.settle()
    ledger.ask("a", "abort_requested", AbortRequested(member=6))
    assert ledger.job("a.6").state == "aborted"
    _run_all(ledger)
    assert ledger.job("a").state == "failed"
    assert ledger.job("a").array.ended == {"aborted": 1, "succeeded": 7}  # type: ignore[union-attr]
    assert ledger.job("a.6").attempt == 0, "it never ran"


def test_one_member_can_be_held_and_released() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=6))
    ledger.settle()
    ledger.ask("a", "hold_requested", HoldRequested(member=5))
    _run_all(ledger)
    assert (ledger.job("a.5").state, ledger.job("a").state) == ("pending", "running")
    ledger.ask("a", "release_requested", ReleaseRequested(member=5))
    _run_all(ledger)
    assert ledger.job("a").state == "succeeded"


def test_a_held_array_starts_nothing() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=3, hold=True))
    ledger.settle()
    assert not ledger.state.runs
    ledger.ask("a", "release_requested", ReleaseRequested())
    _run_all(ledger)
    assert ledger.job("a").state == "succeeded"


def test_members_are_retried_on_their_own() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=2, retries=1, retry_backoff_ms=10))
    ledger.settle()
    first, second = list(ledger.state.runs)
    ledger.ended(first, "exited", 1)
    ledger.ended(second)
    ledger.settle(ledger.state.clock_ms + 1_000)
    assert ledger.job("a.0").attempt == 2
    _run_all(ledger)
    assert ledger.job("a").state == "succeeded"


def test_an_array_that_waits_too_long_expires_as_one() -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.submit("a", JobSpec(driver="fake", array=50, queue_timeout_ms=100))
    ledger.settle()
    ledger.settle(ledger.state.clock_ms + 1_000)
    assert (ledger.job("a").state, ledger.job("a").reason) == ("expired", "queue_timeout")


def test_views_of_members_that_never_became_jobs() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=9))
    ledger.settle()
    parent = ledger.job("a")
    assert job_view(ledger.state, parent).members == {"assigned": 4, "pending": 5}
    assert fate_of_range(parent, 7, {}) == "pending"
    view = view_of_range(job_view(ledger.state, parent), parent, 7, "pending")
    assert (view.job_id, view.state) == ("a.7", "pending")
    assert fate_of_range(parent, 9, {}) == ""
    assert fate_of_range(parent, 1, {}) == "", "that one is a job"


def test_requests_about_members_that_are_not_are_anomalies() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=2))
    ledger.submit("plain")
    ledger.settle()
    for member in (2, 99):
        ledger.ask("a", "abort_requested", AbortRequested(member=member))
    ledger.ask("plain", "abort_requested", AbortRequested(member=0))
    assert ledger.state.anomalies == {"unknown_job": 3}


# ---- dependencies -------------------------------------------------------------------------


def test_a_child_waits_for_its_parent() -> None:
    ledger = ready()
    ledger.submit("parent")
    ledger.submit("child", JobSpec(driver="fake", after_ok=("parent",)))
    ledger.settle()
    assert (ledger.job("child").state, ledger.job("child").waiting_on) == ("pending", {"t/parent": "ok"})
    ledger.ended(ledger.job("parent").run)
    ledger.settle()
    assert ledger.job("child").state == "assigned"


def test_a_child_of_a_failure_ends_with_its_reason_and_so_do_its_children() -> None:
    ledger = ready()
    ledger.submit("parent")
    ledger.submit("child", JobSpec(driver="fake", after_ok=("parent",)))
    ledger.submit("grandchild", JobSpec(driver="fake", after_ok=("child",)))
    ledger.submit("anyway", JobSpec(driver="fake", after_any=("parent",)))
    ledger.settle()
    ledger.ended(ledger.job("parent").run, "exited", 2)
    ledger.settle()
    assert ledger.states() == {"parent": "failed", "child": "aborted", "grandchild": "aborted", "anyway": "assigned"}
    assert (ledger.job("child").reason, ledger.job("child").detail) == (
        "dependency_failed",
        "job 'parent' did not succeed",
    )


def test_parents_that_have_ended_count_at_once() -> None:
    ledger = ready()
    ledger.submit("good")
    ledger.submit("bad")
    ledger.settle()
    ledger.ended(ledger.job("good").run)
    ledger.ended(ledger.job("bad").run, "exited", 1)
    ledger.submit("a", JobSpec(driver="fake", after_ok=("good",)))
    ledger.submit("b", JobSpec(driver="fake", after_ok=("bad",)))
    ledger.submit("c", JobSpec(driver="fake", after_any=("bad", "good")))
    ledger.settle()
    assert (ledger.job("a").state, ledger.job("b").state, ledger.job("c").state) == ("assigned", "aborted", "assigned")


def test_a_missing_parent_is_a_rejection() -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(driver="fake", after_ok=("nobody",)))
    ledger.submit("other-tenants", FAKE, tenant="u")
    ledger.submit("k", JobSpec(driver="fake", after_ok=("other-tenants",)))
    ledger.settle()
    assert (ledger.job("j").state, ledger.job("j").reason) == ("rejected", "missing_parent")
    assert "'nobody'" in ledger.job("j").detail
    assert ledger.job("k").state == "rejected"


def test_a_rejected_parent_rejects_its_children() -> None:
    ledger = ready()
    ledger.submit("bad", JobSpec(image=""))
    ledger.submit("child", JobSpec(driver="fake", after_any=("bad",)))
    ledger.settle()
    ledger.submit("later", JobSpec(driver="fake", after_any=("bad",)))
    ledger.settle()
    assert ledger.states() == {"bad": "rejected", "child": "rejected", "later": "rejected"}


def test_a_cycle_is_rejected_and_named() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", after_ok=("b",)))
    ledger.submit("b", JobSpec(driver="fake", after_ok=("c",)))
    ledger.submit("c", JobSpec(driver="fake", after_any=("a",)))
    ledger.submit("self", JobSpec(driver="fake", after_ok=("self",)))
    ledger.submit("below", JobSpec(driver="fake", after_ok=("a",)))
    ledger.settle()
    assert [ledger.job(name).reason for name in ("a", "b", "c", "self")] == ["dependency_cycle"] * 4
    assert "a -> b -> c -> a" in ledger.job("a").detail
    assert ledger.job("below").reason == "missing_parent"


def test_forward_references_inside_one_round_are_fine() -> None:
    ledger = ready()
    ledger.submit("child", JobSpec(driver="fake", after_ok=("parent",)))
    ledger.submit("parent")
    ledger.settle()
    assert ledger.states() == {"child": "pending", "parent": "assigned"}


def test_a_chain_longer_than_pythons_stack_is_judged_in_one_round() -> None:
    state = ready().state
    for index in range(3_000):  # each depends on the next one: judging has to walk to the end first
        payload = b'{"driver":"fake","after_ok":["j%d"]}' % (index + 1) if index < 2_999 else b'{"driver":"fake"}'
        subject = f"ev.job.t.j{index}.submitted"
        evolve(state, Recorded(state.seq + 1, 1, subject, codec.decode(subject, payload)))
    for one in decide(state, state.clock_ms):
        evolve(state, Recorded(state.seq + 1, 1, one.subject, one.event))
    assert not check(state)
    assert not state.unjudged
    assert state.jobs["t/j0"].waiting_on == {"t/j1": "ok"}


def test_a_child_waits_for_a_whole_array() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=6))
    ledger.submit("child", JobSpec(driver="fake", after_ok=("a",)))
    ledger.settle()
    for _ in range(3):
        for run in list(ledger.state.runs):
            if ledger.run(run).key.startswith("t/a."):
                ledger.ended(run)
        ledger.settle()
    assert (ledger.job("a").state, ledger.job("child").state) == ("succeeded", "assigned")
