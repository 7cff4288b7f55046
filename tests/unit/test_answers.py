"""Nodes and the cluster, as a scheduler answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import structs
from msgspec.json import encode

from eventsched.errors import NotFound
from eventsched.events import AbortRequested, NodeCordoned, NodeDrained
from eventsched.heartbeat import Heartbeat, RunUsage
from eventsched.projections.leader.answers import Answers
from eventsched.projections.leader.core import SchedulerCore
from eventsched.projections.leader.records import Records
from eventsched.projections.leader.shell import Scheduler
from eventsched.projections.leader.work import Work
from eventsched.projections.replica import Replica
from eventsched.projections.views.tenants import tenant_views
from eventsched.query import ListRequest, NodesRequest, StatsRequest, TenantsRequest
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.history.close()


@pytest.fixture
def array(desk: Desk) -> Desk:
    desk.submit_array()
    return desk


@pytest.fixture
def scheduler(desk: Desk) -> Scheduler:
    """As much of a scheduler as its answers need."""
    records = Records(cast(Any, None))
    records.history = desk.history

    async def folded(min_seq: int) -> None:
        assert desk.ledger.state.seq >= min_seq

    core = SchedulerCore("s9", desk.ledger.state)
    work = Work(rounds=2, placements=3, decide_ns=4, commit_ns=5)
    parts = {"core": core, "records": records, "replica": Replica(core.state), "beats": {}, "folded": folded}
    return cast(Scheduler, SimpleNamespace(**parts, work=work, lag=7))


async def test_nodes_are_listed_in_order_and_an_unknown_one_names_the_known(desk: Desk, scheduler: Scheduler) -> None:
    for node in ("n3", "n2"):
        desk.ledger.join(node, cpus=8, gpus=("A100",))
    desk.ledger.settle()
    desk.submit("j", spec=JobSpec(driver="fake", resources=Resources(cpu_millis=3_000, gpus=1)))
    answers = Answers(scheduler)
    views = await answers.nodes(NodesRequest())
    assert [view.node for view in views] == ["n1", "n2", "n3"]
    chosen = desk.get("j").node
    (view,) = await answers.nodes(NodesRequest(chosen))
    assert view.capacity == {"cpu_millis": 8_000, "memory_bytes": 8 << 30, "gpus": {"A100": 1}}
    assert view.free == {"cpu_millis": 5_000, "memory_bytes": 8 << 30, "gpus": {"A100": 0}}
    assert [(run["job_id"], run["cpu_millis"]) for run in view.runs] == [("j", 3_000)]
    with pytest.raises(NotFound, match="no node 'n4'") as raised:
        await answers.nodes(NodesRequest("n4"))
    assert "n1, n2, n3" in raised.value.hint


async def test_a_node_shows_the_heartbeat_of_its_present_session_only(desk: Desk, scheduler: Scheduler) -> None:
    session = desk.ledger.state.nodes["n1"].session
    beat = Heartbeat(session, cpu_percent=12.5, memory_used_bytes=99, runs={"7": RunUsage(50.0, 1)})
    scheduler.beats["n1"] = (time.monotonic_ns() // 1_000_000, beat)
    answers = Answers(scheduler)
    (view,) = await answers.nodes(NodesRequest("n1"))
    assert (view.cpu_percent, view.memory_used_bytes) == (12.5, 99)
    assert view.usage == {"7": {"cpu_percent": 50.0, "memory_bytes": 1}}
    assert view.heartbeat_age_ms is not None
    desk.ledger.join()
    desk.ledger.settle()
    (view,) = await answers.nodes(NodesRequest("n1"))
    assert (view.cpu_percent, view.heartbeat_age_ms, view.usage) == (None, None, {})


async def test_stats_count_jobs_and_members_once(array: Desk, scheduler: Scheduler) -> None:
    array.submit("held", spec=JobSpec(driver="fake", hold=True))
    stats = await Answers(scheduler).stats(StatsRequest())
    assert stats.jobs == {"assigned": 4, "pending": 4}, "the array itself is no job"
    assert stats.ended == {"succeeded": 1}
    assert (stats.runs, stats.nodes, stats.leader, stats.answered_by) == (4, {"ready": 1}, "s1", "s9")
    assert (stats.capacity["cpu_millis"], stats.free["cpu_millis"]) == (4_000, 0)
    assert (stats.history, stats.digest_mismatches) == ("complete", 0)
    array.finish()
    array.ledger.ask("held", "abort_requested", AbortRequested())
    stats = await Answers(scheduler).stats(StatsRequest())
    assert (stats.jobs, stats.runs, stats.free["cpu_millis"]) == ({"pending": 1}, 0, 4_000), "a.6 is held"


async def test_a_tenant_waits_with_what_has_no_run_and_has_not_ended(array: Desk, scheduler: Scheduler) -> None:
    (tenant,) = await Answers(scheduler).tenants(TenantsRequest())
    assert (tenant.tenant, tenant.waiting) == ("t", 3), "a.5 and a.7 are not reached, a.6 is held"
    array.ledger.ask("a", "abort_requested", AbortRequested(member=6))
    array.ledger.settle()
    array.submit("b", tenant="u")
    state = array.ledger.state
    assert {one.tenant: one.waiting for one in tenant_views(state, state.clock_ms)} == {"t": 2, "u": 1}
    assert [one.waiting for one in tenant_views(state, state.clock_ms, "u")] == [1]
    assert not tenant_views(state, state.clock_ms, "nobody")


async def test_stats_count_the_nodes_that_take_work(desk: Desk, scheduler: Scheduler) -> None:
    for node in ("n2", "n3"):
        desk.ledger.join(node)
    desk.ledger.put("ev.admin.node_drained", NodeDrained(node="n2"))
    desk.ledger.put("ev.admin.node_cordoned", NodeCordoned(node="n3"))
    stats = await Answers(scheduler).stats(StatsRequest())
    assert (stats.nodes, stats.nodes_open) == ({"ready": 2, "drained": 1}, 1)
    desk.ledger.put("ev.admin.node_cordoned", NodeCordoned(node="n1"))
    assert (await Answers(scheduler).stats(StatsRequest())).nodes_open == 0


async def test_stats_say_what_is_wrong_with_this_scheduler(desk: Desk, scheduler: Scheduler) -> None:
    scheduler.replica.mismatches.append((5, "ours", "theirs"))
    assert desk.history.start(1_000) == 1_000
    stats = await Answers(scheduler).stats(StatsRequest())
    assert (stats.digest_mismatches, stats.history, stats.lag) == (1, "being rebuilt up to sequence 1000", 7)


async def test_a_report_has_the_most_silent_node_of_each_state(desk: Desk, scheduler: Scheduler) -> None:
    for node in ("n2", "n3", "n4"):
        desk.ledger.join(node)
    desk.ledger.put("ev.admin.node_drained", NodeDrained(node="n3"))
    desk.ledger.settle()
    now = time.monotonic_ns() // 1_000_000
    for node, ago_ms in (("n1", 5_000), ("n2", 60_000), ("n3", 70_000)):
        scheduler.beats[node] = (now - ago_ms, Heartbeat(desk.ledger.state.nodes[node].session))
    scheduler.beats["n4"] = (now - 900_000, Heartbeat(1))  # of a session that is over
    report = Answers(scheduler).report()
    assert {state: age // 1_000 for state, age in report.heartbeat_age_ms.items()} == {"ready": 60, "drained": 70}
    assert (report.scheduler, report.seq, report.lag) == ("s9", desk.ledger.state.seq, 7)
    assert (report.rounds, report.placements, report.decide_ns, report.commit_ns) == (2, 3, 4, 5)


async def test_a_page_holds_no_more_than_a_message(desk: Desk, scheduler: Scheduler) -> None:
    large = JobSpec(driver="fake", command=("x" * 60_000,), hold=True)
    desk.submit(*(f"j{index}" for index in range(40)), spec=large)
    desk.submit("a", spec=structs.replace(large, array=40))
    answers = Answers(scheduler)
    for wanted, names in (
        (ListRequest(states=["pending"]), ["a", *(f"j{index}" for index in range(39, -1, -1))]),
        (ListRequest(array="t/a"), [f"a.{index}" for index in range(40)]),
    ):
        found: list[str] = []
        pages = 0
        while pages == 0 or wanted.cursor:
            page = await answers.list(wanted)
            assert 0 < len(encode(page)) < 1 << 20
            found += [view.job_id for view in page.jobs]
            wanted.cursor = page.cursor
            pages += 1
        assert (found, pages) == (names, 3)


async def test_an_answer_finds_what_ended_a_moment_ago(desk: Desk, scheduler: Scheduler) -> None:
    """Noted for the history and not written yet: it is written before the question is answered."""
    desk.ran("old")
    for job_id in ("a", "b", "c"):
        desk.ledger.submit(job_id)
        desk.ledger.settle()
        desk.ledger.ended(desk.ledger.job(job_id).run)
    scheduler.records.take(desk.ledger.state.changes.ended)
    assert desk.ids() == ["old"]
    answer = await Answers(scheduler).list(ListRequest())
    assert [view.job_id for view in answer.jobs] == ["c", "b", "a", "old"]
