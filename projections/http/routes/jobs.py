"""Jobs: submitting and reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath, HeaderParameter, QueryParameter

from eventsched.client import Submitted
from eventsched.errors import EventschedError
from eventsched.forms import BadForm, Submission, read_form
from eventsched.projections.http.auth import Caller
from eventsched.projections.http.bodies import (
    OBJECT,
    Answer,
    answer,
    body_of,
    encode,
    read_json,
    reads,
    writes,
)
from eventsched.projections.http.desk import MIN_SEQ_MAX, Asked, Desk, come_in
from eventsched.projections.http.errors import ApiError, of_eventsched
from eventsched.projections.http.shapes import job_body, status_of
from eventsched.views import JobView

MinSeq = Annotated[int, QueryParameter(ge=0, le=MIN_SEQ_MAX, description="wait until this sequence is folded")]
Tenant = Annotated[str, QueryParameter(max_length=64, description="whose job, when several tenants have this id")]
TAGS = ["jobs"]
BATCH_MAX = 10_000

EXAMPLES: dict[str, Any] = {
    "ours": {"image": "busybox", "command": ["echo", "hi"], "resources": {"cpu_millis": 1000}, "labels": {"team": "a"}},
    "flat": {"docker_image": "alpine:latest", "command": ["echo", "Hello World!"], "cpu_cores": 1, "memory_gb": 1},
    "by_hand": {"job_id": "j1", "tenant_id": "t1", "gpu_type": "A100", "gpus": 1, "priority": 5, "submitted_at": 0},
    "nested": {"jobId": "n1", "priority": 5, "resourceRequest": {"cpu": 1, "memory_gb": 2}, "slaType": "BATCH"},
}


# ---- submitting ---------------------------------------------------------------------------------


@writes("/jobs", status_code=201, summary="Submit a job", tags=TAGS, takes=body_of(OBJECT(), **EXAMPLES))
async def submit(
    request: Asked,
    key: Annotated[
        str, HeaderParameter(name="Idempotency-Key", description="the same key and job: the first answer, for ever")
    ] = "",
) -> Answer:
    """Ours or an earlier system's form; durable once answered."""
    desk, caller = come_in(request)
    caller.require("submitter")
    job = read_form(await read_json(request, object))
    if key:
        fate = await desk.submit_keyed(caller, job, key)
    else:
        (fate,) = await desk.submit(caller, [job])
    if isinstance(fate, Exception):
        raise fate
    return answer(encode(submitted_body(job, fate)), 201, fate.seq)


def submitted_body(job: Submission, fate: Submitted) -> dict[str, Any]:
    """What a submitter is told."""
    return {
        "job_id": fate.job_id,
        "tenant": fate.tenant,
        "state": "pending",
        "status": status_of("pending", job.spec.driver == "manual"),
        "seq": fate.seq,
    }


def rejected_body(fate: EventschedError | ApiError, body: Any) -> dict[str, Any]:
    """What is said of a job that was not accepted."""
    error = fate if isinstance(fate, ApiError) else of_eventsched(fate)
    name = body.get("job_id") or body.get("jobId") if isinstance(body, dict) else None
    return {"job_id": name if isinstance(name, str) else None, "error": error.problem}


@writes(
    "/jobs/batch",
    summary="Submit many jobs; each has its own fate",
    tags=TAGS,
    takes=body_of(Schema(type=OpenAPIType.ARRAY, items=OBJECT()), two=[EXAMPLES["ours"], EXAMPLES["flat"]]),
)
async def submit_batch(request: Asked) -> Answer:
    """A list of jobs. Partial success: what is wrong with one job leaves the others alone."""
    desk, caller = come_in(request)
    caller.require("submitter")
    bodies = await read_json(request, list[Any])
    if len(bodies) > BATCH_MAX:
        raise ApiError(413, "PAYLOAD_TOO_LARGE", f"{len(bodies)} jobs; at most {BATCH_MAX}, or use /ingest")
    found: dict[str, list[Any]] = {"accepted": [], "rejected": []}
    for index, fate in enumerate(await submit_bodies(desk, caller, bodies)):
        if isinstance(fate, tuple):
            found["accepted"].append({"index": index, **submitted_body(*fate)})
        else:
            found["rejected"].append({"index": index, **rejected_body(fate, bodies[index])})
    return answer(encode(found), seq=max((one["seq"] for one in found["accepted"]), default=0))


async def submit_bodies(
    desk: Desk, caller: Caller, bodies: Sequence[object]
) -> list[tuple[Submission, Submitted] | EventschedError | ApiError]:
    """What becomes of each body, in order: the job and its submission, or why there is none."""
    read: list[Submission | BadForm] = []
    for body in bodies:
        try:
            read.append(read_form(body))
        except BadForm as error:
            read.append(error)
    fates = iter(await desk.submit(caller, [job for job in read if isinstance(job, Submission)]))
    found: list[tuple[Submission, Submitted] | EventschedError | ApiError] = []
    for job in read:
        if not isinstance(job, Submission):
            found.append(job)
            continue
        fate = next(fates)
        found.append((job, fate) if isinstance(fate, Submitted) else fate)
    return found


# ---- reading ------------------------------------------------------------------------------------


@reads("/jobs/{job_id:str}", JobView, summary="One job", tags=TAGS)
async def one_job(
    job_id: FromPath[str],
    request: Asked,
    tenant: Tenant = "",
    min_seq: MinSeq = 0,
    logs: Annotated[bool, QueryParameter(description="with the end of its output")] = True,
) -> Answer:
    """One job by its id, with the last 64 KiB of its output (`logs=false` leaves it out)."""
    desk, caller = come_in(request)
    view = await desk.job(caller, job_id, tenant, min_seq)
    text = await desk.tails.of(view) if logs else None
    return answer(job_body(view, text), seq=desk.follower.state.seq)


ROUTES = [submit, submit_batch, one_job]
