"""Steering a job: abort, complete, hold, release, requeue. The answer is the job once the request is folded."""

from __future__ import annotations

from typing import Any

from litestar.openapi.spec import Reference, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath
from msgspec import Struct

from eventsched.events import AbortRequested, CompleteRequested, HoldRequested, ReleaseRequested, RequeueRequested
from eventsched.projections.http.bodies import OBJECT, Answer, Route, answer, body_of, read_json, writes
from eventsched.projections.http.desk import Asked, come_in
from eventsched.projections.http.errors import ApiError
from eventsched.projections.http.routes.jobs import TAGS, Tenant
from eventsched.projections.http.shapes import job_body
from eventsched.targets import check_complete, check_requeue
from eventsched.views import JobView
from eventsched.wire import Event

COMPLETED_S = 10.0
"""How long `complete` waits for the run's end, which its agent reports."""
ABORTED_S = 2.0
REASON_MAX = 500


class AbortBody(Struct, forbid_unknown_fields=True):
    """Why; for people."""

    reason: str = ""


class CompleteBody(Struct, forbid_unknown_fields=True):
    """How it went."""

    exit_code: int = 0


class RequeueBody(Struct, forbid_unknown_fields=True):
    """force: although nobody can say whether its run still runs."""

    force: bool = False


class NoBody(Struct, forbid_unknown_fields=True):
    """Nothing need be said."""


def _steers(verb: str, summary: str, **properties: OpenAPIType) -> Route:
    """A route that asks something of a job; its body, with these properties, may be left out."""
    shown: dict[str, Reference | Schema] = {name: Schema(type=kind) for name, kind in properties.items()}
    takes = body_of(OBJECT(properties=shown, additional_properties=False), required=False)
    return writes(f"/jobs/{{job_id:str}}/{verb}", JobView, summary=summary, tags=TAGS, takes=takes)


async def _ask(request: Asked, job_id: str, tenant: str, verb: str, kind: type[Event], **fields: Any) -> Answer:
    """Record a request about a job; the job as it is then."""
    desk, caller = come_in(request)
    caller.require("submitter")
    view = await desk.job(caller, job_id, tenant)
    if view.ended:
        raise ApiError(400, "INVALID_STATE", f"job {view.tenant}/{view.job_id} has ended ({view.state})")
    if verb == "complete_requested":
        check_complete(view, fields["exit_code"])
    elif verb == "requeue_requested":
        check_requeue(view, fields["force"])
    seq = await desk.request(view, verb, kind, by=caller.tenant, **fields)
    if verb in ("complete_requested", "abort_requested"):  # what comes of it is mostly a matter of milliseconds
        patience_s = COMPLETED_S if verb == "complete_requested" else ABORTED_S
        await desk.follower.ended(view.tenant, view.job_id, patience_s)
    return answer(job_body(await desk.job(caller, job_id, view.tenant, seq)), seq=seq)


@_steers("abort", "End a job", reason=OpenAPIType.STRING)
async def abort(job_id: FromPath[str], request: Asked, tenant: Tenant = "") -> Answer:
    """A waiting job ends at once; a run is stopped in good order, which may outlast this answer."""
    body = await read_json(request, AbortBody, empty=b"{}")
    return await _ask(request, job_id, tenant, "abort_requested", AbortRequested, reason=body.reason[:REASON_MAX])


@_steers("complete", "Finish a job of the manual driver", exit_code=OpenAPIType.INTEGER)
async def complete(job_id: FromPath[str], request: Asked, tenant: Tenant = "") -> Answer:
    """Answers when the run has ended. 400 INVALID_STATE when the job does not run."""
    body = await read_json(request, CompleteBody, empty=b"{}")
    return await _ask(request, job_id, tenant, "complete_requested", CompleteRequested, exit_code=body.exit_code)


@_steers("hold", "Keep a waiting job from starting")
async def hold(job_id: FromPath[str], request: Asked, tenant: Tenant = "") -> Answer:
    """A run in progress goes on."""
    await read_json(request, NoBody, empty=b"{}")
    return await _ask(request, job_id, tenant, "hold_requested", HoldRequested)


@_steers("release", "Undo a hold")
async def release(job_id: FromPath[str], request: Asked, tenant: Tenant = "") -> Answer:
    """The job may start again."""
    await read_json(request, NoBody, empty=b"{}")
    return await _ask(request, job_id, tenant, "release_requested", ReleaseRequested)


@_steers("requeue", "Stop a job's run and let it wait again", force=OpenAPIType.BOOLEAN)
async def requeue(job_id: FromPath[str], request: Asked, tenant: Tenant = "") -> Answer:
    """Uses up no retry."""
    body = await read_json(request, RequeueBody, empty=b"{}")
    return await _ask(request, job_id, tenant, "requeue_requested", RequeueRequested, force=body.force)


ROUTES = [abort, complete, hold, release, requeue]
