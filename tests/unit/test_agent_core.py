"""The agent's core: orders in, effects out."""

from __future__ import annotations

from pathlib import Path

from msgspec import Raw

from eventsched import codec
from eventsched.agents.core import AgentCore
from eventsched.agents.drivers.base import Place, run_environment
from eventsched.agents.effects import (
    Announce,
    Effect,
    Ended,
    FinishRun,
    ForgetRun,
    KnownRun,
    Launch,
    Report,
    SessionOver,
    StartRun,
    StopRun,
    WatchRun,
)
from eventsched.events import (
    FinishOrdered,
    NodeJoined,
    NodeLeaving,
    NodeLost,
    Owed,
    RunAssigned,
    RunEnded,
    RunStarted,
    RunStarting,
    SessionOpened,
    SessionRefused,
    StopOrdered,
)
from eventsched.recorded import Recorded
from eventsched.resources import Capacity
from eventsched.spec import JobSpec
from eventsched.wire import Event

SPEC = JobSpec(image="busybox", stop_grace_ms=3_000, max_runtime_ms=10_000)


class Agent:
    def __init__(self, known: list[KnownRun] | None = None, session: int = 10) -> None:
        self.core = AgentCore("n1", "machine", known or [], 0)
        self.core.joined(session)
        self.seq = session

    def feed(self, event: Event, now_ms: int = 0) -> list[Effect]:
        self.seq += 1
        return self.core.feed(Recorded(self.seq, 0, "ev.assign.n1", event), now_ms)

    def opened(self, **fields: object) -> list[Effect]:
        return self.feed(SessionOpened(epoch=1, session=10, **fields))  # type: ignore[arg-type]

    def assign(self, session: int = 10, spec: JobSpec = SPEC, member: int = -1) -> list[Effect]:
        order = RunAssigned(epoch=1, session=session, tenant="t", job="j", member=member, spec=Raw(codec.encode(spec)))
        return self.feed(order)


def launch(run: int = 5, spec: JobSpec = SPEC) -> Launch:
    return Launch(run, "t", "j", 1, (), spec)


def events(effects: list[Effect]) -> list[Event]:
    return [effect.event for effect in effects if isinstance(effect, Report)]


def test_nothing_is_started_before_the_session_is_open() -> None:
    agent = Agent()
    assert agent.assign() == []
    agent.opened()
    (start,) = agent.assign()
    assert isinstance(start, StartRun)
    assert (start.launch.run, start.launch.job_id, start.launch.spec) == (agent.seq, "j", SPEC)


def test_orders_for_another_session_are_ignored() -> None:
    agent = Agent()
    agent.opened()
    assert agent.assign(session=9) == []


def test_what_was_seen_is_not_seen_again() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    agent.seq -= 1
    assert agent.assign() == []


def test_the_life_of_a_run() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    run = agent.seq
    assert agent.core.may_start(run)
    assert events(agent.core.starting(run, "pulling")) == [RunStarting(run=run, phase="pulling")]
    assert events(agent.core.started(run, 0)) == [RunStarted(run=run)]
    (report,) = agent.core.ended(run, Ended("exited", 3, "exit_code", "words"), 2)
    expected = RunEnded(run=run, outcome="exited", exit_code=3, reason="exit_code", detail="words", log_chunks=2)
    assert report == Report(expected)
    assert agent.core.stored(expected) == [ForgetRun(run)]
    assert not agent.core.runs


def test_a_stop_before_the_start_came_through_waits_for_it() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    run = agent.seq
    assert agent.feed(StopOrdered(epoch=1, run=run, reason="aborted")) == []
    assert not agent.core.may_start(run)
    effects = agent.core.started(run, 0)
    assert StopRun(run, 3_000) in effects
    assert agent.feed(StopOrdered(epoch=1, run=run, reason="drained")) == [], "one stop is enough"


def test_a_stop_before_the_start_was_tried_ends_it() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    run = agent.seq
    agent.feed(StopOrdered(epoch=1, run=run, reason="aborted"))
    (event,) = events(agent.core.start_failed(run, "unwanted", ""))
    assert event == RunEnded(run=run, outcome="stopped", reason="aborted")


