"""One session of an agent: the core, run over a real log and real drivers.

Loops: the node's feed (orders), heartbeats (which renew the lease), the clock, and one task per
run. Every outcome goes back into the core; what the core answers is carried out here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import structlog

from eventsched import codec, subjects
from eventsched.agents.core import AgentCore
from eventsched.agents.drivers.base import Driver, StartFailed
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
from eventsched.agents.lease import boot_ms
from eventsched.agents.logs import Shipper
from eventsched.agents.stops import FENCED
from eventsched.errors import PermissionDenied
from eventsched.events import NodeJoined, NodeLeft, RunEnded
from eventsched.heartbeat import Heartbeat, RunUsage, why_not_stored
from eventsched.log.gather import GatheringWriter
from eventsched.log.port import AppendError, Outgoing
from eventsched.new_ids import new_ulid
from eventsched.recorded import Recorded

if TYPE_CHECKING:
    from eventsched.agents.runtime import Agent

_log = structlog.get_logger("eventsched.agent")

LINGER_S = 0.005
REPORT_RETRY_S = 2.0
SLOW_START_S = 0.25
SHIP_AFTER_S = 0.1
TICK_S = 0.1
LEAVE_MAX_S = 90.0
LEAVE_MARGIN_S = 8.0
WIND_UP_S = 5.0


class Session:
    """One session. `run` returns how it ended."""

    def __init__(self, agent: Agent, known: list[tuple[Driver, KnownRun]]) -> None:
        self.agent = agent
        self.core = AgentCore(agent.node, agent.machine_id, [run for _, run in known], boot_ms())
        self.ready = asyncio.Event()
        self._drivers = {run.launch.run: driver for driver, run in known}
        self._adopted = {run.launch.run: None for _, run in known}
        self._writer = GatheringWriter(agent.log, linger_s=LINGER_S)
        self._run_subject = subjects.run(agent.node)
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[SessionOver] = asyncio.get_running_loop().create_future()
        self._settled = asyncio.Event()
        self._usage: dict[int, RunUsage] = {}

    async def run(self) -> SessionOver:
        """Join, work until the session is over, stop what must stop."""
        if not await self._join_or_leave():
            return self._over.result()
        loops = [self._follow_feed(), self._beat(), self._tick(), self._sample()]
        tasks = [asyncio.get_running_loop().create_task(loop) for loop in loops]
        for task in tasks:
            task.add_done_callback(self._loop_ended)
        try:
            return await self._over
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._wind_up()

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None and not self._over.done():
            self._over.set_exception(task.exception() or RuntimeError("loop ended"))

    async def _join_or_leave(self) -> bool:
        """False when the agent was asked to leave before the join got through."""
        joining = asyncio.ensure_future(self._join())
        await asyncio.wait((joining, self._over), return_when=asyncio.FIRST_COMPLETED)
        if joining.done():
            joining.result()
            return True
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        await self._writer.close()
        return False

    async def _join(self) -> None:
        agent = self.agent
        event = NodeJoined(
            machine_id=agent.machine_id,
            boot_id=agent.boot_id,
            capacity=agent.capacity,
            drivers=tuple(agent.drivers),
            labels=agent.settings.labels,
            taints=agent.settings.taints,
            spot=agent.settings.spot.spot,
            hazard_ppm_per_h=agent.settings.spot.hazard_ppm_per_h,
            price_micros_per_h=agent.settings.price_micros_per_h,
            runs=self.core.inventory,
            leash=agent.settings.leash,
            fence_after_ms=agent.settings.fence_after_ms,
            stop_ms=agent.settings.stop_ms,
            version=agent.version,
        )
        message = Outgoing(subjects.node(agent.node), codec.encode(event), msg_id=new_ulid())
        sent_ms = boot_ms()
        session = await self._writer.put(message)
        agent.lease.start(sent_ms, session)
        self.core.joined(session)
        _log.info("joined", node=agent.node, session=session, runs=len(event.runs))

    async def _wind_up(self) -> None:
        """Stop every run of this session but those that asked to be kept, and wait for them."""
        over = self._over.result() if self._over.done() and not self._over.exception() else None
        if over is not None and over.rejoin:
            for local in list(self.core.runs.values()):
                if local.launch.spec.on_disconnect != "keep" and local.phase != "ended":
                    self._spawn(self._stop(local.launch, FENCED))
            deadline = asyncio.get_running_loop().time() + self.agent.settings.stop_ms / 1000 + 5
            while self._tasks and asyncio.get_running_loop().time() < deadline:
                await asyncio.wait(set(self._tasks), timeout=0.5)
        ending = list(self._tasks)
        for task in ending:
            task.cancel()
        if ending:  # a start that is given up is undone first: a new session waits for that, an exit does not
            await asyncio.wait(ending, timeout=None if over is not None and over.rejoin else WIND_UP_S)
        await self._writer.close()

    # ---- loops ------------------------------------------------------------------------------

    async def _follow_feed(self) -> None:
        node = self.agent.node
        feed = self.agent.log.read(self.core.session, [subjects.assign(node), subjects.node(node)])
        try:
            while True:
                for seq, at_ms, subject, payload in await feed.get():
                    recorded = Recorded(seq, at_ms, subject, codec.decode(subject, payload))
                    was_open = self.core.open
                    self._do(self.core.feed(recorded, boot_ms()))
                    if self.core.open and not was_open:
                        _log.info("session_open", node=node, session=self.core.session, runs=len(self.core.runs))
                        self.ready.set()
        finally:
            await feed.close()

    async def _beat(self) -> None:
        agent, core = self.agent, self.core
        psutil.cpu_percent(None)
        while True:
            agent.ensure_leash()
            running = [run for run, local in core.runs.items() if local.phase == "running"]
            beat = Heartbeat(
                session=core.session,
                cursor=core.cursor,
                cpu_percent=psutil.cpu_percent(None),
                memory_used_bytes=int(psutil.virtual_memory().used),
                gpus=agent.gpus.utilisation(),
                runs={str(run): self._usage[run] for run in running if run in self._usage},
                starting=len(core.runs) - len(running),
                running=len(running),
            )
            sent_ms = boot_ms()
            if await self._store_beat(beat) and not agent.lease.renew(sent_ms, core.session):
                self._do(core.fenced())
            await asyncio.sleep(max(0, sent_ms + agent.settings.heartbeat_ms - boot_ms()) / 1000)

    async def _store_beat(self, beat: Heartbeat) -> bool:
        """True when the server says that it has it; one that is not stored is simply missing."""
        agent = self.agent
        subject = subjects.heartbeat(agent.node)
        try:
            answer = await agent.link.request(
                subject, msgspec.json.encode(beat), timeout=agent.settings.heartbeat_ms / 1000
            )
        except PermissionDenied as error:
            _log.error("heartbeat_denied", node=agent.node, error=error.message)
            return False
        except Exception as error:
            _log.debug("heartbeat_missed", node=agent.node, error=str(error) or type(error).__name__)
            return False
        refusal = why_not_stored(answer)
        if refusal:
            _log.warning("heartbeat_refused", node=agent.node, error=refusal)
        return not refusal

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = boot_ms()
            if self.agent.lease.expired():
                self._do(self.core.fenced())
            self._do(self.core.tick(now))

    async def _sample(self) -> None:
        """What runs use, in step with the heartbeats but never delaying one."""
        while True:
            await asyncio.sleep(self.agent.settings.heartbeat_ms / 1000)
            by_driver: dict[str, list[int]] = {}
            for run, local in self.core.runs.items():
                if local.phase == "running":
                    by_driver.setdefault(self._driver_of(local.launch).name, []).append(run)
            usage: dict[int, RunUsage] = {}
            for name, runs in by_driver.items():
                usage.update(await self.agent.drivers[name].usage(runs))
            self._usage = usage

    # ---- effects ----------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("run_task_failed", exc_info=task.exception())

    def _driver_of(self, launch: Launch) -> Driver:
        return self._drivers.get(launch.run) or self.agent.drivers[launch.spec.driver]

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Report():
                    self._report(effect)
                case StartRun():
                    self._spawn(self._start(effect.launch))
                case ForgetRun():
                    self.agent.forget(self._drivers.pop(effect.run, None), effect.run)
                    self._adopted.pop(effect.run, None)
                case WatchRun():
                    self._spawn(self._watch(effect.launch))
                case StopRun():
                    local = self.core.runs[effect.run]
                    self._spawn(self._stop(local.launch, local.stop))
                case FinishRun():
                    driver = self._driver_of(self.core.runs[effect.run].launch)
                    self._spawn(driver.finish(effect.run, effect.exit_code))
                case Announce():
                    self._writer.put_soon(Outgoing(subjects.node(self.agent.node), codec.encode(effect.event)))
                case SessionOver():
                    _log.warning("session_over", node=self.agent.node, session=self.core.session, why=effect.why)
                    if not self._over.done():
                        self._over.set_result(effect)
        if self.core.leaving and not self.core.runs:
            self._settled.set()

    def _report(self, report: Report) -> None:
        event = report.event

        def done(outcome: int | AppendError) -> None:
            if isinstance(outcome, AppendError):
                _log.error("report_not_stored", run=event.run, error=str(outcome))
                if not self.core.over:  # a run whose end is never told would hold its resources for ever
                    asyncio.get_running_loop().call_later(REPORT_RETRY_S, self._report, report)
            elif isinstance(event, RunEnded):
                self._do(self.core.stored(event))

        self._writer.post(Outgoing(self._run_subject, codec.encode(event)), done)

    async def _stop(self, launch: Launch, reason: str) -> None:
        """Stop a run, after writing down why: this agent may not live to report its end."""
        driver = self._driver_of(launch)
        await self.agent.stops.note(launch.run, reason)
        await driver.stop(launch.run, launch.spec.stop_grace_ms)

    async def _start(self, launch: Launch) -> None:
        core = self.core
        driver = self.agent.drivers.get(launch.spec.driver)
        if driver is None:
            self._do(core.start_failed(launch.run, "driver", f"this node has no driver {launch.spec.driver}"))
            return
        phase = ["creating"]
        slow = asyncio.get_running_loop().call_later(
            SLOW_START_S, lambda: self._do(core.starting(launch.run, phase[0]))
        )

        def progress(word: str) -> None:
            self._check_wanted(launch.run)
            phase[0] = word
            if word == "pulling":
                self._do(core.starting(launch.run, word))

        try:
            self._check_wanted(launch.run)
            self._drivers[launch.run] = driver
            await driver.start(launch, progress)
        except StartFailed as failure:
            self._do(core.start_failed(launch.run, failure.reason, failure.detail))
            return
        finally:
            slow.cancel()
        self._do(core.started(launch.run, boot_ms()))
        await self._watch(launch)

    def _check_wanted(self, run: int) -> None:
        """Raise StartFailed when a run may not start any more: stopped, or cut off for too long."""
        if self.agent.lease.expired():
            self._do(self.core.fenced())
        if not self.core.may_start(run):
            raise StartFailed("unwanted", "")

    async def _watch(self, launch: Launch) -> None:
        """Wait for the end, shipping output meanwhile; a short silent run costs no shipping at all."""
        driver = self._driver_of(launch)
        ended, chunks = driver.over(launch.run), 0
        if ended is None or launch.run in self._adopted or await driver.has_output(launch.run):
            ended, chunks = await self._watch_and_ship(driver, launch)
        if self.agent.lease.expired() and self.agent.fenced_by_leash(launch.run):
            ended = Ended("lost", ended.exit_code, "fenced")
        self._do(self.core.ended(launch.run, ended, chunks))

    async def _watch_and_ship(self, driver: Driver, launch: Launch) -> tuple[Ended, int]:
        over = asyncio.ensure_future(driver.wait(launch.run))
        shipper = Shipper(self.agent.output_log, subjects.logs(launch.tenant, self.agent.node, launch.run), launch.run)
        try:
            if launch.run in self._adopted:
                await shipper.resume()
            else:
                await asyncio.wait((over,), timeout=SHIP_AFTER_S)
            return await self._ship(driver, launch, shipper, over), shipper.chunks
        finally:
            over.cancel()

    async def _ship(self, driver: Driver, launch: Launch, shipper: Shipper, over: asyncio.Future[Ended]) -> Ended:
        while True:
            if over.done() and not await driver.has_output(launch.run):
                return over.result()
            finished = over.done()
            await shipper.ship(driver.output(launch.run, shipper.offset))
            if finished:
                return over.result()
            # the output ended first: the run does too in a moment, unless its engine went away
            await asyncio.wait((over,), timeout=SHIP_AFTER_S)

    # ---- leaving ----------------------------------------------------------------------------

    async def leave(self, spot_notice_ms: int = 0) -> None:
        """Stop the runs in good order, report them, say goodbye. Nothing is said of runs that do not
        stop in time, nor where the join has no answer yet: those are the leash's, and the next agent's."""
        unanswered = not self.core.open and bool(self.core.inventory)
        if not self.core.over and self.core.session and not unanswered:
            self._do(self.core.leave(spot_notice_ms))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._leave_s()):
                    await self._settled.wait()
                    await self._writer.drain()
                    self._do([Announce(NodeLeft(session=self.core.session))])
                    await self._writer.drain()
        if not self._over.done():
            self._over.set_result(SessionOver("asked to leave", rejoin=False))

    def _leave_s(self) -> float:
        """How long stopping everything may take."""
        graces = (local.launch.spec.stop_grace_ms for local in self.core.runs.values())
        return min(LEAVE_MAX_S, max(graces, default=0) / 1000 + LEAVE_MARGIN_S)
