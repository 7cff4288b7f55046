"""The agent's core: orders in, effects out; no I/O, no clock (times come in as data).

One core lives for one session. It acts on nothing but what stands in the node's own feed, starts
each run at most once, and reports what its drivers say. What it must never do: start anything
for a session that is over (the shell asks `may_start` right before it touches the engine).
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

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
    RunAssigned,
    RunEnded,
    RunStarted,
    RunStarting,
    SessionOpened,
    SessionRefused,
    StopOrdered,
)
from eventsched.ids import member_id
from eventsched.recorded import Recorded, Unreadable
from eventsched.spec import JobSpec
from eventsched.subjects import assign

_spec = msgspec.json.Decoder(JobSpec)


class LocalRun(Struct):
    """A run on this machine.

    phase: starting, running, ended. stop: why it is being stopped ("" = it is not); `timed_out`
    is the agent's own reason. stopped_before: an earlier agent had begun to, so whatever a driver calls
    its end, it is that stop's. wanted: False when the log no longer counts it as ours.
    """

    launch: Launch
    phase: str
    stop: str = ""
    stop_sent: bool = False
    stopped_before: bool = False
    wanted: bool = True
    deadline_ms: int = 0


class AgentCore:
    """One session of one node.

    machine_id tells our own joins from another machine's. known: what the drivers found.
    """

    def __init__(self, node: str, machine_id: str, known: list[KnownRun], now_ms: int) -> None:
        self.node = node
        self.machine_id = machine_id
        self.session = 0
        self.open = False
        self.over = False
        self.rejoins = False
        self.leaving = False
        self.cursor = 0
        self.known = {run.launch.run: run for run in known}
        self.runs: dict[int, LocalRun] = {}
        self._booted_ms = now_ms
        self._grace_max_ms = 0

    # ---- the session ------------------------------------------------------------------------

    @property
    def inventory(self) -> tuple[int, ...]:
        """The runs to declare when joining."""
        return tuple(sorted(self.known))

    def joined(self, session: int) -> None:
        """The join is stored; wait for its answer in the feed."""
        self.session = self.cursor = session

    def may_start(self, run: int) -> bool:
        """True when a start ordered earlier is still wanted."""
        local = self.runs.get(run)
        return local is not None and not self.over and not local.stop and local.phase == "starting"

    def feed(self, recorded: Recorded, now_ms: int) -> list[Effect]:
        """One entry of the node's feed."""
        if recorded.seq <= self.cursor or self.over:
            return []
        self.cursor = recorded.seq
        match recorded.event:
            case RunAssigned() as order if order.session == self.session and self.open and not self.leaving:
                return self._assigned(recorded.seq, order)
            case StopOrdered() as order:
                return self._stop(order.run, order.reason)
            case FinishOrdered() as order if order.run in self.runs:
                return [FinishRun(order.run, order.exit_code)]
            case SessionOpened() as answer if answer.session == self.session:
                return self._opened(answer, now_ms)
            case SessionRefused() as answer if answer.session == self.session:
                return self._end(f"refused ({answer.reason}): {answer.detail}", rejoin=False)
            case NodeLost() as verdict if verdict.session == self.session:
                return self._end("the leader gave this node up", rejoin=True)
            case SessionOpened() as answer if answer.session > self.session:
                return self._end(f"session {answer.session} has replaced this one", rejoin=False)
            case Unreadable() if recorded.subject == assign(self.node) and self.open and not self.leaving:
                return [_unstartable(recorded.seq, "the assignment", "it was written by a newer scheduler")]
            case NodeJoined() as event if event.machine_id == self.machine_id:
                return self._end("another agent of this machine has joined as this node", rejoin=False)
        return []

    def fenced(self) -> list[Effect]:
        """The lease ran out: whatever was ordered in this session is void."""
        return [] if self.over else self._end("cut off for longer than fence_after", rejoin=True)

    def _end(self, why: str, rejoin: bool) -> list[Effect]:
        self.over = True
        self.rejoins = rejoin
        self.open = False
        return [SessionOver(why, rejoin)]

    def _opened(self, answer: SessionOpened, now_ms: int) -> list[Effect]:
        """Take over what the log still counts as ours, let go of the rest."""
        self.open = True
        effects: list[Effect] = []
        kept = dict.fromkeys(answer.runs)
        for seq, known in self.known.items():
            wanted = seq in kept
            spec = known.launch.spec
            deadline = self._booted_ms + spec.max_runtime_ms - known.ran_ms if spec.max_runtime_ms else 0
            before = bool(known.stop)
            self.runs[seq] = LocalRun(
                known.launch, "running", wanted=wanted, deadline_ms=deadline, stopped_before=before
            )
            if wanted:
                effects += [WatchRun(known.launch), Report(RunStarted(run=seq))]
                effects += self._stop(seq, known.stop) if before else []
            elif known.ended is not None:
                effects += self._forget(seq)
            else:
                effects += [WatchRun(known.launch), *self._stop(seq, "unwanted")]
        self.known = {}
        for owed in answer.owed:
            effects += self._stop(owed.run, owed.reason)
        return effects

    def leave(self, spot_notice_ms: int = 0) -> list[Effect]:
        """Say so, and stop everything, in good order; the shell announces `node.left` when `runs` is empty.

        spot_notice_ms: the machine is taken away so soon; no run gets a longer grace than that.
        """
        self.leaving = True
        self._grace_max_ms = spot_notice_ms
        leaving = NodeLeaving(session=self.session, reason="spot" if spot_notice_ms else "")
        effects: list[Effect] = [Announce(leaving)]
        for seq in list(self.runs):
            effects += self._stop(seq, "preempted" if spot_notice_ms else "drained")
        return effects

    # ---- orders -----------------------------------------------------------------------------

    def _assigned(self, seq: int, order: RunAssigned) -> list[Effect]:
        if seq in self.runs:
            return []
        try:
            spec = _spec.decode(order.spec)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return [_unstartable(seq, "the spec", str(error))]
        job_id = order.job if order.member < 0 else member_id(order.job, order.member)
        launch = Launch(seq, order.tenant, job_id, order.attempt, order.gpus, spec, order.member, order.gang_head)
        self.runs[seq] = LocalRun(launch, "starting")
        return [StartRun(launch)]

    def _stop(self, seq: int, reason: str) -> list[Effect]:
        local = self.runs.get(seq)
        if local is None or local.phase == "ended" or local.stop:
            return []
        local.stop = reason
        return self._send_stop(local)

    def _send_stop(self, local: LocalRun) -> list[Effect]:
        """A run that is being started is stopped once the start has come through."""
        if local.stop_sent or local.phase != "running":
            return []
        local.stop_sent = True
        grace_ms = local.launch.spec.stop_grace_ms
        return [StopRun(local.launch.run, min(grace_ms, self._grace_max_ms or grace_ms))]

    def tick(self, now_ms: int) -> list[Effect]:
        """Stop runs that are over their max_runtime."""
        effects: list[Effect] = []
        for seq, local in self.runs.items():
            if local.deadline_ms and now_ms >= local.deadline_ms and local.phase == "running":
                effects += self._stop(seq, "timed_out")
        return effects

    # ---- what drivers say ---------------------------------------------------------------------

    def starting(self, run: int, phase: str) -> list[Effect]:
        """The start takes a while."""
        local = self.runs.get(run)
        if local is None or local.phase != "starting" or self.over:
            return []
        return [Report(RunStarting(run=run, phase=phase))]

    def started(self, run: int, now_ms: int) -> list[Effect]:
        """It runs. One that comes through after the session is nobody's: it may run elsewhere by now."""
        local = self.runs[run]
        local.phase = "running"
        kept = self.rejoins and local.launch.spec.on_disconnect == "keep"
        if self.over and not kept:
            local.stop = local.stop or "session_over"
        if local.launch.spec.max_runtime_ms:
            local.deadline_ms = now_ms + local.launch.spec.max_runtime_ms
        effects: list[Effect] = [] if self.over else [Report(RunStarted(run=run))]
        if local.stop:
            effects += self._send_stop(local)
        return effects

    def start_failed(self, run: int, reason: str, detail: str) -> list[Effect]:
        """It never ran: for a reason of its own, or because it was stopped first."""
        local = self.runs[run]
        outcome = Ended("stopped") if local.stop else Ended("start_failed", None, reason, detail)
        return self.ended(run, outcome, 0)

    def ended(self, run: int, ended: Ended, log_chunks: int) -> list[Effect]:
        """It is over, and all its output is stored (in `log_chunks` chunks)."""
        local = self.runs[run]
        local.phase = "ended"
        if not local.wanted:
            return self._forget(run)
        if self.over:
            return []
        if local.stopped_before and ended.outcome in ("exited", "lost"):
            ended = Ended("stopped", ended.exit_code)
        outcome, reason = ended.outcome, ended.reason
        if outcome == "stopped":
            if local.stop == "timed_out":
                outcome = "timed_out"
            reason = reason or local.stop
        event = RunEnded(
            run=run,
            outcome=outcome,
            exit_code=ended.exit_code,
            reason=reason,
            detail=ended.detail[:500],
            log_chunks=log_chunks,
        )
        return [Report(event)]

    def stored(self, event: RunStarting | RunStarted | RunEnded) -> list[Effect]:
        """A report is in the log."""
        return self._forget(event.run) if isinstance(event, RunEnded) else []

    def _forget(self, run: int) -> list[Effect]:
        self.runs.pop(run, None)
        return [ForgetRun(run)]


def _unstartable(run: int, what: str, why: str) -> Report:
    """Say at once that an order can't be followed: its run would hold its resources for ever. Where the
    order was no assignment, no such run is open and the report changes nothing."""
    detail = f"this agent cannot read {what} ({why}): upgrade the agent"
    return Report(RunEnded(run=run, outcome="start_failed", reason="agent_too_old", detail=detail[:500]))
