"""What a scheduler answers to the questions of `eventsched.query`."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import structs
from msgspec.json import encode

from eventsched import query
from eventsched.endpoints import schema_of
from eventsched.errors import NotFound
from eventsched.explanation import Explanation
from eventsched.projections.leader.service import Answer
from eventsched.projections.queries import Queries, cut
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.views import present
from eventsched.projections.views.choices import choice_of
from eventsched.projections.views.explaining import explain
from eventsched.projections.views.policies import policy_views
from eventsched.projections.views.tenants import price_view, tenant_views
from eventsched.views import JobList, JobView, NodeView, PolicyView, PriceView, Stats, TenantView

if TYPE_CHECKING:
    from eventsched.projections.leader.shell import Scheduler


PAGE_BYTES = 900_000
"""A page of jobs has to fit in a message, which servers take up to a MiB of."""
Found = TypeVar("Found")
NodeViews = list[NodeView]
PolicyViews = list[PolicyView]
TenantViews = list[TenantView]


class Answers:
    """Answers from one scheduler's replica, history and heartbeats."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._queries = Queries(scheduler.core.state, None)

    def endpoints(self) -> dict[str, Answer]:
        """Name -> coroutine that answers. What is read is the same for all who ask; what is written is not."""
        return {
            "submit": self.submit,
            "abort": self.abort,
            "get": self._get_for,
            "explain": self._explain_for,
            "wait": _for_all(self.wait),
            "list": _for_all(self.list),
            "nodes": _for_all(self.nodes),
            "stats": _for_all(self.stats),
            "policies": _for_all(self.policies),
            "tenants": _for_all(self.tenants),
            "prices": _for_all(self.prices),
            "schema": _for_all(_schema),
        }

    async def submit(self, body: object, caller: str) -> query.Written:
        """A job, into the log."""
        return await self._scheduler.intake.submit(body, caller)

    async def abort(self, request: query.AbortRequest, caller: str) -> query.Written:
        """A request to end a job, into the log; it may follow its submission at once."""
        intake = self._scheduler.intake
        min_seq = max(request.min_seq, intake.written)

        def look_up(job_id: str, tenant: str) -> Awaitable[JobView]:
            return self.get(query.GetRequest(job_id, tenant, min_seq))

        return await intake.abort(request, caller, look_up)

    async def _up_to_date(self, min_seq: int) -> int:
        """Wait for `min_seq`, write out the history's tail; the log's time now."""
        scheduler = self._scheduler
        await scheduler.folded(min_seq)
        self._queries.history = scheduler.records.current(scheduler.core.state.seq)
        return scheduler.core.now_ms(time.monotonic_ns() // 1_000_000)

    async def _get_for(self, request: query.GetRequest, caller: str) -> JobView:
        return await self.get(structs.replace(request, prefer=request.prefer or caller))

    async def get(self, request: query.GetRequest) -> JobView:
        """One job."""
        now_ms = await self._up_to_date(request.min_seq)
        return self._asked(lambda: self._queries.get(request, now_ms))

    async def _explain_for(self, request: query.ExplainRequest, caller: str) -> Explanation:
        return await self.explain(structs.replace(request, prefer=request.prefer or caller))

    async def explain(self, request: query.ExplainRequest) -> Explanation:
        """Why a job waits, or why it went where it went."""
        ask = query.GetRequest(request.job_id, request.tenant, request.min_seq, prefer=request.prefer)
        now_ms = await self._up_to_date(request.min_seq)
        view = self._asked(lambda: self._queries.get(ask, now_ms))
        state = self._scheduler.core.state
        found = explain(state, self._planner, view, now_ms)
        if view.run:
            found.choice = await choice_of(self._scheduler.log, view)
        return found

    @property
    def _planner(self) -> Planner:
        """The leader's own, or the one kept beside for questions."""
        state, leading = self._scheduler.core.state, self._scheduler.core.planner
        if leading is not None:
            leading.sync(state)
            return leading
        return self._scheduler.standby.planner(state, time.monotonic())

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
        """A page of jobs, of which no more are given than fit in a message."""
        now_ms = await self._up_to_date(request.min_seq)
        page = self._asked(lambda: self._queries.list(request, now_ms))
        size = 0
        for count, view in enumerate(page.jobs):
            size += len(encode(view)) + 1
            if size > PAGE_BYTES and count:
                return cut(page, request, count)
        return page

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
        answer.lag = scheduler.lag
        answer.digest_mismatches = len(scheduler.replica.mismatches)
        answer.history = scheduler.records.status
        return answer

    def report(self) -> query.ReplicaReport:
        """What this scheduler says of itself, for metrics."""
        scheduler, core, work = self._scheduler, self._scheduler.core, self._scheduler.work
        return query.ReplicaReport(
            scheduler=core.name,
            role=core.role,
            seq=core.state.seq,
            lag=scheduler.lag,
            digest_mismatches=len(scheduler.replica.mismatches),
            rounds=work.rounds,
            placements=work.placements,
            decide_ns=work.decide_ns,
            commit_ns=work.commit_ns,
            heartbeat_age_ms=self._oldest_heartbeats(),
        )

    def _oldest_heartbeats(self) -> dict[str, int]:
        """By state of the node, how long ago the most silent one was heard; without those never heard here."""
        now, oldest = time.monotonic_ns() // 1_000_000, dict[str, int]()
        nodes = self._scheduler.core.state.nodes
        for name, (at_ms, beat) in self._scheduler.beats.items():
            node = nodes.get(name)
            if node is not None and node.session == beat.session:
                shown = present.node_state(node)
                oldest[shown] = max(oldest.get(shown, 0), now - at_ms)
        return oldest


def _for_all(answer: Callable[[Any], Awaitable[Any]]) -> Answer:
    async def asked(request: Any, _caller: str) -> Any:
        return await answer(request)

    return asked


async def _schema(request: query.SchemaRequest) -> dict[str, Any]:
    return schema_of(request.endpoint)
