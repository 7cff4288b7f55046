"""Admission: judging submissions, once each, in the order they were recorded."""

from __future__ import annotations

from eventsched.events import Admitted, Rejection
from eventsched.ids import job_key
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.scheduling.planner import Planner
from eventsched.reasons import explain_reason
from eventsched.spec import JobSpec

JUDGED_MAX = 5_000
REJECTED_MAX = 200
_REMEDIES = {
    "undecodable": 'send a JSON object such as {"image":"busybox","command":["echo","hi"]}',
    "too_large": "at most 256 KiB; put data into files or an image",
    "too_deep": "at most 32 levels",
    "unknown_field": "see the event catalogue for the fields of a job",
    "wrong_type": "see the event catalogue for its type",
    "bad_value": "see the event catalogue for the values it may take",
    "out_of_range": "integers lie between -2^53 and 2^53",
    "missing_field": "add it",
}


def judge(state: ClusterState, planner: Planner) -> tuple[Admitted | None, list[str]]:
    """The verdict on what is unjudged (unstamped), and the keys of those accepted.

    Only a prefix is judged when there are very many: the rest follows in the next round.
    """
    if not state.unjudged:
        return None, []
    verdicts = _Verdicts(state, planner)
    accepted: list[str] = []
    rejected: list[Rejection] = []
    upto = 0
    for seq, key in state.unjudged.items():
        if len(accepted) + len(rejected) >= JUDGED_MAX or len(rejected) >= REJECTED_MAX:
            break
        rejection = verdicts.of(key)
        upto = seq
        if rejection is None:
            accepted.append(key)
        else:
            rejected.append(_short(rejection))
    return Admitted(epoch=state.epoch, upto=upto, rejected=tuple(rejected)), accepted


def _short(rejection: Rejection) -> Rejection:
    """Texts may quote what was submitted, and verdicts must stay small."""
    return Rejection(rejection.seq, rejection.code, rejection.path[:200], rejection.detail[:500])


class _Verdicts:
    """Verdicts by key; a job that depends on other unjudged ones is judged after them."""

    def __init__(self, state: ClusterState, planner: Planner) -> None:
        self._state = state
        self._planner = planner
        self._done: dict[str, Rejection | None] = {}

    def of(self, key: str) -> Rejection | None:
        """None = accepted. Walks parents depth first, without recursion: chains may be long."""
        job = self._state.jobs[key]
        if not job.spec.after_ok and not job.spec.after_any:
            return self._judge(job)
        path: list[str] = [key]
        places: dict[str, int] = {key: 0}
        while path:
            current = path[-1]
            if current in self._done:
                del places[path.pop()]
                continue
            job = self._state.jobs[current]
            parent = self._unjudged_parent(job)
            if parent is None:
                self._done[current] = self._judge(job)
            elif parent in places:
                self._reject_cycle(path[places[parent] :])
            else:
                places[parent] = len(path)
                path.append(parent)
        return self._done[key]

    def _unjudged_parent(self, job: Job) -> str | None:
        for parent in _parents(job):
            if parent not in self._done:
                other = self._state.jobs.get(parent)
                if other is not None and not other.admitted and other.state == "pending":
                    return parent
        return None

    def _reject_cycle(self, cycle: list[str]) -> None:
        names = [self._state.jobs[key].job_id for key in cycle]
        text = " -> ".join([*names[:20], names[0]])
        for key in cycle:
            job = self._state.jobs[key]
            self._done[key] = Rejection(job.seq, "dependency_cycle", _parent_field(job.spec), text)

    def _judge(self, job: Job) -> Rejection | None:
        if job.fault is not None:
            code, path = job.fault
            text = f"{explain_reason(code)}; {_REMEDIES.get(code, 'correct it and submit again')}"
            return Rejection(job.seq, code, path, text)
        found = self._planner.faults.get(job.key)
        if found:
            first = found[0]
            more = "".join(f"; {problem}" for problem in found[1:4])
            return Rejection(job.seq, first.code, first.field, first.detail + more)
        for parent in _parents(job):
            other = self._state.jobs.get(parent)
            name = parent.partition("/")[2]
            if other is None:
                text = f"no job {name!r} in this tenant (submit parents first; long finished jobs are forgotten)"
                return Rejection(job.seq, "missing_parent", _parent_field(job.spec), text)
            if other.state == "rejected" or self._done.get(parent) is not None:
                return Rejection(job.seq, "missing_parent", _parent_field(job.spec), f"job {name!r} was rejected")
        return None


def _parents(job: Job) -> list[str]:
    spec = job.spec
    if not spec.after_ok and not spec.after_any:
        return []
    return [job_key(job.tenant, parent) for parent in (*spec.after_ok, *spec.after_any)]


def _parent_field(spec: JobSpec) -> str:
    return "after_ok" if spec.after_ok else "after_any"
