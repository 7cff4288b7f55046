"""Simulated agents: the agent's process around the real core, without waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventsched import codec, subjects
from eventsched.agents.core import AgentCore
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
from eventsched.events import NodeJoined, NodeLeft, RunAssigned, RunEnded
from eventsched.log.port import AppendError, Outgoing
from eventsched.recorded import Recorded
from eventsched.resources import Capacity

if TYPE_CHECKING:
    from .machines import Machine

HEARTBEAT_MS = 500
FENCE_AFTER_MS = 2_000
STOP_MS = 500
TICK_MS = 100


class SimAgent:
    """The agent process: what the real shell does, without waiting."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.world = machine.world
        self.dead = False
        self.paused_until = 0
        self.outbox: list[Outgoing] = []
        self.sending = False
        self.core: AgentCore | None = None
        self.feed_next = 1
        self.world.readers.append(self.read)
        self.world.after(10, self._begin)

    def _frozen(self) -> bool:
        return self.world.now_ms < self.paused_until

    # ---- sessions -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin a session: inventory, lease, join."""
        if self.dead:
            return
        machine = self.machine
        if any(run in machine.fenced for run in machine.running()):
            self.world.after(50, self._begin)  # the leash is at work: nothing may be declared yet
            return
        known = [
            KnownRun(one.launch, one.ended, self.world.now_ms - one.started_ms)
            for run, one in machine.containers.items()
            if run not in machine.fenced
        ]
        if self.world.sabotage.adopt:
            known = []
        self.core = AgentCore(machine.node, machine.node, known, self.world.now_ms)
        self.outbox = []
        self._join(f"{machine.node}-{self.world.now_ms}")

    def _join(self, msg_id: str) -> None:
        if self.dead:
            return
        machine, sent_ms, core = self.machine, self.world.now_ms, self.core
        event = NodeJoined(
            machine_id=machine.node,
            boot_id="boot",
            capacity=Capacity(machine.cpus * 1000, 0),
            drivers=("fake",),
            runs=core.inventory,
            leash=True,
            fence_after_ms=FENCE_AFTER_MS,
            stop_ms=STOP_MS,
        )
        message = Outgoing(subjects.node(machine.node), codec.encode(event), msg_id=msg_id)

        def done(result: int | AppendError) -> None:
            if self.dead or core is not self.core:
                return
            if isinstance(result, AppendError):
                self.world.after(100, lambda: self._join(msg_id))
                return
            machine.lease_ms = sent_ms + FENCE_AFTER_MS
            core.joined(result)
            self.feed_next = result
            self.world.after(1, lambda: self._beat(core))
            self.world.after(1, lambda: self._tick(core))
            self.read()

        self.world.append([message], None, machine.reachable, done)

    def _over(self, over: SessionOver) -> None:
        """Stop what runs, then begin anew."""
        if not over.rejoin:
            # the join of an agent that was killed arrived late: this one goes, its supervisor starts another
            if "another agent of this machine" not in over.why:
                self.world.problems.append(f"{self.machine.node}: {over.why}")
            self.machine.kill_agent()
            return
        for run in self.machine.running():
            self.machine.stop(run)
        self._wait_until_stopped()

    def _wait_until_stopped(self) -> None:
        if self.dead:
            return
        if self.machine.running():
            self.world.after(50, self._wait_until_stopped)
        else:
            self.world.after(50, self._begin)

    # ---- leaving --------------------------------------------------------------------------------

    def leave(self, spot_notice_ms: int = 0) -> None:
        """Go in good order: say so, stop what runs, report it, say goodbye; another agent comes later."""
        core = self.core
        if core is not None and core.session and not core.over and not core.leaving:
            self._do(core.leave(spot_notice_ms))
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        core = self.core
        if self.dead or core is None or core.over or not core.leaving:
            return
        if core.runs or self.outbox or self._frozen():
            self.world.after(50, self._say_goodbye)
        else:
            self._do([Announce(NodeLeft(session=core.session))])

    # ---- loops ----------------------------------------------------------------------------------

    def read(self) -> None:
        """The feed has something."""
        core = self.core
        if self.dead or core is None or not core.session or core.over or not self.machine.reachable():
            return
        if self._frozen():
            self.world.at(self.paused_until + 1, self.read)
            return
        node = self.machine.node
        for entry in self.world.entries(self.feed_next, [subjects.assign(node), subjects.node(node)]):
            recorded = Recorded(entry.seq, entry.at_ms, entry.subject, codec.decode(entry.subject, entry.payload))
            if self.world.sabotage.dedup and isinstance(recorded.event, RunAssigned):
                core.cursor = 0
                core.runs.pop(entry.seq, None)
            self.feed_next = max(self.feed_next, entry.seq + 1)
            self._do(core.feed(recorded, self.world.now_ms))

    def _beat(self, core: AgentCore) -> None:
        if self.dead or core is not self.core or core.over:
            return
        world, machine = self.world, self.machine
        if not self._frozen() and machine.reachable() and not world.chance(50):
            sent_ms = world.now_ms
            world.after(world.delay(), lambda: world.beat(machine.node, core.session))

            def acknowledged() -> None:
                if self.dead or core is not self.core or core.over or not machine.reachable():
                    return
                if self._frozen():
                    world.at(self.paused_until + 1, acknowledged)
                    return
                if world.now_ms >= machine.lease_ms:
                    self._do(core.fenced())
                else:
                    machine.lease_ms = max(machine.lease_ms, sent_ms + FENCE_AFTER_MS)

            world.after(world.delay() + world.faults.delay_max_ms, acknowledged)
        world.after(HEARTBEAT_MS, lambda: self._beat(core))

    def _tick(self, core: AgentCore) -> None:
        if self.dead or core is not self.core or core.over:
            return
        if not self._frozen():
            if self.world.now_ms >= self.machine.lease_ms:
                self._do(core.fenced())
            self._do(core.tick(self.world.now_ms))
            self.read()
            self._flush()
        self.world.after(TICK_MS, lambda: self._tick(core))

    # ---- effects --------------------------------------------------------------------------------

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case StartRun():
                    self._later(lambda launch=effect.launch: self._start(launch))
                case WatchRun():
                    if self.machine.containers[effect.launch.run].ended is not None:
                        self._later(lambda run=effect.launch.run: self.container_ended(run))
                case StopRun():
                    self.machine.stop(effect.run)
                case ForgetRun():
                    container = self.machine.containers.get(effect.run)
                    if container is not None and container.ended is not None:
                        del self.machine.containers[effect.run]
                case Report():
                    self.outbox.append(Outgoing(subjects.run(self.machine.node), codec.encode(effect.event)))
                    self._flush()
                case SessionOver():
                    self._over(effect)
                case Announce():
                    self.outbox.append(Outgoing(subjects.node(self.machine.node), codec.encode(effect.event)))
                    self._flush()
                case FinishRun():
                    pass

    def _later(self, action: object) -> None:
        """Do something a moment later, in this session, when the process is not frozen."""
        core = self.core

        def run() -> None:
            if self.dead or core is not self.core:
                return
            if self._frozen():
                self.world.at(self.paused_until + 1, run)
                return
            action()  # type: ignore[operator]

        self.world.after(self.world.random.randrange(1, 40), run)

    def _start(self, launch: Launch) -> None:
        if self.world.now_ms >= self.machine.lease_ms:
            self._do(self.core.fenced())
        if not self.core.may_start(launch.run) and not self.world.sabotage.dedup:
            if launch.run in self.core.runs:
                self._do(self.core.start_failed(launch.run, "unwanted", ""))
            return
        self.machine.start(launch)
        self._later(lambda: self._started(launch.run))

    def _started(self, run: int) -> None:
        """The engine's answer, a moment after it began: much may have happened meanwhile."""
        if run in self.core.runs:
            self._do(self.core.started(run, self.world.now_ms))
            self.container_ended(run)

    def container_ended(self, run: int) -> None:
        """The engine says that a container has ended."""
        if self.dead:
            return
        if self._frozen():
            self.world.at(self.paused_until + 1, lambda: self.container_ended(run))
            return
        container = self.machine.containers.get(run)
        if self.core is None or container is None or container.ended is None or run not in self.core.runs:
            return
        if self.core.runs[run].phase != "running":
            return
        ended = Ended("lost", None, "fenced") if run in self.machine.fenced else container.ended
        self._do(self.core.ended(run, ended, 0))

    def _flush(self) -> None:
        """Send reports, one batch at a time, again and again until they are stored."""
        if self.sending or not self.outbox or self.dead or self._frozen():
            return
        batch, core = self.outbox[:20], self.core
        self.sending = True

        def done(result: int | AppendError) -> None:
            self.sending = False
            if self.dead or core is not self.core:
                return
            if self._frozen():
                self.sending = True
                self.world.at(self.paused_until + 1, lambda: done(result))
                return
            if isinstance(result, AppendError):
                self.world.after(50, self._flush)
                return
            del self.outbox[: len(batch)]
            for message in batch:
                event = codec.decode(message.subject, message.payload)
                if isinstance(event, NodeLeft):
                    self.machine.kill_agent()
                    return
                if isinstance(event, RunEnded):
                    self._do(core.stored(event))
            self._flush()

        self.world.append(batch, None, self.machine.reachable, done)
