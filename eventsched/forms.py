"""The forms in which a job may be written: ours, and those of the systems eventsched takes over from.

    ours    the fields of `JobSpec`, with `job_id` and `tenant` beside them
    flat    docker_image, cpu_cores, memory_gb, gpu_type, …; without an image, with `gpus`, it is a
            job finished by hand (driver manual)
    nested  jobId, resourceRequest, slaType, maxTolerableCost, …; it runs nothing (driver fake)

One form per job, and one name for each thing: mixed forms, two names for one thing and unknown fields are
refused by name. Everything becomes one
`JobSpec` here, at the edge; nothing behind it knows these forms. In `_gb` a GB is 2^30 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from eventsched.errors import InvalidSpec
from eventsched.ids import ID_RULE, is_id
from eventsched.spec import FakeRun, JobSpec, Problem, problems

GIB = 1 << 30
NESTED_SECONDS = 10
COST_MAX = 1_000_000
Form = Literal["ours", "flat", "by_hand", "nested"]

_EVERYWHERE = ("priority", "job_id", "tenant", "tenant_id")
_NESTED = (
    *("jobId", "tenantId", "resourceRequest", "slaType", "maxTolerableCost", "isRescheduled", "durationSeconds"),
    "command",
)
_FLAT = (
    *("docker_image", "command", "cpu_cores", "memory_gb", "gpu_type", "gpu_count", "gpus"),
    *("submitted_at", "max_runtime", "timeout_s"),
)
_OURS = tuple(name for name in JobSpec.__struct_fields__ if name not in _EVERYWHERE)
_NAMES_OF: dict[Literal["ours", "flat", "nested"], tuple[str, ...]] = {"ours": _OURS, "flat": _FLAT, "nested": _NESTED}


def _forms() -> dict[str, Literal["ours", "flat", "nested", "several"]]:
    """The form that a field tells; several: it tells none."""
    found: dict[str, Literal["ours", "flat", "nested", "several"]] = dict.fromkeys(_EVERYWHERE, "several")
    for form, names in _NAMES_OF.items():
        for name in names:
            found[name] = "several" if name in found else form
    return found


_FORM_OF = _forms()


class Submission(Struct, frozen=True):
    """A job read from one of the forms. job_id "": one is to be made. tenant "": the caller's."""

    spec: JobSpec
    job_id: str = ""
    tenant: str = ""
    form: Form = "ours"


class BadForm(InvalidSpec):
    """A job that is in no form; `problems` has one entry for each thing wrong."""

    def __init__(self, found: list[Problem]) -> None:
        first = found[0]
        super().__init__("; ".join(str(problem) for problem in found[:5]), first.code)
        self.problems = found


class _Request(Struct, forbid_unknown_fields=True):
    """`resourceRequest` of the nested form."""

    cpu: float = 1
    memory_gb: float = 0
    gpu_type: str | None = field(name="gpuType", default=None)
    gpu_count: int = field(name="gpuCount", default=0)


class _Nested(Struct, forbid_unknown_fields=True, kw_only=True):
    job: str = field(name="jobId", default="")
    job_id: str = ""
    owner: str = field(name="tenantId", default="")
    tenant: str = ""
    tenant_id: str = ""
    priority: int = 0
    asked: _Request = field(name="resourceRequest")
    sla: Literal["BATCH", "LATENCY_SENSITIVE", "BEST_EFFORT"] = field(name="slaType", default="BATCH")
    cost: float | None = field(name="maxTolerableCost", default=None)
    rescheduled: bool = field(name="isRescheduled", default=False)
    duration_s: float = field(name="durationSeconds", default=NESTED_SECONDS)
    command: list[str] = field(default_factory=list)


class _Flat(Struct, forbid_unknown_fields=True, kw_only=True):
    job_id: str = ""
    tenant: str = ""
    tenant_id: str = ""
    priority: int = 0
    docker_image: str = ""
    command: list[str] = field(default_factory=list)
    cpu_cores: float = 1
    memory_gb: float = 0
    gpu_type: str | None = None
    gpu_count: int | None = None
    gpus: int | None = None
    submitted_at: int | None = None
    max_runtime: int | None = None
    timeout_s: int | None = None


