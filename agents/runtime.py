"""The agent: everything that lasts longer than one session.

Machine lock, drivers, leash, lease, the removal of ended runs and orphans; and the loop that
begins a new session when one was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys

import msgspec
import structlog

from eventsched import __version__
from eventsched.agents import leash
from eventsched.agents.drivers.base import Driver, EngineAway, Place
from eventsched.agents.drivers.registry import make_driver
from eventsched.agents.effects import KnownRun, SessionOver
from eventsched.agents.gpu import Gpus
from eventsched.agents.inventory import capacity, machine_id, node_id
from eventsched.agents.lease import Lease, Terms, boot_ms, drop_lease, keep_fenced, read_fenced
from eventsched.agents.processes import boot_id
from eventsched.agents.session import Session
from eventsched.agents.settings import AgentSettings
from eventsched.agents.spot import notice
from eventsched.agents.stops import FENCED, StopReasons
from eventsched.errors import EventschedError
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link
from eventsched.log.streams import LOGS
from eventsched.settings import usable_data

_log = structlog.get_logger("eventsched.agent")
REAP_EVERY_S = 20.0
ENGINE_RETRY_S = 2.0
ENGINE_ANSWER_S = 10.0
REJOIN_AFTER_S = 0.5
REMOVERS = 4
LEAVE_REMOVAL_S = 30


class NodeTaken(EventschedError):
    """Another agent is this node."""


class Agent:
    """An agent on one machine, for one node of one cluster."""

    def __init__(
        self, link: Link, cluster_id: str, settings: AgentSettings, drivers: list[Driver] | None = None
    ) -> None:
        settings.check()
        self.link = link
        self.settings = settings
        self.version = __version__
        self.node = node_id(settings.node)
        self.directory = settings.data / f"{cluster_id[-8:].lower()}-{self.node}"
        with usable_data(settings.data):
            self.directory.mkdir(parents=True, exist_ok=True)
            self.machine_id = machine_id(settings.data)
        self.boot_id = boot_id()
        self.log = JetStreamLog(link)
        self.output_log = JetStreamLog(link, stream=LOGS)
        self.gpus = Gpus()
        self.capacity = capacity(self.gpus, self.node, settings.cpus, settings.memory, settings.gpus)
        self.place = Place(cluster_id, self.node, self.directory)
        made = drivers or [make_driver(name, self.place, settings.docker) for name in settings.drivers]
        self.drivers: dict[str, Driver] = {driver.name: driver for driver in made}
        engine = getattr(self.drivers.get("docker"), "socket_path", "")
        terms = Terms(cluster_id, self.node, settings.fence_grace_ms, engine)
        self.lease = Lease(self.directory, settings.fence_after_ms, terms)
        self.stops = StopReasons(self.directory)
        self.session: Session | None = None
        self.ready = asyncio.Event()
        self._leaving = asyncio.Event()
        self._removals: dict[int, tuple[asyncio.TimerHandle, Driver, int]] = {}
        self._to_remove: asyncio.Queue[tuple[Driver, int]] = asyncio.Queue()
        self._orphans_seen: dict[int, int] = {}
        self._leash: subprocess.Popen[bytes] | None = None

    # ---- life -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until asked to leave. Raises NodeTaken when this node is somebody else's."""
        lock = self._lock()
        try:
            for driver in self.drivers.values():
                await driver.open()
            loop = asyncio.get_running_loop()
            keepers = [
                loop.create_task(self._reap()),
                loop.create_task(self._await_notice()),
                *(loop.create_task(self._remove()) for _ in range(REMOVERS)),
            ]
            try:
                await self._sessions()
            finally:
                for keeper in keepers:
                    keeper.cancel()
                await asyncio.gather(*keepers, return_exceptions=True)
                for driver in self.drivers.values():
                    await driver.close()
        finally:
            os.close(lock)

    def _lock(self) -> int:
        with usable_data(self.directory):
            handle = os.open(self.directory / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise NodeTaken(
                f"an agent for node {self.node} runs on this machine already",
                "stop it, or give this one another name with --node",
            ) from None
        return handle

    async def _sessions(self) -> None:
        while not self._leaving.is_set():
            self.ensure_leash()
            found = await self._take_stock()
            if found is None:
                break
            self.session = Session(self, found)
            watcher = asyncio.get_running_loop().create_task(self._note_ready(self.session))
            try:
                over = await self.session.run()
            finally:
                watcher.cancel()
            if self._leaving.is_set():
                break
            self._after_session(over)
            await asyncio.sleep(REJOIN_AFTER_S)
        await self._left()

    def _after_session(self, over: SessionOver) -> None:
        if not over.rejoin:
            raise NodeTaken(f"node {self.node}: {over.why}", "give this agent another name with --node")
        _log.info("rejoining", node=self.node, why=over.why)

    async def _note_ready(self, session: Session) -> None:
        await session.ready.wait()
        self.ready.set()

    async def _left(self) -> None:
        if await self._may_still_run():
            _log.warning("left_with_runs", node=self.node)
            return  # the lease runs out, and the leash stops them
        drop_lease(self.directory)
        for timer, driver, run in list(self._removals.values()):
            timer.cancel()
            self._to_remove.put_nowait((driver, run))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_REMOVAL_S):
                await self._to_remove.join()
        for driver in self.drivers.values():
            await driver.leave()
        _log.info("left", node=self.node)

    async def _may_still_run(self) -> bool:
        """Whether anything of ours may run here; a driver that does not answer counts as yes."""
        core = self.session.core if self.session is not None else None
        if core is not None and not core.rejoins and any(one.phase != "ended" for one in core.runs.values()):
            return True
        try:
            async with asyncio.timeout(ENGINE_ANSWER_S):
                known = [one for driver in self.drivers.values() for one in await driver.inventory()]
        except (EngineAway, TimeoutError):
            return True
        return any(one.ended is None for one in known)

    async def leave(self, spot: bool = False) -> None:
        """Ask `run` to finish: runs are stopped and reported, the node says goodbye.

        spot: the machine is being taken away.
        """
        self._leaving.set()
        if self.session is not None:
            await self.session.leave(self.settings.spot.notice_ms if spot else 0)

    async def _await_notice(self) -> None:
        why = await notice(self.settings.spot.file, self.settings.spot.command)
        _log.warning("spot_notice", node=self.node, by=why)
        await self.leave(spot=True)

    async def _take_stock(self) -> list[tuple[Driver, KnownRun]] | None:
        """The inventory, once the engines give one; None when the agent was asked to leave meanwhile."""
        stock = asyncio.ensure_future(self._inventory_at_last())
        asked = asyncio.ensure_future(self._leaving.wait())
        try:
            await asyncio.wait((stock, asked), return_when=asyncio.FIRST_COMPLETED)
            return None if self._leaving.is_set() else stock.result()
        finally:
            stock.cancel()
            asked.cancel()
            await asyncio.gather(stock, asked, return_exceptions=True)

    async def _inventory_at_last(self) -> list[tuple[Driver, KnownRun]]:
        while True:
            try:
                return await self._inventory()
            except EngineAway as error:
                _log.warning("engine_away", node=self.node, error=str(error))
                await asyncio.sleep(ENGINE_RETRY_S)

    async def _inventory(self) -> list[tuple[Driver, KnownRun]]:
        """What the drivers still have, without the runs that were stopped for want of a lease: their
        end is not their own. Those are only removed. Of others that were stopped, why is known."""
        inventory = [(driver, known) for driver in self.drivers.values() for known in await driver.inventory()]
        runs = [known.launch.run for _, known in inventory]
        self.stops.keep_only(runs)
        fenced = keep_fenced(self.directory, runs)
        found: list[tuple[Driver, KnownRun]] = []
        for driver, known in inventory:
            run = known.launch.run
            if run in self._removals:
                continue
            if run in fenced or self.stops.get(run) == FENCED:
                if known.ended is None:
                    await self._await_end(driver, run)
                self.forget(driver, run)
            else:
                found.append((driver, msgspec.structs.replace(known, stop=self.stops.get(run))))
        return found

    async def _await_end(self, driver: Driver, run: int) -> None:
        """The leash is stopping it: nothing may be said about it to the log before it is gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.stop_ms / 1000):
                await driver.wait(run)
                return
        await driver.stop(run, 0)

    def fenced_by_leash(self, run: int) -> bool:
        """True when the leash has stopped this run."""
        return run in read_fenced(self.directory)

    # ---- the leash ----------------------------------------------------------------------------

    def ensure_leash(self) -> None:
        """Start the leash if none is there; it outlives this process."""
        if not self.settings.leash:
            return
        if self._leash is not None:
            if self._leash.poll() is None:
                return
            self._leash = None
        handle = leash.hold_lock(self.directory)
        if handle is None:
            return
        os.close(handle)
        with (self.directory / "leash.log").open("ab") as log:
            self._leash = subprocess.Popen(
                [sys.executable, "-m", "eventsched.agents.leash", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    # ---- removing -----------------------------------------------------------------------------

    def forget(self, driver: Driver | None, run: int) -> None:
        """Remove an ended run, after the keep time if its driver keeps ended ones."""
        self.stops.forget(run)
        if driver is None:
            return
        delay = self.settings.keep_ms / 1000 if driver.keeps_ended else 0
        if delay <= 0:
            self._to_remove.put_nowait((driver, run))
        elif run not in self._removals:
            put, loop = self._to_remove.put_nowait, asyncio.get_running_loop()
            self._removals[run] = (loop.call_later(delay, put, (driver, run)), driver, run)

    async def _remove(self) -> None:
        """Remove what is due; several of these run side by side."""
        while True:
            driver, run = await self._to_remove.get()
            try:
                await driver.remove(run)
            except Exception as error:  # it is found again as an orphan
                _log.warning("not_removed", run=run, driver=driver.name, error=str(error))
            self._removals.pop(run, None)
            self._to_remove.task_done()

    async def _reap(self) -> None:
        """Remove orphans: runs of this cluster and node that nobody here knows, after a grace time."""
        while True:
            await asyncio.sleep(min(REAP_EVERY_S, max(0.5, self.settings.orphan_grace_ms / 2000)))
            with contextlib.suppress(Exception):  # the engine may be away; the next time will do
                await self._reap_once()

    async def _reap_once(self) -> None:
        if self.session is None or not self.session.core.open:
            return
        seen: dict[int, int] = {}
        for driver in self.drivers.values():
            for known in await driver.inventory():
                run = known.launch.run
                if run in self.session.core.runs or run in self._removals or not self.session.core.open:
                    continue
                seen[run] = self._orphans_seen.get(run, boot_ms())
                if boot_ms() - seen[run] < self.settings.orphan_grace_ms:
                    continue
                _log.warning(
                    "orphan", node=self.node, run=run, driver=driver.name, dry_run=self.settings.orphans_dry_run
                )
                if not self.settings.orphans_dry_run:
                    await driver.stop(run, known.launch.spec.stop_grace_ms)
                    await driver.remove(run)
        self._orphans_seen = seen
