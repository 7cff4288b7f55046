"""Jobs read from files: .json (one or a list), .ndjson (one a line), .toml; - is stdin."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from eventsched.errors import InvalidSpec
from eventsched.settings import DEFAULT_TENANT
from eventsched.spec import JobSpec
from eventsched.submissions import make_spec, submission


class FileJob(NamedTuple):
    """A job as a file names it; tenant and id are "" where it names none."""

    job_id: str
    tenant: str
    spec: JobSpec


def read_jobs(path: Path) -> list[FileJob]:
    """The jobs of a file; InvalidSpec names the file, the place in it and the field."""
    found = _parsed(path)
    jobs = []
    for number, fields in enumerate(found if isinstance(found, list) else [found], 1):
        where = f"{path}, job {number}"
        if not isinstance(fields, dict):
            raise InvalidSpec(f"{where}: not an object", 'a job is an object, e.g. {"image":"busybox"}')
        try:
            job_id, tenant = _text(fields, "job_id"), _text(fields, "tenant")
            spec = make_spec(**fields)
            submission(tenant or DEFAULT_TENANT, job_id or "any", spec)  # a file with a fault submits nothing
            jobs.append(FileJob(job_id, tenant, spec))
        except InvalidSpec as error:
            raise InvalidSpec(f"{where}: {error.message}", error.hint) from error
    if not jobs:
        raise InvalidSpec(f"{path}: no job in it", "use .json, .ndjson (one job a line) or .toml")
    return jobs


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.pop(name, "")
    if not isinstance(value, str):
        shown = "null" if value is None else f"{value!r:.40}"
        raise InvalidSpec(f"{name}: {shown} is not a text", "leave it out to have one chosen")
    return value


def _parsed(path: Path) -> Any:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InvalidSpec(f"{path} cannot be read: {error.strerror}", "-f names a file, - is stdin") from error
    try:
        match path.suffix:
            case ".toml":
                tables = tomllib.loads(data.decode())
                return tables.get("jobs", [tables])
            case ".ndjson":
                return [_line(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
        return msgspec.json.decode(data)
    except RecursionError:
        raise InvalidSpec(f"{path}: nested too deeply", "a job has few levels: see the fields of JobSpec") from None
    except (ValueError, InvalidSpec) as error:  # msgspec, tomllib and decoding raise kinds of ValueError
        raise InvalidSpec(f"{path}: {error}", "use .json, .ndjson (one job a line) or .toml") from error


def _line(number: int, line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except ValueError as error:
        raise InvalidSpec(f"line {number}: {error}") from error
