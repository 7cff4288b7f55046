"""What routes work with: a client that writes, a follower that reads, and limits.

Live jobs are read from the follower, at the price of a dictionary look-up; what it cannot know
(forgotten jobs, heartbeats, policies) is asked of the schedulers. A tenant's caller sees and
touches its own jobs only: another's job is simply not found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from litestar import Request
from msgspec import Struct

from eventsched import query
from eventsched.asking import Asker
from eventsched.client import Client
from eventsched.errors import NotFound
from eventsched.forms import Submission
from eventsched.ids import job_key, split_member
from eventsched.projections.following import Follower
from eventsched.projections.http.auth import Caller, Gate
from eventsched.projections.http.errors import ApiError
from eventsched.projections.http.feed import Feed
from eventsched.projections.http.intake import Fate, Intake, Owned
from eventsched.projections.http.output import Tails
from eventsched.query import GetRequest
from eventsched.settings import DEFAULT_TENANT
from eventsched.subjects import admin, job
from eventsched.views import JobView
from eventsched.wire import Event

MIN_SEQ_MAX = 2**53


class Limits(Struct, frozen=True, kw_only=True):
    """pending: submissions are refused (429) while so many jobs are live. waiting: or while so many are not
    acknowledged yet. body_bytes: of one request. upload_bytes: of one ingest. streams: clients that may
    follow at a time."""

    pending: int = 1_000_000
    waiting: int = 20_000
    body_bytes: int = 4 * 1024 * 1024
    upload_bytes: int = 1024 * 1024 * 1024
    streams: int = 1_000


class Desk:
    """The service's hands: reads, writes, limits. Not ready before `open`.

    others_ready: told that this process is ready, says whether all that share its port are; else a client
    who was told that the service is ready would meet one that is not.
    """

    def __init__(self, limits: Limits | None = None, others_ready: Callable[[], bool] = lambda: True) -> None:
        self.limits = limits or Limits()
        self._others_ready = others_ready
        self._ready = False
        self.streams = 0
        self.closing = False
        self._open: tuple[Client, Follower, Intake] | None = None

    def open(self, client: Client, follower: Follower) -> None:
        """The log has been reached."""
        self._open = client, follower, Intake(client, follower)
        self._asker = Asker(client.link)
        self.tails = Tails(client)
        self.feed = Feed(follower)

    def _opened(self) -> tuple[Client, Follower, Intake]:
        if self._open is None:
            raise ApiError(503, "SERVICE_NOT_READY", "the log has not been reached yet", Retry_After="1")
        return self._open

    @property
    def client(self) -> Client:
        """Asks and follows. ApiError 503 before `open`, as for the others."""
        return self._opened()[0]

    @property
    def follower(self) -> Follower:
        """The replica reads are answered from."""
        return self._opened()[1]

    @property
    def intake(self) -> Intake:
        """Writes."""
        return self._opened()[2]

    def check_ready(self) -> None:
        """ApiError 503 until the log has been folded to its tail."""
        if self._ready:
            return
        self._ready = self.follower.ready.is_set() and self._others_ready()
        if not self._ready:
            raise ApiError(503, "SERVICE_NOT_READY", "the log is still being read", Retry_After="1")

    async def folded(self, min_seq: int) -> None:
        """Wait until the follower has folded `min_seq` (0 = whatever it has)."""
        self.check_ready()
        if min_seq > self.follower.state.seq:
            await self.follower.folded(min_seq)

    async def close(self) -> None:
        """Stop writing, let streams end."""
        self.closing = True
        if self._open is not None:
            await self._open[2].close()

    # ---- writing ------------------------------------------------------------------------------

    def tenant_for(self, caller: Caller, wanted: str) -> str:
        """The tenant a request works on; ApiError 403 when it is not the caller's."""
        if caller.role == "operator":
            return wanted or DEFAULT_TENANT
        if wanted and wanted != caller.tenant:
            raise ApiError(403, "FORBIDDEN", f"this token is of tenant {caller.tenant}, not {wanted}")
        return caller.tenant

    def check_pressure(self) -> None:
        """ApiError 429 while too many jobs wait."""
        state = self.follower.state
        for count, limit, what in (
            (len(state.jobs) - len(state.finished), self.limits.pending, "jobs are live"),
            (self.intake.waiting, self.limits.waiting, "submissions wait for the log"),
        ):
            if count >= limit:
                raise ApiError(429, "TOO_MANY_PENDING", f"{count} {what}, the limit is {limit}", Retry_After="1")

    async def submit(self, caller: Caller, jobs: Sequence[Submission]) -> list[Fate]:
        """Submit jobs; each has its own fate, in order. Durable when it returns."""
        self.check_ready()
        self.check_pressure()
        fates: dict[int, Fate] = {}
        owned: dict[int, Owned] = {}
        for index, one in enumerate(jobs):
            try:
                owned[index] = Owned(self.tenant_for(caller, one.tenant), one)
            except ApiError as error:
                fates[index] = error
        fates |= zip(owned, await self.intake.submit(list(owned.values())), strict=True)
        return [fates[index] for index in range(len(jobs))]

    async def submit_keyed(self, caller: Caller, one: Submission, key: str) -> Fate:
        """Submit a job under an idempotency key."""
        self.check_ready()
        self.check_pressure()
        return await self.intake.submit_keyed(Owned(self.tenant_for(caller, one.tenant), one), key)

    async def request(self, view: JobView, verb: str, kind: type[Event], **fields: Any) -> int:
        """Ask for something about a job; folded when it returns. Its sequence."""
        owner_id, member = split_member(view.job_id) or (view.job_id, -1)
        seq = await self.intake.write(job(view.tenant, owner_id, verb), kind(member=member, **fields))
        await self.follower.folded(seq)
        return seq

    async def administer(self, kind: str, event: Event) -> int:
        """An operator's event; folded when it returns. Its sequence."""
        self.check_ready()
        seq = await self.intake.write(admin(kind), event)
        await self.follower.folded(seq)
        return seq

    # ---- reading ------------------------------------------------------------------------------

    async def job(self, caller: Caller, job_id: str, tenant: str = "", min_seq: int = 0) -> JobView:
        """One job the caller may see, by its full id. Raises NotFound, Ambiguous (several tenants have it)."""
        await self.folded(min_seq)
        owner = tenant if caller.role == "operator" else caller.tenant
        if not owner:  # another tenant's job of that id may only just have been written
            await self.folded(self.intake.written)
        view = self._live(owner, job_id)
        if view is None and self.follower.state.seq < self.intake.written:  # perhaps it has only just been written
            await self.folded(self.intake.written)
            view = self._live(owner, job_id)
        if view is None:
            view = await self.ask(query.GET, GetRequest(job_id, owner, self.intake.written, exact=True), JobView)
        if not caller.sees(view.tenant):
            raise NotFound(f"no job {job_id[:80]!r}")
        return view

    def _live(self, owner: str, job_id: str) -> JobView | None:
        """A job of the state; without an owner, the only one of that id there."""
        follower = self.follower
        if owner:
            found = follower.state.jobs.get(job_key(owner, job_id))
            return None if found is None else follower.queries.view(found, follower.now_ms())
        views = follower.queries.of_all_tenants(job_id, follower.now_ms())
        return views[0] if len(views) == 1 else None

    async def ask(self, subject: str, request: Any, kind: type[Any]) -> Any:
        """Ask any scheduler."""
        self.check_ready()
        return await self._asker.ask(subject, request, kind)


Asked = Request[Any, Any, Any]


def come_in(request: Asked) -> tuple[Desk, Caller]:
    """The desk, and who stands before it. Raises ApiError 401 or 403.

    (Litestar's dependency injection would do the same in a task group of its own: a third of the
    time of a short request.)
    """
    state = request.app.state
    gate: Gate = state.gate
    caller = gate.caller(request)
    if b"at" in request.scope["query_string"] and ("at" in request.query_params or "at_seq" in request.query_params):
        raise ApiError(501, "NOT_IMPLEMENTED", "reads of a past moment are not there yet: leave at and at_seq out")
    return state.desk, caller
