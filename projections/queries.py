"""Answering questions from a state and its history.

Answers are given between two folds, so what they cost delays everything else of a scheduler: a
question about one job, or for a page, must not search the whole state or the whole history.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice

from eventsched.errors import Ambiguous, EventschedError, NotFound
from eventsched.ids import job_key, member_id, split_member
from eventsched.projections.cluster.arrays import member_key
from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.projections.history import History
from eventsched.projections.memo import Memo
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.forecast import forecast
from eventsched.projections.scheduling.needs import group_of
from eventsched.projections.scheduling.usage import Usage
from eventsched.projections.scheduling.waiting import Why, why_waiting
from eventsched.projections.views.members import PENDING, fate_of_range, range_end, view_of_range
from eventsched.projections.views.present import job_view
from eventsched.query import PAGE_MAX, GetRequest, ListRequest
from eventsched.views import JobList, JobView

NEAR_MAX = 5
NEAR_AMONG = 500
FITTING_MAX = 50
JobViews = list[JobView]
Members = Iterator[tuple[int, JobView]]
_NEVER = 2**62


class Queries:
    """Reads over one replica. `now_ms` of a call is the log's clock as this replica sees it.

    history: None = none is kept: then only what the state still holds is known.
    """

    def __init__(self, state: ClusterState, history: History | None) -> None:
        self._state = state
        self.history = history
        self._cluster: Memo[tuple[Fleet, Usage]] = Memo()
        self._tenants: dict[str, None] = {}
        self._tenants_upto: Job | None = None
        self._foreseen: Memo[dict[str, Why]] = Memo()

    def view(self, job: Job, now_ms: int) -> JobView:
        """A job of the state, with the reason it waits for now."""
        view = job_view(self._state, job)
        waits = view.members.get("pending") if job.array is not None else job.state == "pending"
        if waits:
            why = self._why(job, now_ms)
            if why is not None:
                view.reason, view.detail = why
        return view

    def _why(self, job: Job, now_ms: int) -> Why | None:
        state = self._state
        fleet, usage = self._cluster.get(state.seq, lambda: (Fleet(state, groups=False), Usage(state).counted()))
        if group_of(job):
            fleet.watch_groups(state)
        return why_waiting(
            state, fleet, usage, job, now_ms, lambda: self._foreseen.get(state.seq, lambda: forecast(state, now_ms))
        )

    # ---- one job ------------------------------------------------------------------------------

    def of_all_tenants(self, job_id: str, now_ms: int) -> JobViews:
        """The jobs of the state that have this very id."""
        jobs = (self._state.jobs.get(job_key(owner, job_id)) for owner in self._tenants_now())
        return [self.view(job, now_ms) for job in jobs if job is not None]

    def get(self, request: GetRequest, now_ms: int) -> JobView:
        """One job by id or by the beginning of its id. Raises NotFound (with near matches), Ambiguous."""
        found = self._exactly(request.job_id, request.tenant, now_ms)
        if not found and request.exact:
            raise NotFound(f"no job {request.job_id[:80]!r}")
        if not found and request.prefer:
            found = self._by_beginning(request.job_id, request.prefer, now_ms)
        if not found:
            found = self._by_beginning(request.job_id, request.tenant, now_ms)
        found = [view for view in found if view.tenant == request.prefer] or found
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFound(f"no job {request.job_id!r}", self._near(request.job_id, request.tenant))
        raise _ambiguous(request.job_id, [f"{view.tenant}/{view.job_id}" for view in found])

    def _by_beginning(self, beginning: str, tenant: str, now_ms: int) -> JobViews:
        base, index = split_member(beginning) or (beginning, -1)
        fitting = self._starting(base, tenant)
        if index >= 0:
            found = [self._exactly(member_id(job_id, index), owner, now_ms) for owner, job_id in fitting]
            return [view for views in found for view in views]
        if len(fitting) > 1:
            raise _ambiguous(beginning, [job_key(*names) for names in fitting])
        return [view for owner, job_id in fitting for view in self._exactly(job_id, owner, now_ms)]

    def _exactly(self, job_id: str, tenant: str, now_ms: int) -> JobViews:
        """The newest job of this id of each tenant."""
        found: dict[str, JobView] = {}
        member = split_member(job_id)
        for owner in [tenant] if tenant else self._tenants_now():
            job = self._state.jobs.get(job_key(owner, job_id))
            if job is not None:
                found[owner] = self.view(job, now_ms)
        arrays = {job.tenant: job for job in (self._jobs(member[0], tenant) if member is not None else ())}
        for owner, parent in arrays.items():
            view = None if member is None or owner in found else self._member(parent, member[1], now_ms)
            if view is not None:
                found[owner] = view
        if self.history is not None:
            for ended in self.history.find(job_id, tenant):
                if ended.tenant not in arrays:  # a member of the newest array of that name, or of none
                    found.setdefault(ended.tenant, ended)
        return list(found.values())

    def _jobs(self, job_id: str, tenant: str) -> list[Job]:
        """The newest job of this id of each tenant, from the state or the history."""
        found = {job.tenant: job for job in (self.history.jobs(job_id, tenant) if self.history is not None else ())}
        for owner in [tenant] if tenant else self._tenants_now():
            job = self._state.jobs.get(job_key(owner, job_id))
            if job is not None:
                found[owner] = job
        return list(found.values())

    def _member(self, parent: Job, index: int, now_ms: int) -> JobView | None:
        """A member that is not, or no longer, a job in the state."""
        known: dict[str, int] = {}
        if self.history is not None and parent.array is not None:
            ended = self.history.member(parent.key, parent.seq, index)
            if ended is not None:
                return ended
            known = self.history.member_counts(parent.key, parent.seq)
        state = fate_of_range(parent, index, known)
        return view_of_range(self.view(parent, now_ms), parent, index, state) if state else None

    def _tenants_now(self) -> list[str]:
        """Every tenant that has jobs in the state. New jobs come last there: only they are looked at."""
        newest = None
        for job in reversed(self._state.jobs.values()):
            if job is self._tenants_upto:
                break
            newest = newest or job
            self._tenants[job.tenant] = None
        self._tenants_upto = newest or self._tenants_upto
        return list(self._tenants)

    def _starting(self, prefix: str, tenant: str) -> list[tuple[str, str]]:
        """(tenant, job id) of jobs whose id begins with `prefix`, at most FITTING_MAX."""
        beginning = f"{tenant}/{prefix}"
        keys = (key for key in self._state.jobs if beginning in key and "." not in key)
        fitting = (key for key in keys if not tenant or key.startswith(beginning))
        found = {tuple(key.split("/")): None for key in islice(fitting, FITTING_MAX)}
        if self.history is not None:
            found.update(dict.fromkeys(self.history.ids_starting(prefix, tenant, FITTING_MAX)))
        return [(owner, job_id) for owner, job_id in islice(found, FITTING_MAX)]

    def _near(self, job_id: str, tenant: str) -> str:
        newest = (job for job in reversed(self._state.jobs.values()) if job.member < 0 and tenant in ("", job.tenant))
        ids = {job.job_id: None for job in islice(newest, NEAR_AMONG)}
        if self.history is not None and job_id:
            ids.update({known: None for _, known in self.history.ids_starting(job_id[:2], tenant, NEAR_AMONG)})
        near = get_close_matches(job_id[:100], list(ids), n=NEAR_MAX, cutoff=0.6)
        return f"did you mean {', '.join(near)}?" if near else "`eventsched jobs --all` lists all jobs"

    # ---- many jobs ----------------------------------------------------------------------------

    def list(self, request: ListRequest, now_ms: int) -> JobList:
        """A page of jobs, newest first; members of arrays only when their array is asked for."""
        limit = max(1, min(request.limit, PAGE_MAX))
        if request.array:
            return self._list_members(request, limit, now_ms)
        before = _cursor(request, _NEVER)
        views: JobViews = self._in_state(request, before, limit, now_ms)
        if self.history is not None and request.since_ms >= 0:
            views += self.history.page(
                before_seq=before,
                tenant=request.tenant,
                states=request.states,
                node=request.node,
                since_ms=request.since_ms,
                limit=limit,
            )
        views.sort(key=lambda view: -view.seq)
        cursor = str(views[limit - 1].seq) if len(views) >= limit else ""
        return JobList(jobs=views[:limit], cursor=cursor, seq=self._state.seq)

    def _in_state(self, request: ListRequest, before: int, limit: int, now_ms: int) -> JobViews:
        """Jobs that have not ended, newest first, as they stand last in the state; without a history also
        those that have."""
        wanted = (
            job
            for job in reversed(self._state.jobs.values())
            if job.member < 0
            and job.seq < before
            and (job.state not in TERMINAL or (self.history is None and 0 <= request.since_ms <= job.finished_ms))
            and request.tenant in ("", job.tenant)
            and (not request.states or job.state in request.states)
            and (not request.labels or request.labels.items() <= job.spec.labels.items())
            and self._on_node(job, request.node)
        )
        return [self.view(job, now_ms) for job in islice(wanted, limit)]

    def _on_node(self, job: Job, node: str) -> bool:
        if not node or job.node == node:
            return True
        return job.array is not None and any(
            self._state.jobs[member_key(job, index)].node == node for index in job.array.live
        )

    # ---- members of an array ------------------------------------------------------------------

    def _list_members(self, request: ListRequest, limit: int, now_ms: int) -> JobList:
        tenant, _, job_id = request.array.partition("/")
        parents = self._jobs(job_id, tenant) if tenant and job_id else []
        if not parents:
            raise NotFound(f"no array {job_id!r}", self._near(job_id, tenant))
        (parent,) = parents
        start = _cursor(request, 0)
        sources = () if parent.array is None else self._members(parent, request, start, now_ms)
        found = list(islice(heapq.merge(*sources, key=lambda one: one[0]), limit + 1))
        cursor = str(found[limit][0]) if len(found) > limit else ""
        return JobList(jobs=[view for _, view in found[:limit]], cursor=cursor, seq=self._state.seq)

    def _members(self, parent: Job, request: ListRequest, start: int, now_ms: int) -> tuple[Members, ...]:
        """Members from index `start` on that are asked for, each source in order of index: those that
        ended, those that have not, and the ranges that wait or ended with the array."""
        array = parent.array
        assert array is not None
        live = [index for index in sorted(array.live) if index >= start]
        if self.history is not None:
            known = self.history.member_counts(parent.key, parent.seq)
            ended = self.history.members(parent.key, parent.seq, start, request.states, request.node)
            taken = heapq.merge(self.history.member_indexes(parent.key, parent.seq, start), live)
        else:
            jobs = [(index, self._state.jobs.get(member_key(parent, index))) for index in range(start, array.next)]
            done = [(index, job) for index, job in jobs if job is not None and job.state in TERMINAL]
            known = {}
            ended = ((index, self.view(job, now_ms)) for index, job in done if _fits(job, request))
            taken = heapq.merge((index for index, _ in done), live)
        waiting = (index for index in range(max(start, array.next), parent.spec.array) if index not in array.taken)
        gone = range_end(parent, known)
        gaps = _gaps(taken, start, array.next) if gone else iter(())
        jobs_live = ((index, self._state.jobs[member_key(parent, index)]) for index in live)
        return (
            ended,
            ((index, self.view(job, now_ms)) for index, job in jobs_live if _fits(job, request)),
            self._range(parent, waiting, PENDING, request, now_ms),
            self._range(parent, gaps, gone, request, now_ms),
        )

    def _range(self, parent: Job, indexes: Iterator[int], state: str, request: ListRequest, now_ms: int) -> Members:
        """Views of members that are no jobs of their own; they have no node."""
        if request.node or (request.states and state not in request.states):
            return iter(())
        view = self.view(parent, now_ms)
        return ((index, view_of_range(view, parent, index, state)) for index in indexes)


def cut(page: JobList, request: ListRequest, count: int) -> JobList:
    """The first jobs of a page (not all of them), with the cursor that leads to the others."""
    kept, following = page.jobs[:count], page.jobs[count]
    member = split_member(following.job_id)
    at = kept[-1].seq if not request.array or member is None else member[1]
    return JobList(jobs=kept, cursor=str(at), seq=page.seq)


def _gaps(taken: Iterator[int], start: int, end: int) -> Iterator[int]:
    """The indexes of a range that are not among those in `taken`, which come in order."""
    at = start
    for index in taken:
        yield from range(at, min(index, end))
        at = max(at, index + 1)
    yield from range(at, end)


def _fits(job: Job, request: ListRequest) -> bool:
    return (not request.states or job.state in request.states) and request.node in ("", job.node)


def _cursor(request: ListRequest, default: int) -> int:
    text = request.cursor
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise EventschedError(
            f"cursor {text[:40]!r} is none of ours", "use the cursor of the page before, or none for the first page"
        )
    return int(text)


def _ambiguous(job_id: str, names: list[str]) -> Ambiguous:
    shown = ", ".join(sorted(names)[:NEAR_MAX])
    more = len(names) - NEAR_MAX
    if more > 0:
        shown += f" and {'at least ' if len(names) >= FITTING_MAX else ''}{more} more"
    return Ambiguous(f"{job_id!r} fits several jobs: {shown}", "give more of the id, or --tenant")
