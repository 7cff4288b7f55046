"""A follower: a replica that folds the log's tail and leads nothing. Whoever serves reads keeps one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import nats.errors
import structlog

from eventsched.errors import PermissionDenied, WaitTimeout
from eventsched.ids import job_key
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link
from eventsched.log.port import Entry, Feed
from eventsched.log.streams import EV
from eventsched.projections.cluster.state import TERMINAL, ClusterState
from eventsched.projections.queries import Queries
from eventsched.projections.replica import Replica
from eventsched.projections.snapshots import Snapshots

_log = structlog.get_logger("eventsched.follower")
MIN_SEQ_WAIT_S = 5.0
AT_TAIL_S = 0.1
RECENT_MAX = 20_000


class Follower:
    """`state` follows the log while `run` runs; `ready` is set once it has been folded to its tail.

    queries: questions to the state alone. recent: the last entries, with contiguous sequences, for those who
    follow the log through this process. pending: entries known of and not folded; -1 = not known yet.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._log = JetStreamLog(link)
        self._folded = asyncio.Condition()
        self._folded_mono = time.monotonic()
        self._take(ClusterState())
        self.recent: list[Entry] = []
        self.ready = asyncio.Event()
        self.pending = -1

    def _take(self, state: ClusterState) -> None:
        self.state = state
        self.replica = Replica(state)
        self.queries = Queries(state, None)

    async def run(self) -> None:
        """Follow until cancelled. Raises UpgradeNeeded, LogGap."""
        self._log = JetStreamLog(self.link, direct=not await _may_make_consumers(self.link))
        self._take(await Snapshots(self.link).load())
        feed = self._log.read(self.state.seq + 1)
        try:
            while True:
                entries = await feed.get(None if self.ready.is_set() else AT_TAIL_S)
                if entries:
                    self.replica.fold_entries(entries)
                    self._remember(entries)
                    self._folded_mono = time.monotonic()
                self.pending = feed.pending
                if not self.ready.is_set() and feed.pending == 0 and self.state.cluster_id:
                    _log.info("ready", seq=self.state.seq, jobs=len(self.state.jobs))
                    self.ready.set()
                async with self._folded:
                    self._folded.notify_all()
        finally:
            await feed.close()

    def _remember(self, entries: list[Entry]) -> None:
        self.recent += entries
        if len(self.recent) > 2 * RECENT_MAX:
            del self.recent[:-RECENT_MAX]

    def read(self, from_seq: int) -> Feed:
        """The log itself, for who begins before `recent`."""
        return self._log.read(from_seq)

    async def entry(self, seq: int) -> Entry | None:
        """One entry of the log, from those that are kept if it is among them."""
        recent = self.recent
        if recent and recent[0].seq <= seq <= recent[-1].seq:
            return recent[seq - recent[0].seq]
        return await self._log.at(seq)

    def now_ms(self) -> int:
        """The log's time now, as far as this replica can say."""
        if self.state.clock_mode == "manual":
            return self.state.clock_ms
        return self.state.clock_ms + int((time.monotonic() - self._folded_mono) * 1000)

    async def until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the state makes `reached` true; False when the time is up."""
        if reached():
            return True
        try:
            async with asyncio.timeout(timeout_s), self._folded:
                await self._folded.wait_for(reached)
        except TimeoutError:
            return False
        return True

    async def at(self, seq: int, timeout_s: float) -> bool:
        """Wait until a sequence is folded; False when the time is up."""
        return await self.until(lambda: self.state.seq >= seq, timeout_s)

    async def folded(self, min_seq: int, timeout_s: float = MIN_SEQ_WAIT_S) -> None:
        """Wait until `min_seq` is folded. Raises WaitTimeout."""
        if not await self.at(min_seq, timeout_s):
            raise WaitTimeout(f"folded up to {self.state.seq}, not yet {min_seq}", "ask again")

    async def ended(self, tenant: str, job_id: str, timeout_s: float) -> bool:
        """Wait until a job has ended or has left the state; False when the time is up."""
        key = job_key(tenant, job_id)

        def is_over() -> bool:
            job = self.state.jobs.get(key)
            return job is None or job.state in TERMINAL

        return await self.until(is_over, timeout_s)


async def _may_make_consumers(link: Link) -> bool:
    """False for operators of production: their account has no way to the API of consumers. They read by direct gets."""
    while True:
        await link.connected.wait()
        try:
            await link.request(f"$JS.API.CONSUMER.NAMES.{EV}", b"")
        except (PermissionDenied, nats.errors.NoRespondersError):
            return False
        except (TimeoutError, nats.errors.Error, OSError):
            await asyncio.sleep(AT_TAIL_S)
        else:
            return True
