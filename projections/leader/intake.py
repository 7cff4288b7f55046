"""What clients ask a scheduler to write for them: submissions and aborts, answered when they are durable.

Requests that come together share an atomic batch. For whom a request may speak is the server's word
(`caller`), never the payload's; "" is one who may speak for every tenant.
"""

from __future__ import annotations

from eventsched import codec, subjects
from eventsched.errors import DuplicateJob, EventschedError, PermissionDenied
from eventsched.events import AbortRequested
from eventsched.forms import read_form
from eventsched.ids import split_member
from eventsched.log.gather import GatheringWriter
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link
from eventsched.log.port import AppendError, Denied, OutcomeUnknown, Outgoing
from eventsched.log.store import StoreCheck
from eventsched.new_ids import new_job_id, new_ulid
from eventsched.query import AbortRequest, Written
from eventsched.settings import DEFAULT_TENANT
from eventsched.spec import JobSpec
from eventsched.submissions import submission, submit_error
from eventsched.targets import Lookup, job_to_change, split_tenant

GIVE_UP_S = 4.0
"""Within the time a client waits for an answer by default, so that it hears the reason."""


class Intake:
    """Writes for others. `written` is the last sequence it was told of."""

    def __init__(self, link: Link) -> None:
        self._writer = GatheringWriter(JetStreamLog(link), give_up_s=GIVE_UP_S)
        self._store = StoreCheck(link)
        self.written = 0

    async def close(self) -> None:
        """Write nothing more; whoever waits is told."""
        await self._writer.close()

    async def submit(self, body: object, caller: str) -> Written:
        """Submit the job in `body`, in any of its forms.

        Raises InvalidSpec, DuplicateJob, PermissionDenied, StoreFull.
        """
        asked = read_form(body)
        tenant = self._tenant(asked.tenant, caller)
        await self._store.check()
        if asked.job_id:
            return await self._submit(tenant, asked.job_id, asked.spec)
        try:
            return await self._submit(tenant, new_job_id(asked.spec.name), asked.spec)
        except DuplicateJob:  # the dice gave an id that is taken
            return await self._submit(tenant, new_job_id(asked.spec.name), asked.spec)

    async def _submit(self, tenant: str, job_id: str, spec: JobSpec) -> Written:
        try:
            seq = await self._writer.put(submission(tenant, job_id, spec))
        except AppendError as error:
            raise _in_doubt(error, tenant, job_id) or submit_error(error, tenant, job_id) from error
        return self._stored(Written(job_id, tenant, "pending", seq))

    async def abort(self, request: AbortRequest, caller: str, look_up: Lookup) -> Written:
        """Ask for a job to end. Raises NotFound, Ambiguous, PermissionDenied, EventschedError when it has ended."""
        owner, name = split_tenant(request.job_id, self._tenant(request.tenant, caller))
        view = await job_to_change(look_up, name, self._tenant(owner, caller))
        job_id, member = split_member(view.job_id) or (view.job_id, -1)
        event = AbortRequested(member=member, reason=request.reason)
        message = Outgoing(subjects.job(view.tenant, job_id, "abort_requested"), codec.encode(event), msg_id=new_ulid())
        try:
            seq = await self._writer.put(message)
        except Denied as error:
            raise PermissionDenied(error.message, error.hint) from error
        except AppendError as error:
            raise _in_doubt(error, view.tenant, view.job_id) or error from error
        return self._stored(Written(view.job_id, view.tenant, view.state, seq))

    def _tenant(self, wanted: str, caller: str) -> str:
        if caller and wanted and wanted != caller:
            raise PermissionDenied(
                f"tenant: this account speaks for {caller[:80]!r}, not for {wanted[:80]!r}",
                "leave `tenant` out, or ask with the account of that tenant",
            )
        return caller or wanted or DEFAULT_TENANT

    def _stored(self, written: Written) -> Written:
        self.written = max(self.written, written.seq)
        return written


def _in_doubt(error: AppendError, tenant: str, job_id: str) -> EventschedError | None:
    """Nobody knows whether it is in the log; an id that was made here is told all the same."""
    if not isinstance(error, OutcomeUnknown):
        return None
    return OutcomeUnknown(
        f"{error.message}: the request about job {tenant}/{job_id} may be in the log, or not",
        "look with `eventsched.get` before you repeat it",
    )
