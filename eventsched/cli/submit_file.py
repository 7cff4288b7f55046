"""Submitting the jobs of a file: each row has its fate, told once it is known, with its place in the file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

import msgspec

from eventsched.cli.exits import ERROR, OK, complain
from eventsched.cli.job_files import JobFile
from eventsched.client import Client, Submitted
from eventsched.errors import DuplicateJob, EventschedError, InvalidSpec
from eventsched.forms import BadForm, read_form
from eventsched.rows import READ_BYTES, Row, in_turn
from eventsched.spec import JobSpec
from eventsched.visible import visible, visible_json

LISTED_MAX = 20
SHOWN = 3
IN_MEMORY = 1024 * 1024
AGAIN = "submit the file again once that is mended: a job_id is never taken twice, rows without one may be there twice"

Fate = Submitted | EventschedError
Draw = Callable[[int, str], None]


class FileReport:
    """What became of the rows of a file, as people and programs are told. Few of them are kept in memory.

    refused: where the refusals wait for their turn in the answer. keep: all that were accepted, for whoever waits
    for them.
    """

    def __init__(self, file: JobFile, refused: IO[bytes], *, as_json: bool, brief: bool, keep: bool) -> None:
        self._file = file
        self._as_json = as_json and not brief
        self._out = sys.stderr if brief else sys.stdout
        self._keep = keep
        self._refused = refused
        self.kept: list[Submitted] = []
        self.accepted = self.refused = 0
        self.stopped: tuple[int, EventschedError] | None = None

    def take(self, row: Row, fate: Fate) -> None:
        """Note the fate of a row. An error that is not the row's own ends it all: nothing behind it is known."""
        if self.stopped is not None:
            return
        if isinstance(fate, Submitted):
            self._accept(row, fate)
        elif isinstance(fate, InvalidSpec | DuplicateJob):
            self._refuse(row, fate)
        else:
            self.stopped = row.line, fate

    @property
    def counts(self) -> str:
        """`98 accepted, 2 refused`."""
        return f"{self.accepted:,} accepted" + (f", {self.refused:,} refused" if self.refused else "")

    def _accept(self, row: Row, fate: Submitted) -> None:
        if self._keep or self.accepted < LISTED_MAX:
            self.kept.append(fate)
        if self._as_json:
            self._write("," if self.accepted else '{"accepted":[')
            self._write(_json({self._file.place: row.line, **msgspec.to_builtins(fate)}))
        self.accepted += 1

    def _refuse(self, row: Row, error: EventschedError) -> None:
        self.refused += 1
        if self._as_json:
            name = row.body.get("job_id") or row.body.get("jobId") if isinstance(row.body, dict) else None
            said = {self._file.place: row.line, "job_id": name, "error": _error(error)}
            self._refused.write(("," if self.refused > 1 else "").encode() + _json(said).encode())
        if self.refused <= LISTED_MAX:
            print(visible(f"refused: {self._where(row.line)}: {error.message}"), file=sys.stderr)

    def _where(self, line: int) -> str:
        return f"{self._file.name}, {self._file.place} {line}"

    def _write(self, text: str) -> None:
        sys.stdout.write(text)

    def finish(self) -> int:
        """Say the sum; the exit code. Raises InvalidSpec when there was no job at all."""
        if not self.accepted and not self.refused and self.stopped is None:
            raise InvalidSpec(f"{self._file.name}: no job in it", "one job a line; a CSV begins with its header")
        if self.refused > LISTED_MAX:
            print(f"refused: {self.refused - LISTED_MAX:,} more (-o json names them all)", file=sys.stderr)
        if self._as_json:
            self._end_of_json()
        else:
            self._sum()
        if self.stopped is not None:
            line, error = self.stopped
            print(
                visible(f"stopped at {self._where(line)}; from there on nothing is known to be stored"), file=sys.stderr
            )
            return complain(type(error)(error.message, error.hint or AGAIN))
        return ERROR if self.refused else OK

    def _sum(self) -> None:
        few = self.accepted <= LISTED_MAX
        for one in self.kept[: None if few else SHOWN]:
            print(visible(f"submitted {one.tenant}/{one.job_id}"), file=self._out)
        if self.accepted == 1 and not self.refused and self._out is sys.stdout:
            print(f"  eventsched job {self.kept[0].job_id}\n  eventsched logs -f {self.kept[0].job_id}")
        else:
            print(f"{'' if few else '… '}{self.counts}", file=self._out)

    def _end_of_json(self) -> None:
        self._write('],"rejected":[' if self.accepted else '{"accepted":[],"rejected":[')
        self._refused.seek(0)
        while part := self._refused.read(READ_BYTES):
            sys.stdout.flush()
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        counts: dict[str, Any] = {"accepted_count": self.accepted, "rejected_count": self.refused}
        if self.stopped is not None:
            counts["stopped"] = {self._file.place: self.stopped[0], "error": self.stopped[1].message}
        self._write("]," + _json(counts)[1:] + "\n")


def _error(error: EventschedError) -> dict[str, Any]:
    """An error of a row as `POST /ingest` puts it."""
    found = error.problems if isinstance(error, BadForm) else []
    details = [{"field": one.field, "code": one.code, "message": one.detail} for one in found]
    code = "DUPLICATE_JOB" if isinstance(error, DuplicateJob) else "VALIDATION_ERROR"
    return {"code": code, "message": error.message, "details": details}


async def submit_file(client: Client, file: JobFile, report: FileReport, *, logs: bool = False) -> None:
    """Submit the jobs of a file, a batch at a time; what became of them is in the report."""
    with _bar(file) as draw:
        try:
            async for rows, fates in in_turn(file.rows, partial(_submit, client, logs)):
                for row, fate in zip(rows, fates, strict=True):
                    report.take(row, fate)
                draw(file.data.tell(), report.counts)
                if report.stopped is not None:
                    return
        except asyncio.CancelledError:  # Ctrl-C: what was told as accepted is, and the sum is still worth something
            print(f"interrupted: {report.counts}; what was under way may be stored too", file=sys.stderr)
            raise


async def _submit(client: Client, logs: bool, rows: list[Row]) -> list[Fate]:
    """The fate of each row, in order."""
    fates: dict[int, Fate] = {}
    by_tenant: dict[str, list[tuple[int, tuple[str, JobSpec]]]] = {}
    for index, row in enumerate(rows):
        try:
            if row.wrong is not None:
                raise row.wrong
            job = read_form(row.body)
            if logs and job.spec.array:
                raise InvalidSpec("--logs: an array has no output of its own", "submit it with --wait")
            by_tenant.setdefault(job.tenant, []).append((index, (job.job_id, job.spec)))
        except InvalidSpec as error:
            fates[index] = error

    async def submit(tenant: str, jobs: list[tuple[int, tuple[str, JobSpec]]]) -> None:
        found: list[Fate]
        try:
            found = await client.submit_many([job for _, job in jobs], tenant=tenant)
        except EventschedError as error:
            found = [error] * len(jobs)
        fates.update(zip((index for index, _ in jobs), found, strict=True))

    await asyncio.gather(*(submit(tenant, jobs) for tenant, jobs in by_tenant.items()))
    return [fates[index] for index in range(len(rows))]


@contextmanager
def _bar(file: JobFile) -> Iterator[Draw]:
    """A progress bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}", markup=False), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=file.size, told="")
        yield lambda done, text: bar.update(task, completed=done, told=text)


def _json(value: Any) -> str:
    return visible_json(msgspec.json.encode(value).decode())