def read_form(body: object) -> Submission:
    """The job in `body` (a decoded JSON value). Raises BadForm naming every field that is wrong."""
    if not isinstance(body, dict):
        raise BadForm([Problem("wrong_type", "", "a job is a JSON object")])
    form = _form_of(body)
    _check_said_once(body)
    try:
        submission = _READERS[form](body)
        wrong = _bad_ids(submission) + problems(submission.spec)
    except BadForm as error:
        wrong = error.problems
    if wrong:
        raise BadForm([_renamed(problem, form, body) for problem in wrong])
    return submission


def _form_of(body: Mapping[str, Any]) -> Literal["ours", "flat", "nested"]:
    """The one form whose own fields occur; BadForm when fields of two occur, or of none."""
    own: dict[Literal["ours", "flat", "nested"], list[str]] = {"ours": [], "flat": [], "nested": []}
    unknown: list[str] = []
    for name in body:
        form = _FORM_OF.get(name)
        if form is None:
            unknown.append(name)
        elif form != "several":
            own[form].append(name)
    if unknown:
        raise BadForm([Problem("unknown_field", str(name)[:80], "is not a field of a job") for name in unknown])
    used = [form for form, names in own.items() if names]
    if len(used) > 1:
        text = "mixes forms: " + "; ".join(f"{', '.join(own[form])} ({form})" for form in used)
        raise BadForm([Problem("mixed_forms", own[used[1]][0], text)])
    return used[0] if used else "ours"


