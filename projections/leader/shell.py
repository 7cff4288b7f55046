"""A scheduler process: the core, run over a real log.

Tasks, each a plain loop: the tail of EV (folding), HB (hearing), the lease (claiming), the
writer (carrying out the core's effects one by one), and records (the history).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import structlog

from eventsched import __version__, codec, subjects
from eventsched.errors import WaitTimeout
from eventsched.events import ClusterCreated, DigestRecorded
from eventsched.garbage import collect_rarely
from eventsched.heartbeat import Heartbeat, read_heartbeat
from eventsched.ids import id_from_host_name, job_key, split_member
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link
from eventsched.log.port import AppendError, Conflict, Fenced, OutcomeUnknown, Outgoing
from eventsched.log.reader import StreamReader
from eventsched.log.streams import HB, api, ensure_streams
from eventsched.projections.cluster.arrays import is_unreached
from eventsched.projections.cluster.digest import digest_of_image, encode_state
from eventsched.projections.cluster.state import TERMINAL, ClusterState
from eventsched.projections.compiled.finding import is_used
from eventsched.projections.leader.answers import Answers
from eventsched.projections.leader.core import Mark, SchedulerCore, Write
from eventsched.projections.leader.intake import Intake
from eventsched.projections.leader.lease import RENEW_EVERY_S, Lease
from eventsched.projections.leader.records import Records
from eventsched.projections.leader.service import Service, serve
from eventsched.projections.leader.standby import StandbyPlanner
from eventsched.projections.leader.work import Work
from eventsched.projections.replica import Replica
from eventsched.projections.snapshots import Snapshots
from eventsched.recorded import Recorded

_log = structlog.get_logger("eventsched.scheduler")

TICK_S = 0.1
RETRY_S = 0.05
CLAIM_AFTER_S = 0.2
FLUSH_EVERY_S = 0.5
MIN_SEQ_WAIT_S = 5.0
WATCHERS_MAX = 32
WATCH_EVERY_S = 0.1


def mono_ms() -> int:
    """This process's monotonic clock."""
    return time.monotonic_ns() // 1_000_000