def test_a_start_that_failed_is_reported_with_its_reason() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    (event,) = events(agent.core.start_failed(agent.seq, "image_missing", "no such image"))
    assert event == RunEnded(run=agent.seq, outcome="start_failed", reason="image_missing", detail="no such image")


def test_a_spec_it_cannot_read_is_reported_and_not_started() -> None:
    agent = Agent()
    agent.opened()
    effects = agent.feed(RunAssigned(epoch=1, session=10, tenant="t", job="j", spec=Raw(b'{"warp":9}')))
    (event,) = events(effects)
    assert isinstance(event, RunEnded)
    assert (event.outcome, "warp" in event.detail) == ("start_failed", True)


def test_max_runtime_stops_a_run_and_calls_it_timed_out() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    run = agent.seq
    agent.core.started(run, 1_000)
    assert agent.core.tick(10_999) == []
    assert agent.core.tick(11_000) == [StopRun(run, 3_000)]
    (event,) = events(agent.core.ended(run, Ended("stopped", 143), 0))
    assert isinstance(event, RunEnded)
    assert event.outcome == "timed_out"


def test_a_run_that_ended_by_itself_just_before_our_signal_keeps_its_own_end() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    run = agent.seq
    agent.core.started(run, 0)
    agent.feed(StopOrdered(epoch=1, run=run, reason="drained"))
    (event,) = events(agent.core.ended(run, Ended("exited", 0), 0))
    assert event == RunEnded(run=run, outcome="exited", exit_code=0)


def test_known_runs_are_adopted_or_let_go() -> None:
    known = [
        KnownRun(launch(5)),
        KnownRun(launch(6), Ended("exited", 0)),
        KnownRun(launch(7)),
        KnownRun(launch(8), Ended("exited", 1)),
    ]
    agent = Agent(known)
    assert agent.core.inventory == (5, 6, 7, 8)
    effects = agent.opened(runs=(5, 6))
    assert WatchRun(launch(5)) in effects
    assert WatchRun(launch(6)) in effects, "its output may not be shipped yet"
    assert events(effects) == [RunStarted(run=5), RunStarted(run=6)]
    assert StopRun(7, 3_000) in effects
    assert ForgetRun(8) in effects
    assert events(agent.core.ended(7, Ended("stopped", 143), 0)) == [], "the log does not know it any more"


def test_adopted_runs_keep_their_deadline() -> None:
    agent = Agent([KnownRun(launch(5), None, ran_ms=9_000)])
    agent.opened(runs=(5,))
    assert agent.core.tick(999) == []
    assert agent.core.tick(1_000) == [StopRun(5, 3_000)]


def test_orders_still_owed_are_carried_out() -> None:
    agent = Agent([KnownRun(launch(5))])
    effects = agent.opened(runs=(5,), owed=(Owed(5, "aborted"),))
    assert effects[-1] == StopRun(5, 3_000)


def test_a_stop_that_an_earlier_agent_began_is_gone_on_with() -> None:
    agent = Agent([KnownRun(launch(5), stop="drained")])
    effects = agent.opened(runs=(5,))
    assert effects[-1] == StopRun(5, 3_000)
    assert agent.feed(StopOrdered(epoch=1, run=5, reason="aborted")) == []
    (event,) = events(agent.core.ended(5, Ended("stopped", 137), 0))
    assert event == RunEnded(run=5, outcome="stopped", exit_code=137, reason="drained")


def test_an_end_that_an_earlier_agent_brought_about_is_not_the_job_s_own() -> None:
    """Whatever it looks like to a driver that knows of no stop."""
    own = Ended("exited", 143, "killed", "exit code 143: by signal 15")
    for stop, ended, outcome, reason in (
        ("drained", own, "stopped", "drained"),
        ("timed_out", own, "timed_out", "timed_out"),
        ("timed_out", Ended("exited", 0), "timed_out", "timed_out"),
        ("preempted", Ended("lost", None, "engine_lost"), "stopped", "preempted"),
        ("drained", Ended("oom", 137, "out_of_memory"), "oom", "out_of_memory"),
        ("", own, "exited", "killed"),
    ):
        agent = Agent([KnownRun(launch(5), ended, stop=stop)])
        agent.opened(runs=(5,))
        (event,) = events(agent.core.ended(5, ended, 0))
        assert isinstance(event, RunEnded)
        assert (event.outcome, event.exit_code, event.reason) == (outcome, ended.exit_code, reason)


