"""From what a caller hands in to messages of the log: jobs checked before they are sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from eventsched import codec, subjects
from eventsched.errors import DuplicateJob, EventschedError, InvalidSpec, PermissionDenied
from eventsched.ids import ID_RULE, is_id
from eventsched.log.port import AppendError, Conflict, Denied, Outgoing
from eventsched.new_ids import new_ulid
from eventsched.reasons import explain_reason
from eventsched.spec import JobSpec, problems

_read_back = msgspec.json.Decoder(JobSpec).decode


def make_spec(**fields: Any) -> JobSpec:
    """A JobSpec from plain values (lists, dicts); raises InvalidSpec naming the field."""
    try:
        return msgspec.convert(fields, JobSpec)
    except msgspec.ValidationError as error:
        raise InvalidSpec(str(error), "see the fields of JobSpec") from error


def as_pairs(jobs: Iterable[JobSpec | tuple[str, JobSpec]]) -> list[tuple[str, JobSpec]]:
    """(job id or "", spec) of each; InvalidSpec saying which of them is neither a spec nor such a pair."""
    found: list[tuple[str, JobSpec]] = []
    for index, item in enumerate(jobs):
        match item:
            case JobSpec():
                found.append(("", item))
            case (str() as job_id, JobSpec() as spec):
                found.append((job_id, spec))
            case _:
                raise InvalidSpec(
                    f"jobs[{index}] is {type(item).__name__}, neither a JobSpec nor a pair (job id, JobSpec)",
                    "nothing was submitted; `eventsched.JobSpec(image=…)` makes one",
                )
    return found


def submission(tenant: str, job_id: str, spec: JobSpec) -> Outgoing:
    """The message that submits a job. Raises InvalidSpec naming the field and what is allowed."""
    for what, value in (("tenant", tenant), ("job id", job_id)):
        if not is_id(value):
            raise InvalidSpec(f"{what} {value[:80]!r} is not an id", ID_RULE)
    payload = _as_json(spec)
    found = problems(spec)
    if found:
        raise InvalidSpec("; ".join(str(problem) for problem in found[:5]), explain_reason(found[0].code))
    if len(payload) > codec.PAYLOAD_MAX:
        raise InvalidSpec(f"the job is {len(payload)} bytes as JSON", f"at most {codec.PAYLOAD_MAX}")
    return Outgoing(subjects.job(tenant, job_id, "submitted"), payload, msg_id=new_ulid(), expect=0)


def _as_json(spec: JobSpec) -> bytes:
    """The payload; a JobSpec made in Python may hold values of any type, so it is read back."""
    try:
        payload = codec.encode(spec)
        _read_back(payload)
    except (TypeError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise InvalidSpec(f"the job is no valid JobSpec: {error}", "see the fields of JobSpec") from error
    return payload


def submit_error(error: AppendError, tenant: str, job_id: str) -> EventschedError:
    """What a failed append means to who submitted."""
    if isinstance(error, Conflict):
        return DuplicateJob(
            f"job id {job_id!r} of tenant {tenant!r} is taken", "choose another id; ids are never used twice"
        )
    if isinstance(error, Denied):
        return PermissionDenied(error.message, error.hint)
    return error