class Scheduler:
    """One scheduler. `run` works until cancelled or stopped.

    created: how the log is to begin, if it is new. data: where the history lies; None = keep none.
    """

    def __init__(
        self, link: Link, name: str, *, created: ClusterCreated, data: Path | None = None, replicas: int = 1
    ) -> None:
        self.link = link
        self.core = SchedulerCore(name, version=__version__)
        self.log = JetStreamLog(link)
        self.snapshots = Snapshots(link, replicas)
        self.lease = Lease(link, name, replicas)
        self.records = Records(link)
        self.intake = Intake(link)
        self.work = Work()
        self.standby = StandbyPlanner()
        self.lag = 0
        self.ready = asyncio.Event()
        self.beats: dict[str, tuple[int, Heartbeat]] = {}
        self._created = created
        self._data = data
        self._replicas = replicas
        self._moved = asyncio.Event()
        self._folded = asyncio.Condition()
        self._stopping = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._image: tuple[int, bytes] | None = None
        self._service: Service | None = None
        self._mono_ms = 0
        self._watchers = 0
        self._lacking = ""

    # ---- life -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, serve, and on `stop` leave in good order."""
        await ensure_streams(self.link, self._replicas, codec.encode(self._created))
        state = await self._unless_stopped(self.snapshots.load())
        if state is None:
            return
        self.core.state = state
        collect_rarely()
        if self._data is not None:
            self.records.keep(state, self._data / f"history-{self.core.name}.sqlite")
        self.replica = Replica(state, self._fold, self._on_digest, self.records.take)
        jobs = len(state.jobs)
        _log.info("starting", scheduler=self.core.name, snapshot_seq=state.seq, jobs=jobs, compiled=is_used())
        tasks = [self._tail(), self._hear(), self._hold_lease(), self._write(), self._keep_records()]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(task) for task in tasks]
            await self._stopping.wait()
            await self._leave()
            for task in running:
                task.cancel()

    async def _unless_stopped(self, work: Coroutine[Any, Any, ClusterState]) -> ClusterState | None:
        """What the work gives; None when it was asked to stop first: loading may take a minute."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return None

    def stop(self) -> None:
        """Ask `run` to finish: the leader snapshots and lets go of the lease."""
        self._stopping.set()

    async def _leave(self) -> None:
        if self._service is not None:
            await self._service.stop()
        await self.intake.close()
        if self.core.role == "leading":
            await self._last_snapshot()
            await self.lease.release()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.records.close(self.core.state.seq)

    async def _last_snapshot(self) -> None:
        """Digest and snapshot of the state as it is, if no write of ours is under way."""
        deadline = time.monotonic() + 2
        core = self.core
        while (core.in_flight is not None or core.state.seq < core.fold_to) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if core.role != "leading" or core.in_flight is not None:
            return
        epoch, core.role = core.epoch, "standby"
        seq, image = core.state.seq, encode_state(core.state)
        event = DigestRecorded(epoch=epoch, at_seq=seq, digest=digest_of_image(image))
        try:
            await self.log.append([Outgoing(codec.decision_subject(event), codec.encode(event))], fence=epoch)
        except AppendError as error:
            _log.warning("no_last_snapshot", error=str(error))
            return
        await self.snapshots.save(core.state.cluster_id, seq, image)

    # ---- folding ----------------------------------------------------------------------------

    def _fold(self, recorded: Recorded) -> None:
        self.core.fold(recorded, self._mono_ms)

    async def _tail(self) -> None:
        state, core = self.core.state, self.core
        feed = self.log.read(state.seq + 1)
        while True:
            entries = await feed.get()
            self._mono_ms = mono_ms()
            role = core.role
            self.replica.fold_entries(entries)
            self.lag = max(0, feed.pending)
            if core.planner is None:
                self.standby.follow(state, time.monotonic())
            else:
                self.standby.drop()
            if core.role != role:
                _log.info("role", scheduler=core.name, role=core.role, epoch=state.epoch, seq=state.seq)
            if not self.ready.is_set() and feed.pending == 0:
                await self._become_ready()
            self._moved.set()
            async with self._folded:
                self._folded.notify_all()

    async def _become_ready(self) -> None:
        self.records.open()
        answers = Answers(self)
        self._service = await serve(self.link, __version__, answers.endpoints(), answers.report)
        self.ready.set()
        _log.info("ready", scheduler=self.core.name, seq=self.core.state.seq, jobs=len(self.core.state.jobs))

    async def folded(self, min_seq: int) -> None:
        """Wait until this replica has folded `min_seq`. Raises WaitTimeout."""
        if self.core.state.seq >= min_seq:
            return
        try:
            async with asyncio.timeout(MIN_SEQ_WAIT_S), self._folded:
                await self._folded.wait_for(lambda: self.core.state.seq >= min_seq)
        except TimeoutError:
            raise WaitTimeout(f"this scheduler has folded {self.core.state.seq}, not yet {min_seq}") from None

    async def moved(self, tenant: str, job_id: str, timeout_s: float) -> bool:
        """Wait until this job has ended (or is gone from the state); False when the time is up."""
        key, state = job_key(tenant, job_id), self.core.state
        array_id, index = split_member(job_id) or (job_id, -1)

        def ended() -> bool:
            job = state.jobs.get(key)
            if job is not None:
                return job.state in TERMINAL
            parent = state.jobs.get(job_key(tenant, array_id))
            return parent is None or parent.array is None or not is_unreached(parent.array, index)

        self._watchers += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(ended)
        except TimeoutError:
            return False
        finally:
            self._watchers -= 1
        return True

    async def _until(self, ended: Callable[[], bool]) -> None:
        """A few look after every fold. Many would hold up the fold, and look now and then."""
        if self._watchers > WATCHERS_MAX:
            while not ended():
                await asyncio.sleep(WATCH_EVERY_S)
            return
        async with self._folded:
            await self._folded.wait_for(ended)

    def _on_digest(self, seq: int, digest: str, image: bytes) -> None:
        if self.core.role == "leading" and self.ready.is_set():
            self.core.digest = (seq, digest)
            self._image = (seq, image)

    # ---- heartbeats and the lease -------------------------------------------------------------

    async def _hear(self) -> None:
        info = await api(self.link, f"STREAM.INFO.{HB}")
        last = int((info.state or {}).get("last_seq", 0))
        feed = StreamReader(self.link, HB, last + 1)
        while True:
            entries = await feed.get()
            now = mono_ms()
            for seq, _, subject, payload in entries:
                node = subject.partition(".")[2]
                beat = None if subject == subjects.HB_MARKER else read_heartbeat(payload)
                if beat is None:
                    self.core.marker_read(seq)
                    continue
                if node in self.core.state.nodes:
                    self.beats[node] = (now, beat)
                self.core.heard(node, beat.session, seq, now)
            self._moved.set()

    async def _hold_lease(self) -> None:
        await self.ready.wait()
        free_since = 0.0
        while True:
            if self.core.role == "leading":
                await self.lease.renew()
                await asyncio.sleep(RENEW_EVERY_S)
                continue
            holder = await self.lease.holder()
            if holder is None or self.replica.mismatches or self._lacks_policy():
                free_since = 0.0
            elif holder in ("", self.core.name):
                # the lease itself has run out; another moment lets its holder's last renewal arrive
                free_since = free_since or time.monotonic()
                due = time.monotonic() - free_since >= CLAIM_AFTER_S
                if due and (holder or await self.lease.take()) and self.core.claim(secrets.token_hex(8)):
                    self._moved.set()
            else:
                free_since = 0.0
            await asyncio.sleep(CLAIM_AFTER_S)

    def _lacks_policy(self) -> bool:
        """True when this build can't lead; said once for each policy."""
        lacks = self.core.lacks()
        if lacks != self._lacking:
            self._lacking = lacks
            if lacks:
                _log.error("policy_unknown", policy=lacks, remedy="install it; this one stands by")
        return bool(lacks)

    # ---- writing ------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Carry out the core's effects, one at a time."""
        core = self.core
        while True:
            started_ns = time.monotonic_ns()
            effect = core.in_flight or core.step(started_ns // 1_000_000)
            if effect is None:
                self._moved.clear()
                try:
                    async with asyncio.timeout(TICK_S):
                        await self._moved.wait()
                except TimeoutError:
                    pass
                continue
            if isinstance(effect, Mark):
                await self._mark()
            else:
                decided_ns = time.monotonic_ns()
                if await self._append(effect) and effect.what == "round":
                    self.work.add(effect.messages, decided_ns - started_ns, time.monotonic_ns() - decided_ns)

    async def _mark(self) -> None:
        try:
            raw = await self.link.request(subjects.HB_MARKER, b"{}", timeout=2)
            self.core.marked(msgspec.json.decode(raw).get("seq"))
        except Exception as error:
            _log.debug("no_marker", error=str(error) or type(error).__name__)
            self.core.marked(None)

    async def _append(self, write: Write) -> bool:
        """True when it is known to be stored."""
        core = self.core
        try:
            seq = await self.log.append(write.messages, fence=write.fence)
        except (Fenced, Conflict) as error:
            _log.info("fenced", scheduler=core.name, what=write.what, error=str(error))
            core.failed("fenced")
        except OutcomeUnknown:
            _log.warning("outcome_unknown", scheduler=core.name, what=write.what, messages=len(write.messages))
            core.failed("unknown")
        except AppendError as error:
            _log.warning("write_failed", scheduler=core.name, what=write.what, error=str(error))
            core.failed("retry")
            await asyncio.sleep(RETRY_S)
        else:
            core.done(seq)
            if write.what == "digest":
                self._save_image_of(write.messages[0])
            return True
        return False

    def _save_image_of(self, message: Outgoing) -> None:
        """Save the image whose digest is now in the log; that of a later one waits for its own record."""
        recorded = codec.decode(message.subject, message.payload)
        if self._image is not None and isinstance(recorded, DigestRecorded) and recorded.at_seq == self._image[0]:
            (at_seq, image), self._image = self._image, None
            self._in_background(self.snapshots.save(self.core.state.cluster_id, at_seq, image))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _keep_records(self) -> None:
        await self.ready.wait()
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            self.records.flush(self.core.state.seq)


def default_name() -> str:
    """A scheduler's name when none is given: the host's and the process's."""
    return f"{id_from_host_name(socket.gethostname())}-{os.getpid()}"
