"""Answering questions from a state and its history."""

from __future__ import annotations

from difflib import get_close_matches

from eventsched.errors import Ambiguous, NotFound
from eventsched.ids import job_key, split_member
from eventsched.projections.cluster.arrays import member_key
from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.projections.history import History
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.forecast import forecast
from eventsched.projections.scheduling.usage import Usage
from eventsched.projections.scheduling.waiting import Why, why_waiting
from eventsched.projections.views.present import job_view, unreached_member
from eventsched.query import PAGE_MAX, GetRequest, ListRequest
from eventsched.views import JobList, JobView

NEAR_MAX = 5
JobViews = list[JobView]
_NEVER = 2**62


class Queries:
    """Reads over one replica. `now_ms` of a call is the log's clock as this replica sees it."""

    def __init__(self, state: ClusterState, history: History | None) -> None:
        self._state = state
        self._history = history
        self._caches: tuple[Fleet, Usage] | None = None
        self._caches_seq = -1
        self._foreseen: tuple[int, dict[str, Why]] | None = None

    def view(self, job: Job, now_ms: int) -> JobView:
        """A live job, with the reason it waits for now."""
        view = job_view(self._state, job)
        why = why_waiting(self._state, *self._current(), job, now_ms, lambda: self._forecast(now_ms))
        if why is not None and (job.array is None or view.members.get("pending")):
            view.reason, view.detail = why
        return view

    def _current(self) -> tuple[Fleet, Usage]:
        if self._caches is None or self._caches_seq != self._state.seq:
            self._caches = Fleet(self._state), Usage(self._state)
            self._caches_seq = self._state.seq
        return self._caches

    def _forecast(self, now_ms: int) -> dict[str, Why]:
        if self._foreseen is None or self._foreseen[0] != self._state.seq:
            self._foreseen = self._state.seq, forecast(self._state, now_ms)
        return self._foreseen[1]

    # ---- one job ------------------------------------------------------------------------------

    def get(self, request: GetRequest, now_ms: int) -> JobView:
        """One job by id or by the beginning of its id. Raises NotFound (with near matches), Ambiguous."""
        found = self._exactly(request.job_id, request.tenant, now_ms)
        if not found:
            base, member = split_member(request.job_id) or (request.job_id, -1)
            for tenant, job_id in self._starting(base, request.tenant)[:2]:
                found += self._exactly(job_id if member < 0 else f"{job_id}.{member}", tenant, now_ms)
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFound(f"no job {request.job_id!r}", self._near(request.job_id, request.tenant))
        names = ", ".join(f"{view.tenant}/{view.job_id}" for view in found[:NEAR_MAX])
        raise Ambiguous(f"{request.job_id!r} fits several jobs: {names}", "give more of the id, or --tenant")

    def _exactly(self, job_id: str, tenant: str, now_ms: int) -> list[JobView]:
        state = self._state
        member = split_member(job_id)
        tenants = [tenant] if tenant else self._tenants_with(member[0] if member else job_id)
        found: dict[str, JobView] = {}
        for owner in tenants:
            job = state.jobs.get(job_key(owner, job_id))
            if job is not None:
                found[owner] = self.view(job, now_ms)
            elif member is not None:
                parent = state.jobs.get(job_key(owner, member[0]))
                view = unreached_member(state, parent, member[1]) if parent is not None else None
                if view is not None:
                    found[owner] = view
        if self._history is not None:
            for view in self._history.find(job_id, tenant):
                found.setdefault(view.tenant, view)
        return list(found.values())

    def _tenants_with(self, job_id: str) -> list[str]:
        ending = "/" + job_id
        return [key[: -len(ending)] for key in self._state.jobs if key.endswith(ending)]

    def _starting(self, prefix: str, tenant: str) -> list[tuple[str, str]]:
        found: dict[tuple[str, str], None] = {}
        for key, job in self._state.jobs.items():
            owner, _, job_id = key.partition("/")
            if job_id.startswith(prefix) and job.member < 0 and tenant in ("", owner):
                found[owner, job_id] = None
        if self._history is not None:
            found.update(dict.fromkeys(self._history.ids_starting(prefix, tenant)))
        return list(found)

    def _near(self, job_id: str, tenant: str) -> str:
        ids = {job.job_id: None for job in self._state.jobs.values() if job.member < 0 and tenant in ("", job.tenant)}
        if self._history is not None and job_id:
            ids.update({known: None for _, known in self._history.ids_starting(job_id[:2], tenant, 1000)})
        near = get_close_matches(job_id, list(ids)[-5000:], n=NEAR_MAX, cutoff=0.6)
        return f"did you mean {', '.join(near)}?" if near else "`eventsched jobs --all` lists all jobs"

    # ---- many jobs ----------------------------------------------------------------------------

    def list(self, request: ListRequest, now_ms: int) -> JobList:
        """A page of jobs, newest first; members of arrays only when their array is asked for."""
        limit = max(1, min(request.limit, PAGE_MAX))
        if request.array:
            return self._list_members(request, limit, now_ms)
        before = int(request.cursor) if request.cursor.isdigit() else _NEVER
        views: JobViews = self._live(request, before, now_ms)
        if self._history is not None and request.since_ms >= 0:
            views += self._history.page(
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

    def _live(self, request: ListRequest, before: int, now_ms: int) -> JobViews:
        wanted = [
            job
            for job in self._state.jobs.values()
            if job.state not in TERMINAL
            and job.member < 0
            and job.seq < before
            and request.tenant in ("", job.tenant)
            and (not request.states or job.state in request.states)
            and self._on_node(job, request.node)
        ]
        wanted.sort(key=lambda job: -job.seq)
        return [self.view(job, now_ms) for job in wanted[: max(1, min(request.limit, PAGE_MAX))]]

    def _on_node(self, job: Job, node: str) -> bool:
        if not node or job.node == node:
            return True
        return job.array is not None and any(
            self._state.jobs[member_key(job, index)].node == node for index in job.array.live
        )

    def _list_members(self, request: ListRequest, limit: int, now_ms: int) -> JobList:
        parent = self._state.jobs.get(request.array)
        found: dict[int, JobView] = {}
        tenant, _, job_id = request.array.partition("/")
        known = [job_view(self._state, parent)] if parent is not None else []
        if not known and self._history is not None:
            known = self._history.find(job_id, tenant)
        if not known:
            raise NotFound(f"no array {job_id!r}", self._near(job_id, tenant))
        if self._history is not None:
            found.update(self._history.members(request.array, known[0].seq))
        if parent is not None and parent.array is not None:
            for index in range(parent.spec.array):
                member = self._state.jobs.get(member_key(parent, index))
                view = self.view(member, now_ms) if member else unreached_member(self._state, parent, index)
                if view is not None:
                    found[index] = view
        start = int(request.cursor) if request.cursor.isdigit() else 0
        indexes = [index for index in sorted(found) if index >= start and self._fits(found[index], request)]
        cursor = str(indexes[limit]) if len(indexes) > limit else ""
        return JobList(jobs=[found[index] for index in indexes[:limit]], cursor=cursor, seq=self._state.seq)

    def _fits(self, view: JobView, request: ListRequest) -> bool:
        return (not request.states or view.state in request.states) and request.node in ("", view.node)
