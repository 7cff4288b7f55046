"""What routes work with: a client that writes, a follower that reads, and limits.

Live jobs are read from the follower, at the price of a dictionary look-up; what it cannot know
(forgotten jobs, heartbeats, policies) is asked of the schedulers. A tenant's caller sees and
touches its own jobs only: another's job is simply not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Request
from msgspec import Struct

from eventsched.client import Client, Submitted
from eventsched.errors import EventschedError, NotFound
from eventsched.forms import Submission
from eventsched.ids import job_key
from eventsched.projections.following import Follower
from eventsched.projections.http.auth import Caller, Gate
from eventsched.projections.http.errors import ApiError
from eventsched.projections.queries import Queries
from eventsched.settings import DEFAULT_TENANT
from eventsched.spec import JobSpec
from eventsched.views import JobView

Fate = Submitted | EventschedError | ApiError
MIN_SEQ_MAX = 2**53


class Limits(Struct, frozen=True, kw_only=True):
    """pending: submissions are refused (429) while so many jobs are live. body_bytes: of one request.
    upload_bytes: of one ingest. streams: clients that may follow at a time."""

    pending: int = 1_000_000
    body_bytes: int = 1024 * 1024
    upload_bytes: int = 1024 * 1024 * 1024
    streams: int = 1_000


class Desk:
    """The service's hands: reads, writes, limits."""

    def __init__(self, client: Client, follower: Follower, limits: Limits | None = None) -> None:
        self.client = client
        self.follower = follower
        self.limits = limits or Limits()
        self.streams = 0

    def check_ready(self) -> None:
        """ApiError 503 until the log has been folded to its tail."""
        if not self.follower.ready.is_set():
            raise ApiError(503, "SERVICE_NOT_READY", "the log is still being read", Retry_After="1")

    async def folded(self, min_seq: int) -> None:
        """Wait until the follower has folded `min_seq` (0 = whatever it has)."""
        self.check_ready()
        if min_seq > self.follower.state.seq:
            await self.follower.folded(min_seq)

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
        live = len(state.jobs) - len(state.finished)
        if live >= self.limits.pending:
            raise ApiError(
                429, "TOO_MANY_PENDING", f"{live} jobs are live, the limit is {self.limits.pending}", Retry_After="5"
            )

    async def submit(self, caller: Caller, jobs: Sequence[Submission]) -> list[Fate]:
        """Submit jobs; each has its own fate, in order. Durable when it returns."""
        self.check_ready()
        self.check_pressure()
        fates: dict[int, Fate] = {}
        groups: dict[str, dict[int, tuple[str, JobSpec]]] = {}
        for index, job in enumerate(jobs):
            try:
                tenant = self.tenant_for(caller, job.tenant)
            except ApiError as error:
                fates[index] = error
            else:
                groups.setdefault(tenant, {})[index] = (job.job_id, job.spec)
        for tenant, group in groups.items():
            fates |= zip(group, await self.client.submit_many(group.values(), tenant=tenant), strict=True)
        return [fates[index] for index in range(len(jobs))]

    # ---- reading ------------------------------------------------------------------------------

    async def job(self, caller: Caller, job_id: str, tenant: str = "", min_seq: int = 0) -> JobView:
        """One job the caller may see, by its full id. Raises NotFound, Ambiguous (several tenants have it)."""
        await self.folded(min_seq)
        state = self.follower.state
        owner = tenant if caller.role == "operator" else caller.tenant
        if owner:
            job = state.jobs.get(job_key(owner, job_id))
            if job is not None:
                return Queries(state, None).view(job, self.follower.now_ms())
        view = await self.client.get(job_id, tenant=owner)
        if view.job_id != job_id or not caller.sees(view.tenant):
            raise NotFound(f"no job {job_id!r}")
        return view


Asked = Request[Any, Any, Any]


def come_in(request: Asked) -> tuple[Desk, Caller]:
    """The desk, and who stands before it. Raises ApiError 401 or 403.

    (Litestar's dependency injection would do the same in a task group of its own: a third of the
    time of a short request.)
    """
    state = request.app.state
    gate: Gate = state.gate
    return state.desk, gate.caller(request)
