"""Errors of the service: one body for all of them, the framework's own included.

    {"error": {"code": "SOME_CODE", "message": "Human-readable message", "details": []}}

`details` holds one entry for each thing that is wrong: field, code, message.
"""

from __future__ import annotations

import re
import traceback
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from msgspec import Struct, field

from eventsched.errors import (
    Ambiguous,
    DuplicateJob,
    EventschedError,
    InvalidSpec,
    NoScheduler,
    NoServer,
    NotFound,
    PermissionDenied,
    PolicyRefused,
    SchedulerFault,
    StoreFull,
    WaitTimeout,
)
from eventsched.forms import BadForm
from eventsched.log.port import Busy, Denied, OutcomeUnknown, Refused, Unavailable
from eventsched.rows import BadFile

_log = structlog.get_logger("eventsched.http")


class Detail(Struct, omit_defaults=True):
    """One thing that is wrong: where, a stable code, and words."""

    field: str
    code: str
    message: str
    line: int = 0
    index: int | None = None


class Problem(Struct):
    """What went wrong: a stable code, a sentence, and details."""

    code: str
    message: str
    details: list[Detail] = field(default_factory=list)


class ErrorBody(Struct):
    """The body of every error."""

    error: Problem


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, code: str, message: str, details: list[Detail] | None = None, **headers: str
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(code, message, details or [])
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def body_of_error(code: str, message: str) -> bytes:
    """The body of an error outside of the application."""
    return msgspec.json.encode(ErrorBody(Problem(code, message)))


_OF_THE_COMMAND_LINE = re.compile(r"--\w|`eventsched")
_OTHER = (400, "INVALID_STATE")
_KINDS: tuple[tuple[type[EventschedError], int, str], ...] = (
    (InvalidSpec, 422, "VALIDATION_ERROR"),
    (PolicyRefused, 422, "VALIDATION_ERROR"),
    (DuplicateJob, 409, "DUPLICATE_JOB"),
    (NotFound, 404, "JOB_NOT_FOUND"),
    (Ambiguous, 409, "AMBIGUOUS_JOB"),
    (StoreFull, 503, "STORE_FULL"),
    (PermissionDenied, 403, "FORBIDDEN"),
    (WaitTimeout, 504, "NOT_FOLDED_YET"),
    (SchedulerFault, 500, "INTERNAL_ERROR"),
    (NoScheduler, 503, "SERVICE_NOT_READY"),
    (NoServer, 503, "SERVICE_NOT_READY"),
    (OutcomeUnknown, 504, "OUTCOME_UNKNOWN"),
    (Denied, 403, "FORBIDDEN"),
    (Unavailable, 503, "SERVICE_NOT_READY"),
    (Busy, 503, "SERVICE_NOT_READY"),
    (Refused, 503, "STORE_FULL"),
)


def of_eventsched(error: EventschedError) -> ApiError:
    """One of our errors as an answer; what has no status of its own is a conflict with the present state."""
    details = []
    if isinstance(error, BadForm):
        details = [Detail(one.field, one.code, one.detail) for one in error.problems]
    status, code = next(((status, code) for kind, status, code in _KINDS if isinstance(error, kind)), _OTHER)
    hint = f" ({error.hint})" if error.hint and not details and not _OF_THE_COMMAND_LINE.search(error.hint) else ""
    if isinstance(error, BadFile):
        status, code = 400, error.code
    if isinstance(error, Ambiguous):
        hint = " (say whose: ?tenant=)"
    headers = {"Retry_After": "1"} if status == 503 else {}
    return ApiError(status, code, error.message + hint, details, **headers)


def answer(_request: Request[Any, Any, Any], error: Exception) -> Response[ErrorBody]:
    """The answer to an exception of any kind."""
    match error:
        case ApiError():
            found = error
        case EventschedError():
            found = of_eventsched(error)
        case HTTPException():
            found = _of_framework(error)
        case _:
            # without the values of variables: they may hold a job's environment
            _log.error("request_failed", trace="".join(traceback.format_exception(error)))
            found = ApiError(500, "INTERNAL_ERROR", "the service failed; its log says why")
    return Response(
        ErrorBody(found.problem), status_code=found.status, headers=found.headers, media_type="application/json"
    )


_FRAMEWORK_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    429: "TOO_MANY_REQUESTS",
    500: "INTERNAL_ERROR",
    503: "SERVICE_NOT_READY",
}


def _of_framework(error: HTTPException) -> ApiError:
    status = error.status_code
    details = []
    if status == 400 and isinstance(error.extra, list):  # a parameter that cannot be read
        status = 422
        details = [
            Detail(str(one.get("key", "")), "bad_value", str(one.get("message", "")))
            for one in error.extra
            if isinstance(one, dict)
        ]
    code = "VALIDATION_ERROR" if status == 422 else _FRAMEWORK_CODES.get(status, HTTPStatus(status).name)
    text = error.detail if error.detail and status < 500 else HTTPStatus(status).phrase
    return ApiError(status, code, text, details, **(error.headers or {}))
