"""A ledger, its history, and questions to both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventsched.events import HoldRequested
from eventsched.projections.history import History
from eventsched.projections.queries import Queries
from eventsched.query import GetRequest, ListRequest
from eventsched.spec import JobSpec
from eventsched.views import JobList, JobView

from .support import FAKE, ready

KEEP = 3


class Desk:
    """A ledger, its history, and questions to both."""

    def __init__(self, directory: Path) -> None:
        self.ledger = ready(finished_keep=KEEP)
        self.history = History(directory / "history.sqlite", "test.1")
        self.queries = Queries(self.ledger.state, self.history)

    def submit(self, *job_ids: str, tenant: str = "t", spec: JobSpec = FAKE) -> None:
        """Jobs that a round has placed, if there was room."""
        for job_id in job_ids:
            self.ledger.submit(job_id, spec, tenant)
        self.ledger.settle()
        self.tell()

    def submit_array(self) -> None:
        """Array a of 8: member 0 has ended, 1 to 4 have runs, 5 to 7 are not reached, of which 6 is held."""
        self.submit("a", spec=JobSpec(driver="fake", array=8))
        self.ledger.ask("a", "hold_requested", HoldRequested(member=6))
        self.finish(1)

    def finish(self, count: int = 1_000, exit_code: int = 0) -> None:
        """End so many runs, the oldest first; what waits follows."""
        while count and self.ledger.state.runs:
            self.ledger.ended(next(iter(self.ledger.state.runs)), "exited", exit_code)
            self.ledger.settle()
            count -= 1
        self.tell()

    def ran(self, *job_ids: str, tenant: str = "t", exit_code: int = 0) -> None:
        for job_id in job_ids:
            self.submit(job_id, tenant=tenant)
            self.finish(exit_code=exit_code)

    def tell(self) -> None:
        self.history.take(self.ledger.state.changes.ended)
        self.ledger.state.changes.ended.clear()
        self.history.flush(self.ledger.state.seq)

    def get(self, job_id: str, tenant: str = "") -> JobView:
        return self.queries.get(GetRequest(job_id, tenant), self.ledger.state.clock_ms)

    def page(self, **fields: Any) -> JobList:
        return self.queries.list(ListRequest(**fields), self.ledger.state.clock_ms)

    def ids(self, **fields: Any) -> list[str]:
        return [view.job_id for view in self.page(**fields).jobs]

    def pages(self, between: Callable[[], None] = lambda: None, **fields: Any) -> list[str]:
        found: list[str] = []
        cursor = ""
        for _ in range(100):
            answer = self.page(cursor=cursor, **fields)
            found += [view.job_id for view in answer.jobs]
            cursor = answer.cursor
            if not cursor:
                return found
            between()
        raise AssertionError("the pages do not come to an end")