def test_a_lost_node_begins_a_new_session() -> None:
    agent = Agent()
    agent.opened()
    (over,) = agent.feed(NodeLost(epoch=1, session=10))
    assert isinstance(over, SessionOver)
    assert over.rejoin
    assert agent.assign() == [], "nothing more in this one"
    assert agent.core.fenced() == []


def test_a_verdict_on_another_session_is_not_ours() -> None:
    agent = Agent()
    agent.opened()
    assert agent.feed(NodeLost(epoch=1, session=9)) == []


def test_refused_replaced_and_doubled_sessions_end_for_good() -> None:
    for event in (
        SessionRefused(epoch=1, session=10, reason="name_taken"),
        SessionOpened(epoch=1, session=44),
        NodeJoined(machine_id="machine", boot_id="b", capacity=Capacity()),
    ):
        agent = Agent()
        (over,) = agent.feed(event)
        assert isinstance(over, SessionOver)
        assert not over.rejoin


def test_another_machines_join_is_not_yet_the_end() -> None:
    agent = Agent()
    agent.opened()
    assert agent.feed(NodeJoined(machine_id="other", boot_id="b", capacity=Capacity())) == []


def test_a_fenced_session_may_start_nothing() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    (over,) = agent.core.fenced()
    assert isinstance(over, SessionOver)
    assert over.rejoin
    assert not agent.core.may_start(agent.seq)
    assert events(agent.core.started(agent.seq, 0)) == []


def test_leaving_stops_everything_and_takes_nothing_new() -> None:
    agent = Agent()
    agent.opened()
    agent.assign()
    run = agent.seq
    agent.core.started(run, 0)
    assert agent.core.leave() == [Announce(NodeLeaving(session=agent.core.session)), StopRun(run, 3_000)]
    assert agent.assign() == []
    (event,) = events(agent.core.ended(run, Ended("stopped", 143), 0))
    assert event == RunEnded(run=run, outcome="stopped", exit_code=143, reason="drained")


def test_a_machine_that_is_taken_away_gives_no_run_more_time_than_it_has() -> None:
    agent = Agent()
    agent.opened()
    agent.assign(spec=JobSpec(image="busybox", stop_grace_ms=60_000))
    long = agent.seq
    agent.assign(spec=JobSpec(image="busybox", stop_grace_ms=500))
    short = agent.seq
    for run in (long, short):
        agent.core.started(run, 0)
    leaving = NodeLeaving(session=agent.core.session, reason="spot")
    assert agent.core.leave(spot_notice_ms=2_000) == [Announce(leaving), StopRun(long, 2_000), StopRun(short, 500)]
    (event,) = events(agent.core.ended(long, Ended("stopped", 143), 0))
    assert event.reason == "preempted"


def test_members_of_a_gang_know_its_head() -> None:
    agent = Agent()
    agent.opened()
    spec = JobSpec(driver="process", command=("true",), array=3, gang=True)
    order = RunAssigned(
        epoch=1, session=10, tenant="t", job="j", member=2, gang_head="n7", spec=Raw(codec.encode(spec))
    )
    (start,) = agent.feed(order)
    assert isinstance(start, StartRun)
    told = run_environment(Place("c", "n1", Path("/nowhere")), start.launch)
    assert told["EVENTSCHED_GANG_HEAD"] == "n7"
    assert (told["EVENTSCHED_GANG_SIZE"], told["EVENTSCHED_ARRAY_INDEX"]) == ("3", "2")


def test_a_manual_run_is_finished_by_order() -> None:
    agent = Agent()
    agent.opened()
    agent.assign(spec=JobSpec(driver="manual"))
    run = agent.seq
    assert agent.feed(FinishOrdered(epoch=1, run=run, exit_code=2)) == [FinishRun(run, 2)]
    assert agent.feed(FinishOrdered(epoch=1, run=999)) == []


def test_members_of_arrays_have_their_own_id() -> None:
    agent = Agent()
    agent.opened()
    (start,) = agent.assign(member=3)
    assert isinstance(start, StartRun)
    assert (start.launch.job_id, start.launch.member) == ("j.3", 3)
