"""What a scheduler answers to the questions of `eventsched.query`."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from eventsched import query
from eventsched.errors import NotFound
from eventsched.projections.leader.service import Answer
from eventsched.projections.queries import Queries
from eventsched.projections.views import present
from eventsched.projections.views.policies import policy_views
from eventsched.projections.views.tenants import price_view, tenant_views
from eventsched.views import JobList, JobView, NodeView, PolicyView, PriceView, Stats, TenantView

if TYPE_CHECKING:
    from eventsched.projections.leader.shell import Scheduler


Found = TypeVar("Found")
NodeViews = list[NodeView]
PolicyViews = list[PolicyView]
TenantViews = list[TenantView]


class Answers:
    """Answers from one scheduler's replica, history and heartbeats."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._queries = Queries(scheduler.core.state, None)

    def endpoints(self) -> dict[str, tuple[type, Answer]]:
        """Name -> (type of the request, coroutine that answers it)."""
        return {
            "get": (query.GetRequest, self.get),
            "wait": (query.WaitRequest, self.wait),
            "list": (query.ListRequest, self.list),
            "nodes": (query.NodesRequest, self.nodes),
            "stats": (query.StatsRequest, self.stats),
            "policies": (query.PoliciesRequest, self.policies),
            "tenants": (query.TenantsRequest, self.tenants),
            "prices": (query.PricesRequest, self.prices),
        }

    async def _up_to_date(self, min_seq: int) -> int:
        """Wait for `min_seq`, write out the history's tail; the log's time now."""
        scheduler = self._scheduler
        await scheduler.folded(min_seq)
        self._queries.history = scheduler.records.current(scheduler.core.state.seq)
        return scheduler.core.now_ms(time.monotonic_ns() // 1_000_000)

    async def get(self, request: query.GetRequest) -> JobView:
        """One job."""
        now_ms = await self._up_to_date(request.min_seq)
        return self._asked(lambda: self._queries.get(request, now_ms))

    async def wait(self, request: query.WaitRequest) -> JobView:
        """One job, once it has ended; or as it is when the time is up."""
        ask = query.GetRequest(request.job_id, request.tenant, request.min_seq)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(request.timeout_ms, query.WAIT_MAX_MS) / 1000
        view = await self.get(ask)
        while not view.ended:
            remaining = deadline - loop.time()
            if remaining <= 0 or not await self._scheduler.moved(view.tenant, view.job_id, remaining):
                return await self.get(ask)
            view = await self.get(ask)
        return view

    async def list(self, request: query.ListRequest) -> JobList:
        """A page of jobs."""
        now_ms = await self._up_to_date(request.min_seq)
        return self._asked(lambda: self._queries.list(request, now_ms))

    def _asked(self, ask: Callable[[], Found]) -> Found:
        """An answer from the state and the history; from a history made anew when the file proves damaged."""
        try:
            return ask()
        except sqlite3.DatabaseError as error:
            records = self._scheduler.records
            records.troubled(error)
            self._queries.history = records.history
            return ask()

    async def nodes(self, request: query.NodesRequest) -> NodeViews:
        """All nodes in order of id, or one."""
        scheduler = self._scheduler
        await scheduler.folded(request.min_seq)
        state = scheduler.core.state
        if request.node and request.node not in state.nodes:
            known = ", ".join(sorted(state.nodes)[:20]) or "none has joined yet"
            raise NotFound(f"no node {request.node!r}", f"known nodes: {known}")
        return [self._node(name) for name in ([request.node] if request.node else sorted(state.nodes))]

    def _node(self, name: str) -> NodeView:
        state = self._scheduler.core.state
        view = present.node_view(state, state.nodes[name])
        heard = self._scheduler.beats.get(name)
        if heard is not None and heard[1].session == view.session:
            beat = heard[1]
            view.heartbeat_age_ms = time.monotonic_ns() // 1_000_000 - heard[0]
            view.cpu_percent = beat.cpu_percent
            view.memory_used_bytes = beat.memory_used_bytes
            view.usage = {run: structs.asdict(usage) for run, usage in beat.runs.items()}
            for gpu in view.gpus:
                gpu["utilisation_percent"] = beat.gpus.get(gpu["uuid"])
        return view

    async def policies(self, request: query.PoliciesRequest) -> PolicyViews:
        """All policies, by name."""
        await self._scheduler.folded(request.min_seq)
        return policy_views(self._scheduler.core.state)

    async def tenants(self, request: query.TenantsRequest) -> TenantViews:
        """All tenants, by name."""
        now_ms = await self._up_to_date(request.min_seq)
        return tenant_views(self._scheduler.core.state, now_ms)

    async def prices(self, request: query.PricesRequest) -> PriceView:
        """The price book."""
        await self._scheduler.folded(request.min_seq)
        return price_view(self._scheduler.core.state)

    async def stats(self, request: query.StatsRequest) -> Stats:
        """The cluster in numbers."""
        scheduler = self._scheduler
        await scheduler.folded(request.min_seq)
        answer = present.stats(scheduler.core.state, scheduler.core.name, scheduler.core.role)
        answer.digest_mismatches = len(scheduler.replica.mismatches)
        answer.history = scheduler.records.status
        return answer
