"""Jobs, page by page."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from litestar.params import QueryParameter
from msgspec import Struct

from eventsched import query
from eventsched.projections.http.bodies import Answer, answer, reads
from eventsched.projections.http.desk import Asked, Desk, come_in
from eventsched.projections.http.errors import ApiError, Detail
from eventsched.projections.http.routes.jobs import TAGS, MinSeq
from eventsched.projections.http.shapes import STATES, job_body, state_names, status_of
from eventsched.query import PAGE_MAX
from eventsched.views import JobList, JobView

SCAN_PAGES = 20
"""What the schedulers cannot pick out is looked for in so many of their pages for one answer."""
Names = list[str] | None


class _Wanted(Struct, frozen=True):
    """Which jobs: their tenant ("" = any), states (none = any), earlier names of states, and labels."""

    tenant: str
    states: list[str]
    statuses: list[str]
    labels: dict[str, str]

    def fits(self, view: JobView) -> bool:
        """True for what is asked for, as far as the schedulers have not picked it out."""
        if self.statuses and status_of(view.state, view.driver == "manual") not in self.statuses:
            return False
        return all(view.labels.get(name) == value for name, value in self.labels.items())


@reads("/jobs", list[JobView], summary="Jobs, newest first", tags=TAGS)
async def list_jobs(
    request: Asked,
    states: Annotated[
        Names, QueryParameter(name="state", description=f"any of {', '.join(STATES)}; repeated, or with commas")
    ] = None,
    statuses: Annotated[
        Names, QueryParameter(name="status", description="as state, in the earlier systems' words")
    ] = None,
    tenant: Annotated[str, QueryParameter(max_length=64, description="only this tenant's")] = "",
    label: Annotated[Names, QueryParameter(description="NAME=VALUE; every one of them must be there")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="jobs in one answer, at most")] = PAGE_MAX,
    cursor: Annotated[str, QueryParameter(max_length=16, pattern="^[0-9]*$", description="from the Link header")] = "",
    min_seq: MinSeq = 0,
) -> Answer:
    """A bare list; the `Link` header leads to the next page. Jobs that arrive meanwhile move no page."""
    desk, caller = come_in(request)
    await desk.folded(min_seq)
    owner = tenant if caller.role == "operator" else desk.tenant_for(caller, tenant)
    wanted = _wanted(owner, _split(states), [one.upper() for one in _split(statuses)], label or [])
    views, following = await _page(desk, wanted, limit, cursor, max(min_seq, desk.intake.written))
    headers = {"Link": f'<{_again(request, following)}>; rel="next"'} if following else {}
    body = b"[" + b",".join(job_body(view) for view in views) + b"]"
    return answer(body, seq=desk.follower.state.seq, headers=headers)


async def _page(desk: Desk, wanted: _Wanted, limit: int, cursor: str, min_seq: int) -> tuple[list[JobView], str]:
    """Jobs that fit, and the cursor of the next page; "" = there is none."""
    found: list[JobView] = []
    picks = bool(wanted.statuses or wanted.labels)
    for _ in range(SCAN_PAGES):
        asked = query.ListRequest(
            tenant=wanted.tenant,
            states=wanted.states,
            labels=wanted.labels,
            limit=PAGE_MAX if picks else min(PAGE_MAX, limit - len(found) + 1),
            cursor=cursor,
            min_seq=min_seq,
        )
        page: JobList = await desk.ask(query.LIST, asked, JobList)
        for view in page.jobs:
            if len(found) == limit:
                return found, str(found[-1].seq)
            if wanted.fits(view):
                found.append(view)
        cursor = page.cursor
        if not cursor:
            return found, ""
        if len(found) == limit:
            return found, str(found[-1].seq)
    return found, cursor


def _split(names: Names) -> list[str]:
    return [one for name in names or [] for one in name.split(",") if one]


def _wanted(tenant: str, states: list[str], statuses: list[str], labels: list[str]) -> _Wanted:
    unknown = [one for one in states if one not in STATES]
    if unknown:
        raise _wrong("state", f"{unknown[0][:40]!r} is none of {', '.join(STATES)}")
    by_status = state_names(statuses)
    both = [one for one in states if not by_status or one in by_status] if states else by_status
    pairs = [one.partition("=") for one in labels]
    if any(not name or not sign for name, sign, _ in pairs):
        raise _wrong("label", "write NAME=VALUE")
    if states and not both:
        raise _wrong("status", "no state fits both state and status")
    return _Wanted(tenant, both, statuses, {name: value for name, _, value in pairs})


def _wrong(name: str, message: str) -> ApiError:
    return ApiError(422, "VALIDATION_ERROR", f"{name}: {message}", [Detail(name, "bad_value", message)])


def _again(request: Asked, cursor: str) -> str:
    """The path of this request with another cursor."""
    query_params: dict[str, Any] = {**request.query_params.dict(), "cursor": [cursor]}
    return f"{request.scope['path']}?{urlencode(query_params, doseq=True)}"


ROUTES = [list_jobs]
