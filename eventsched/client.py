"""The SDK: submit, watch and steer jobs.

    async with await Client.connect() as client:
        job = await client.submit(image="busybox", command=["echo", "hi"])
        job = await client.wait(job.job_id)
        print(job.state, await client.logs(job.job_id))

Writes go straight into the log and are durable when they return; reads are answered by any
scheduler, and wait until it has folded this client's own writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Self, TypeVar

import msgspec

from eventsched import codec, query, subjects
from eventsched.asking import HEDGE_S, Asker, policy_answer
from eventsched.errors import (
    ClientClosed,
    DuplicateJob,
    EventschedError,
    InvalidSpec,
    NoScheduler,
    PermissionDenied,
    UsageError,
    WaitTimeout,
)
from eventsched.events import (
    AbortRequested,
    CompleteRequested,
    HoldRequested,
    NodeCordoned,
    NodeDrained,
    NodeUncordoned,
    ReleaseRequested,
    RequeueRequested,
)
from eventsched.explanation import Explanation
from eventsched.ids import split_member
from eventsched.log.gather import GatheringWriter
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link, LinkOptions, connect
from eventsched.log.port import AppendError, Denied, Outgoing
from eventsched.log.store import StoreCheck
from eventsched.log.streams import api, verify_ev
from eventsched.new_ids import new_job_id, new_ulid
from eventsched.outputs import OutputChunk, read_output
from eventsched.recorded import Recorded
from eventsched.settings import DEFAULT_TENANT, link_options
from eventsched.spec import JobSpec
from eventsched.stories import follow_events
from eventsched.submissions import as_pairs, make_spec, submission, submit_error
from eventsched.targets import check_complete, check_requeue, job_to_change, split_tenant
from eventsched.tenancy import policy_event, price_event, tenant_event
from eventsched.views import JobList, JobView, NodeView, PolicyView, PriceView, Stats, TenantView
from eventsched.wire import Event

T = TypeVar("T")

WAIT_WINDOW_S = 2.0
WRITE_TIMEOUT_S = 30.0

NodeViews = list[NodeView]
PolicyViews = list[PolicyView]
TenantViews = list[TenantView]


class Submitted(msgspec.Struct, frozen=True):
    """A submission that is in the log: durable, not judged yet. `seq` is its sequence."""

    job_id: str
    tenant: str
    seq: int


Results = list[Submitted | EventschedError]


class Client:
    """A connection to a cluster, as one tenant. Make it with `connect`; use it as a context manager."""

    def __init__(self, link: Link, tenant: str = DEFAULT_TENANT) -> None:
        self.link = link
        self.tenant = tenant
        self.log = JetStreamLog(link, direct=True)
        self._writer = GatheringWriter(self.log, give_up_s=WRITE_TIMEOUT_S)
        self._asker = Asker(link)
        self._closed = False
        self._written = 0
        self.store = StoreCheck(link)

    @classmethod
    async def connect(
        cls, url: str | None = None, *, tenant: str = DEFAULT_TENANT, options: LinkOptions | None = None
    ) -> Client:
        """Connect to the cluster at `url` (see `eventsched.settings` for how it is found otherwise).

        Raises NoServer when nothing answers, or what answers is no eventsched cluster.
        """
        link = await connect(options or link_options(url), "eventsched-client")
        try:
            await verify_ev(link)
        except EventschedError:
            await link.close()
            raise
        return cls(link, tenant)

    async def close(self) -> None:
        """Close the connection; what was acknowledged is safe."""
        self._closed = True
        await self._writer.close()
        await self.link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Client {self.link.url} tenant {self.tenant}>"

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("this client is closed", "make another with `connect`")

    # ---- submitting ---------------------------------------------------------------------------

    async def submit(
        self, spec: JobSpec | None = None, *, job_id: str = "", tenant: str = "", **fields: Any
    ) -> Submitted:
        """Submit one job: a `JobSpec`, or its fields by name. An id is made when none is given.

        Raises InvalidSpec (field and allowed range), DuplicateJob, StoreFull.
        """
        if spec is not None and fields:
            raise InvalidSpec(f"give a JobSpec or fields, not both: {', '.join(fields)}", "msgspec.structs.replace")
        job = spec if spec is not None else make_spec(**fields)
        (result,) = await self.submit_many([(job_id, job)], tenant=tenant)
        if isinstance(result, EventschedError):
            raise result
        return result

    async def submit_many(
        self, jobs: Iterable[JobSpec | tuple[str, JobSpec]], *, tenant: str = ""
    ) -> list[Submitted | EventschedError]:
        """Submit many jobs in as few writes as possible: specs, or (job id, spec) pairs.

        Each has its own fate, in order: a Submitted, or the error that befell it.
        """
        owner = tenant or self.tenant
        wanted = as_pairs(jobs)
        self._check_open()
        await self.store.check()
        results = await self._submit_all(owner, [(job_id or new_job_id(spec.name), spec) for job_id, spec in wanted])
        for index, (job_id, spec) in enumerate(wanted):
            if not job_id and isinstance(results[index], DuplicateJob):  # the dice gave an id that is taken
                (results[index],) = await self._submit_all(owner, [(new_job_id(spec.name), spec)])
        return results

    async def _submit_all(self, owner: str, jobs: Sequence[tuple[str, JobSpec]]) -> Results:
        waiting: list[tuple[str, asyncio.Future[int] | EventschedError]] = []
        for job_id, spec in jobs:
            try:
                waiting.append((job_id, self._writer.put_soon(submission(owner, job_id, spec))))
            except EventschedError as error:
                waiting.append((job_id, error))
        results: Results = []
        for job_id, fate in waiting:
            if isinstance(fate, EventschedError):
                results.append(fate)
                continue
            try:
                seq = await fate
            except AppendError as error:
                results.append(submit_error(error, owner, job_id))
            else:
                self._written = max(self._written, seq)
                results.append(Submitted(job_id, owner, seq))
        return results

    # ---- steering -----------------------------------------------------------------------------

    async def abort(self, job_id: str, *, reason: str = "", tenant: str = "") -> JobView:
        """Ask for a job (or a member of an array) to end.

        Like all that changes a job: `job_id` is a whole id (or `tenant/id`, or at least 6 characters of an
        id that was made), of this client's tenant unless another is given. Returns the job as it was when
        asked; raises NotFound with what may have been meant, Ambiguous, or EventschedError when it has ended.
        """
        view = await self._to_change(job_id, tenant)
        return await self._request(view, "abort_requested", AbortRequested, reason=reason)

    async def hold(self, job_id: str, *, tenant: str = "") -> JobView:
        """Keep a waiting job from starting."""
        return await self._request(await self._to_change(job_id, tenant), "hold_requested", HoldRequested)

    async def release(self, job_id: str, *, tenant: str = "") -> JobView:
        """Undo a hold."""
        return await self._request(await self._to_change(job_id, tenant), "release_requested", ReleaseRequested)

    async def requeue(self, job_id: str, *, force: bool = False, tenant: str = "") -> JobView:
        """Stop a job's run and let it wait again. force: although nobody knows whether it still runs."""
        view = await self._to_change(job_id, tenant)
        check_requeue(view, force)
        return await self._request(view, "requeue_requested", RequeueRequested, force=force)

    async def complete(self, job_id: str, *, exit_code: int = 0, tenant: str = "") -> JobView:
        """Finish a job of the manual driver while it runs."""
        view = await self._to_change(job_id, tenant)
        check_complete(view, exit_code)
        return await self._request(view, "complete_requested", CompleteRequested, exit_code=exit_code)

    async def _to_change(self, job_id: str, tenant: str) -> JobView:
        return await job_to_change(self._look_up, job_id, tenant or self.tenant)

    async def _request(self, view: JobView, verb: str, kind: type[Event], **fields: Any) -> JobView:
        owner_id, member = split_member(view.job_id) or (view.job_id, -1)
        await self._write(subjects.job(view.tenant, owner_id, verb), kind(member=member, **fields))
        return view

    async def cordon(self, node: str) -> None:
        """No new runs on a node."""
        await self._administer("node_cordoned", NodeCordoned(node=await self._node_id(node)))

    async def uncordon(self, node: str) -> None:
        """End a cordon or a drain."""
        await self._administer("node_uncordoned", NodeUncordoned(node=await self._node_id(node)))

    async def drain(self, node: str, *, deadline_ms: int = 0, now: bool = False) -> None:
        """Empty a node: wait for its runs (until the deadline), then stop and requeue them."""
        event = NodeDrained(node=await self._node_id(node), deadline_ms=deadline_ms, now=now)
        await self._administer("node_drained", event)

    async def _node_id(self, node: str) -> str:
        return (await self.node(node)).node

    async def _administer(self, kind: str, event: Event) -> int:
        return await self._write(subjects.admin(kind), event)

    async def _write(self, subject: str, event: Event) -> int:
        self._check_open()
        try:
            seq = await self._writer.put(Outgoing(subject, codec.encode(event), msg_id=new_ulid()))
        except Denied as error:
            raise PermissionDenied(error.message, error.hint) from error
        self._written = max(self._written, seq)
        return seq

    # ---- reading ------------------------------------------------------------------------------

    async def _ask(self, subject: str, request: Any, kind: type[T], *limits: Any, **more: Any) -> T:
        self._check_open()
        return await self._asker.ask(subject, request, kind, *limits, **more)

    async def get(self, job_id: str, *, tenant: str = "") -> JobView:
        """One job by its id, `tenant/id`, or the beginning of its id. Raises NotFound (with near matches), Ambiguous.

        Without a tenant, jobs of all tenants are looked at; if several fit, this client's own are meant.
        """
        owner, name = split_tenant(job_id, tenant)
        return await self._look_up(name, owner)

    async def _look_up(self, job_id: str, tenant: str) -> JobView:
        request = query.GetRequest(job_id, tenant, self._written, prefer="" if tenant else self.tenant)
        return await self._ask(query.GET, request, JobView)

    async def list(
        self,
        *,
        tenant: str = "",
        states: Sequence[str] = (),
        node: str = "",
        since_ms: int = 0,
        array: str = "",
        limit: int = 0,
    ) -> list[JobView]:
        """Jobs, newest first. since_ms: finished ones only if they ended then or later; -1 = live ones only.
        array: a whole job id, or `tenant/id`: the members of that array instead. limit: 0 = all."""
        if limit < 0:
            raise InvalidSpec(f"limit: {limit} is negative", "0 = all")
        if array:
            array = "/".join(split_tenant(array, tenant or self.tenant))
        found: list[JobView] = []
        cursor = ""
        while True:
            page = min(query.PAGE_MAX, limit - len(found)) if limit else query.PAGE_MAX
            request = query.ListRequest(tenant, list(states), node, since_ms, array, page, cursor, self._written)
            answer = await self._ask(query.LIST, request, JobList)
            found += answer.jobs
            cursor = answer.cursor
            if not cursor or (limit and len(found) >= limit):
                return found

    async def nodes(self) -> Sequence[NodeView]:
        """All nodes, in order of id."""
        return await self._ask(query.NODES, query.NodesRequest("", self._written), NodeViews)

    async def node(self, node: str) -> NodeView:
        """One node. Raises NotFound."""
        if not node:  # to schedulers "" is every node, and a drain would take the first
            raise UsageError("node: none is given", "give a node's id, see `eventsched nodes`")
        return (await self._ask(query.NODES, query.NodesRequest(node, self._written), NodeViews))[0]

    async def explain(self, job_id: str, *, tenant: str = "") -> Explanation:
        """Why a job waits, or why it went where it went. Raises as `get` does."""
        owner, job_id = split_tenant(job_id, tenant)
        request = query.ExplainRequest(job_id, owner, self._written, self.tenant)
        return await self._ask(query.EXPLAIN, request, Explanation)

    async def policies(self) -> Sequence[PolicyView]:
        """All policies, by name; the current one with its parameters."""
        return await self._ask(query.POLICIES, query.PoliciesRequest(self._written), PolicyViews)

    async def set_policy(self, name: str, /, **params: int | str) -> PolicyView:
        """Let another policy decide from now on. Raises EventschedError with the reason if it is refused."""
        request = await self._administer("policy_set", policy_event(name, params))
        self._written = max(self._written, await policy_answer(self.log, request, WRITE_TIMEOUT_S))
        return next(view for view in await self.policies() if view.current)

    async def tenants(self) -> Sequence[TenantView]:
        """All tenants that have limits, runs or waiting jobs."""
        return await self._ask(query.TENANTS, query.TenantsRequest(self._written), TenantViews)

    async def set_tenant(self, tenant: str, **limits: Any) -> None:
        """Set a tenant's weight, limits and budget (see `TenantSet`), in place of those it had."""
        await self._administer("tenant_set", tenant_event(tenant=tenant, **limits))

    async def prices(self) -> PriceView:
        """The price book."""
        return await self._ask(query.PRICES, query.PricesRequest(self._written), PriceView)

    async def set_prices(self, **prices: Any) -> None:
        """Set the price book (see `PriceSet`), in place of the one before."""
        await self._administer("price_set", price_event(**prices))

    async def stats(self) -> Stats:
        """The cluster in numbers."""
        return await self._ask(query.STATS, query.StatsRequest(self._written), Stats)

    async def wait(self, job_id: str, *, timeout: float | None = None, tenant: str = "") -> JobView:
        """Wait until a job has ended. Raises WaitTimeout after `timeout` seconds, NotFound."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        view = await self.get(job_id, tenant=tenant)
        while not view.ended:
            left_s = WAIT_WINDOW_S if deadline is None else min(WAIT_WINDOW_S, deadline - loop.time())
            if left_s <= 0:
                raise WaitTimeout(f"job {view.job_id} is {view.state} after {timeout:g} s", "wait longer, or abort it")
            request = query.WaitRequest(view.job_id, view.tenant, int(left_s * 1000), self._written)
            try:
                view = await self._ask(query.WAIT, request, JobView, left_s + HEDGE_S, attempts=1)
            except NoScheduler:  # the one that was asked is frozen or gone: ask afresh
                view = await self.get(view.job_id, tenant=view.tenant)
        return view

    # ---- following ------------------------------------------------------------------------------

    async def follow_logs(self, job_id: str, *, follow: bool = True, tenant: str = "") -> AsyncIterator[OutputChunk]:
        """A job's output from its start, run after run; ends with the job (or at once: follow=False)."""
        async for chunk in read_output(self, await self.get(job_id, tenant=tenant), follow):
            yield chunk

    async def logs(self, job_id: str, *, tenant: str = "") -> str:
        """A job's output so far, as text."""
        parts = [chunk.data async for chunk in self.follow_logs(job_id, follow=False, tenant=tenant)]
        return b"".join(parts).decode(errors="replace")

    async def follow_events(
        self, *, job_id: str = "", tenant: str = "", from_seq: int = 1, follow: bool = True
    ) -> AsyncIterator[Recorded]:
        """Events of the log in order, all of them or those about one job. follow=False: up to the last one now."""
        job = await self.get(job_id, tenant=tenant) if job_id else None
        upto = None if follow else max(await self.last_seq(), self._written)
        async for recorded in follow_events(self.log, job, from_seq, upto):
            yield recorded

    async def last_seq(self) -> int:
        """The log's last sequence as the server states it (a hint, good enough for people)."""
        self._check_open()
        info = await api(self.link, "STREAM.INFO.EV")
        return int((info.state or {}).get("last_seq", 0))
