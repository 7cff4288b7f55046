"""Jobs: submitting, reading, steering."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, get, post
from litestar.params import Body, Parameter

from eventsched.client import Submitted
from eventsched.errors import EventschedError
from eventsched.forms import BadForm, Submission, read_form
from eventsched.projections.http.desk import MIN_SEQ_MAX, Asked, Fate, come_in
from eventsched.projections.http.errors import ApiError, Detail, of_eventsched
from eventsched.projections.http.shapes import job_body, status_of

MinSeq = Annotated[int, Parameter(ge=0, le=MIN_SEQ_MAX, description="wait until this sequence is folded")]
Tenant = Annotated[str, Parameter(max_length=64, description="whose job, when several tenants have this id")]


@post("/jobs", status_code=201, summary="Submit a job", tags=["jobs"])
async def submit(data: Annotated[dict[str, Any], Body()], request: Asked) -> Response[dict[str, Any]]:
    """Ours or an earlier system's form; durable once answered."""
    desk, caller = come_in(request)
    caller.require("submitter")
    job = read_form(data)
    (fate,) = await desk.submit(caller, [job])
    if isinstance(fate, Exception):
        raise fate
    return Response(submitted_body(fate, job), status_code=201, headers={"Eventsched-Seq": str(fate.seq)})


def submitted_body(fate: Submitted, job: Submission) -> dict[str, Any]:
    """What a submitter is told."""
    by_hand = job.spec.driver == "manual"
    return {
        "job_id": fate.job_id,
        "tenant": fate.tenant,
        "state": "pending",
        "status": status_of("pending", by_hand),
        "seq": fate.seq,
    }


@post("/jobs/batch", status_code=200, summary="Submit many jobs; each has its own fate", tags=["jobs"])
async def submit_batch(data: Annotated[list[Any], Body()], request: Asked) -> dict[str, list[Any]]:
    """Partial success: what is wrong with one job leaves the others alone."""
    desk, caller = come_in(request)
    caller.require("submitter")
    wrong: dict[int, EventschedError] = {}
    right: dict[int, Submission] = {}
    for index, body in enumerate(data):
        try:
            right[index] = read_form(body)
        except BadForm as error:
            wrong[index] = error
    fates: dict[int, Fate] = dict(zip(right, await desk.submit(caller, list(right.values())), strict=True))
    answer: dict[str, list[Any]] = {"accepted": [], "rejected": []}
    for index in range(len(data)):
        fate = wrong.get(index) or fates[index]
        if isinstance(fate, Submitted):
            answer["accepted"].append({"index": index, **submitted_body(fate, right[index])})
        else:
            answer["rejected"].append({"index": index, **_rejected(fate, data[index])})
    return answer


def _rejected(fate: EventschedError | ApiError, body: Any) -> dict[str, Any]:
    error = fate if isinstance(fate, ApiError) else of_eventsched(fate)
    name = body.get("job_id") or body.get("jobId") if isinstance(body, dict) else None
    return {"job_id": name if isinstance(name, str) else None, "error": error.problem}


@get("/jobs/{job_id:str}", summary="One job", tags=["jobs"])
async def job(job_id: str, request: Asked, tenant: Tenant = "", min_seq: MinSeq = 0) -> dict[str, Any]:
    """One job by its id."""
    desk, caller = come_in(request)
    return job_body(await desk.job(caller, job_id, tenant, min_seq))


ROUTES = [submit, submit_batch, job]
__all__ = ["ROUTES", "Detail"]