def _convert(body: Mapping[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise BadForm([problem_of(error)]) from error


def problem_of(error: msgspec.ValidationError) -> Problem:
    """Msgspec's words, with the field apart: `Expected `int`, got `str` - at `$.gpus``."""
    text, _, place = str(error).partition(" - at ")
    path = place.strip("`").removeprefix("$").lstrip(".")
    if "missing required field" in text:
        name = text.split("`")[1]
        return Problem("missing_field", f"{path}.{name}".lstrip("."), "is missing")
    if "unknown field" in text:
        name = text.split("`")[1]
        return Problem("unknown_field", f"{path}.{name}".lstrip("."), "is not a field here")
    return Problem("wrong_type", path, text[:1].lower() + text[1:])


def _bad_ids(submission: Submission) -> list[Problem]:
    return [
        Problem("bad_id", name, f"{value[:80]!r} is not an id ({ID_RULE})")
        for name, value in (("job_id", submission.job_id), ("tenant_id", submission.tenant))
        if value and not is_id(value)
    ]


# ---- the forms ----------------------------------------------------------------------------------


def _read_ours(body: Mapping[str, Any]) -> Submission:
    fields = dict(body)
    job_id, tenant = (_text(fields, "job_id"), _text(fields, "tenant") or _text(fields, "tenant_id"))
    for name in ("job_id", "tenant", "tenant_id"):
        fields.pop(name, None)
    return Submission(_convert(fields, JobSpec), job_id, tenant, "ours")


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or (name in body and not value):
        raise BadForm([Problem("wrong_type", name, "is a text; leave it out to have one made")])
    return value


def _read_flat(body: Mapping[str, Any]) -> Submission:
    job = _convert(body, _Flat)
    _text(body, "job_id")
    by_hand = not job.docker_image and (job.gpus is not None or job.submitted_at is not None)
    count = job.gpus if job.gpus is not None else job.gpu_count
    if by_hand and (not count or not job.gpu_type):
        name = "gpus" if not count else "gpu_type"
        raise BadForm([Problem("missing_field", name, "a job without an image asks for gpus > 0 of a gpu_type")])
    model = job.gpu_type or ""
    resources = {
        "cpu_millis": 1 if by_hand and "cpu_cores" not in body else _millis(job.cpu_cores, "cpu_cores"),
        "memory_bytes": _bytes(job.memory_gb, "memory_gb"),
        "gpus": (1 if model else 0) if count is None else count,
        "gpu_model": "" if model.lower() == "any" else model,
    }
    runtime_s = job.max_runtime if job.max_runtime is not None else job.timeout_s or 0
    spec = {
        "image": job.docker_image,
        "command": job.command,
        "driver": "manual" if by_hand else "docker",
        "priority": job.priority,
        "resources": resources,
        "max_runtime_ms": runtime_s * 1000,
        "labels": {"form": "by_hand"} if by_hand else {},
    }
    if job.submitted_at is not None:
        spec["submitted_ms"] = job.submitted_at * 1000
        spec["labels"] = {**spec["labels"], "submitted_at": str(job.submitted_at)}
    return Submission(
        _convert(spec, JobSpec), job.job_id, job.tenant_id or job.tenant, "by_hand" if by_hand else "flat"
    )


def _read_nested(body: Mapping[str, Any]) -> Submission:
    job = _convert(body, _Nested)
    asked, cost = job.asked, job.cost
    if cost is not None and not 0 <= cost <= COST_MAX:
        raise BadForm([Problem("out_of_range", "maxTolerableCost", f"{cost:g} is not between 0 and {COST_MAX}")])
    duration_ms = _duration_ms(job.duration_s)
    spec = {
        "driver": "fake",
        "command": job.command,
        "priority": job.priority,
        "resources": {
            "cpu_millis": _millis(asked.cpu, "resourceRequest.cpu"),
            "memory_bytes": _bytes(asked.memory_gb, "resourceRequest.memory_gb"),
            "gpus": asked.gpu_count,
            "gpu_model": (asked.gpu_type or "") if asked.gpu_count else "",
        },
        "sla": job.sla.lower(),
        "max_price_micros_per_h": None if cost is None else round(cost * 60_000_000),
        "estimate_ms": duration_ms,
        "fake": FakeRun(duration_ms=duration_ms),
        "rescheduled": job.rescheduled,
    }
    return Submission(
        _convert(spec, JobSpec), job.job or job.job_id, job.owner or job.tenant_id or job.tenant, "nested"
    )


_READERS: dict[str, Callable[[Mapping[str, Any]], Submission]] = {
    "ours": _read_ours,
    "flat": _read_flat,
    "nested": _read_nested,
}
_SAME = (("job_id", "jobId"), ("tenant", "tenant_id", "tenantId"), ("gpus", "gpu_count"), ("max_runtime", "timeout_s"))
"""Names of one thing."""
_NAMES: dict[str, dict[str, str]] = {
    "flat": {
        "image": "docker_image",
        "resources.cpu_millis": "cpu_cores",
        "resources.memory_bytes": "memory_gb",
        "resources.gpus": "gpus",
        "resources.gpu_model": "gpu_type",
        "max_runtime_ms": "max_runtime",
        "submitted_ms": "submitted_at",
    },
    "nested": {
        "resources.cpu_millis": "resourceRequest.cpu",
        "resources.memory_bytes": "resourceRequest.memory_gb",
        "resources.gpus": "resourceRequest.gpuCount",
        "resources.gpu_model": "resourceRequest.gpuType",
        "estimate_ms": "durationSeconds",
        "fake.duration_ms": "durationSeconds",
        "max_price_micros_per_h": "maxTolerableCost",
    },
}


def _check_said_once(body: Mapping[str, Any]) -> None:
    twice = [given for names in _SAME if len(given := [one for one in names if body.get(one) is not None]) > 1]
    if twice:
        raise BadForm(
            [Problem("bad_value", two, f"says the same as {one}; give one of them") for one, two, *_ in twice]
        )


def _renamed(problem: Problem, form: str, body: Mapping[str, Any]) -> Problem:
    """A problem under the name its field has in the form it came in: of several, the one that was written."""
    name = _NAMES.get(form, {}).get(problem.field, problem.field)
    synonyms = next((names for names in _SAME if name in names), ())
    return Problem(problem.code, next((one for one in synonyms if body.get(one) is not None), name), problem.detail)


def _millis(cores: float, name: str) -> int:
    if not 0 < cores <= 100_000:
        raise BadForm([Problem("out_of_range", name, f"{cores:g} is not above 0 and at most 100000")])
    return max(1, round(cores * 1000))


def _bytes(gib: float, name: str) -> int:
    if not 0 <= gib <= 8_388_607:
        raise BadForm([Problem("out_of_range", name, f"{gib:g} is not between 0 and 8388607")])
    return round(gib * GIB)


def _duration_ms(seconds: float) -> int:
    if not 0 <= seconds <= 315_360_000:
        raise BadForm([Problem("out_of_range", "durationSeconds", f"{seconds:g} is not between 0 and 315360000")])
    return round(seconds * 1000)
