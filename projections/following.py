"""A follower: a replica that folds the log's tail and leads nothing. Whoever serves reads keeps one."""

from __future__ import annotations

import asyncio
import time

import structlog

from eventsched.errors import WaitTimeout
from eventsched.ids import job_key
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link
from eventsched.projections.cluster.state import TERMINAL, ClusterState
from eventsched.projections.replica import Replica
from eventsched.projections.snapshots import Snapshots

_log = structlog.get_logger("eventsched.follower")
MIN_SEQ_WAIT_S = 5.0


class Follower:
    """`state` follows the log while `run` runs; `ready` is set once it has been folded to its tail.

    pending: entries known of and not folded; -1 = not known yet.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._log = JetStreamLog(link)
        self._folded = asyncio.Condition()
        self._folded_mono = time.monotonic()
        self.state = ClusterState()
        self.replica = Replica(self.state)
        self.ready = asyncio.Event()
        self.pending = -1

    async def run(self) -> None:
        """Follow until cancelled. Raises UpgradeNeeded, LogGap."""
        self.state = await Snapshots(self._link).load()
        self.replica = Replica(self.state)
        feed = self._log.read(self.state.seq + 1)
        try:
            while True:
                entries = await feed.get()
                self.replica.fold_entries(entries)
                self._folded_mono = time.monotonic()
                self.pending = feed.pending
                if feed.pending == 0 and not self.ready.is_set():
                    _log.info("ready", seq=self.state.seq, jobs=len(self.state.jobs))
                    self.ready.set()
                async with self._folded:
                    self._folded.notify_all()
        finally:
            await feed.close()

    def now_ms(self) -> int:
        """The log's time now, as far as this replica can say."""
        if self.state.clock_mode == "manual":
            return self.state.clock_ms
        return self.state.clock_ms + int((time.monotonic() - self._folded_mono) * 1000)

    async def folded(self, min_seq: int, timeout_s: float = MIN_SEQ_WAIT_S) -> None:
        """Wait until `min_seq` is folded. Raises WaitTimeout."""
        if self.state.seq >= min_seq:
            return
        try:
            async with asyncio.timeout(timeout_s), self._folded:
                await self._folded.wait_for(lambda: self.state.seq >= min_seq)
        except TimeoutError:
            raise WaitTimeout(f"folded up to {self.state.seq}, not yet {min_seq}", "ask again") from None

    async def ended(self, tenant: str, job_id: str, timeout_s: float) -> bool:
        """Wait until a job has ended or has left the state; False when the time is up."""
        key = job_key(tenant, job_id)

        def is_over() -> bool:
            job = self.state.jobs.get(key)
            return job is None or job.state in TERMINAL

        try:
            async with asyncio.timeout(timeout_s), self._folded:
                await self._folded.wait_for(is_over)
        except TimeoutError:
            return False
        return True
