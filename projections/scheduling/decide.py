"""decide: what the leader proposes, as a pure function of the state and a time.

No clock, no I/O, no memory across rounds (a planner is a cache of the state), no randomness.
The same state, time and policy give the same bytes, on any replica, at any time. Budgets are
counted in messages and evaluations, never in seconds; a unit is never split over rounds.
Folding the output equals the working state it was decided on.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

from eventsched import codec, subjects
from eventsched.events import (
    Admitted,
    Concluded,
    Conclusion,
    FinishOrdered,
    PolicyJudged,
    RunAssigned,
    SessionOpened,
    SessionRefused,
    StopOrdered,
    Ticked,
)
from eventsched.projections.cluster.arrays import member_key
from eventsched.projections.cluster.outstanding import outstanding
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.scheduling.admission import judge
from eventsched.projections.scheduling.choosing import Placement
from eventsched.projections.scheduling.gang import ROUND_BYTES_MAX
from eventsched.projections.scheduling.placing import place
from eventsched.projections.scheduling.planner import Planner, may_be_stopped
from eventsched.projections.scheduling.policies import POLICIES, complete, params_hash, refuse, written_out
from eventsched.projections.scheduling.preempting import REASON, Eviction
from eventsched.projections.scheduling.reclaiming import Reclaim
from eventsched.wire import Decision

ROUND_MAX = 1_000
"""Messages in a round: the broker's limit for an atomic batch."""
CONCLUDED_MAX = 500


class Proposed(Struct, frozen=True):
    """One message of a round, ready to be published."""

    subject: str
    event: Decision


class _Round:
    """Messages collected so far; stamped at the end, when their number is known."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.full = False
        self.messages: list[tuple[str, type[Decision], dict[str, Any]]] = []

    @property
    def room(self) -> int:
        return self.limit - len(self.messages) if self.size < ROUND_BYTES_MAX and not self.full else 0

    def fits(self, count: int, size: int) -> bool:
        """Whether so many messages of such a size can be added together; if not, the round is closed."""
        self.full |= count > self.limit - len(self.messages) or self.size + count * size > ROUND_BYTES_MAX
        return not self.full

    def add(self, subject: str, kind: type[Decision], **fields: Any) -> None:
        self.messages.append((subject, kind, fields))


def decide(
    state: ClusterState,
    now_ms: int,
    planner: Planner | None = None,
    limit: int = ROUND_MAX,
) -> list[Proposed]:
    """One round: at most `limit` messages, [] when there is nothing to do.

    planner: saves building one; it must have been made from (or synced with) this very state.
    With a manual clock, jobs are placed only after it was set, until no more fit.
    """
    if planner is None:
        planner = Planner(state)
    else:
        planner.sync(state)
    planner.wake(state, now_ms)
    round_ = _Round(limit)
    _answer_joins(state, round_)
    _judge_policies(state, round_)
    _order_stops(state, planner, now_ms, round_)
    verdict, accepted = judge(state, planner)
    ending = _conclude(state, planner, now_ms, round_)
    _admit_and_assign(state, planner, now_ms, round_, verdict, accepted, ending)
    return stamp(state, now_ms, round_.messages)


def stamp(
    state: ClusterState, now_ms: int, messages: list[tuple[str, type[Decision], dict[str, Any]]]
) -> list[Proposed]:
    """Give the messages of a round their place in it; the first says what it was decided on."""
    number, count = state.rounds + 1, len(messages)
    basis: dict[str, Any] = {
        "basis": state.seq,
        "now_ms": now_ms,
        "policy": f"{state.policy.name}/{state.policy.version}",
        "params": params_hash(state.policy),
    }
    proposed = []
    for index, (subject, kind, fields) in enumerate(messages):
        event = kind(epoch=state.epoch, round=number, index=index, count=count, **fields, **basis)
        proposed.append(Proposed(subject, event))
        basis = {}
    return proposed


def _answer_joins(state: ClusterState, round_: _Round) -> None:
    for node_id in state.answers_owed:
        if not round_.room:
            return
        node = state.nodes[node_id]
        round_.add(
            subjects.assign(node_id),
            SessionOpened,
            session=node.session,
            runs=tuple(sorted(node.runs)),
            owed=outstanding(state, node_id),
        )
    for seq, refusal in state.refusals.items():
        if not round_.room:
            return
        round_.add(
            subjects.assign(refusal.node),
            SessionRefused,
            session=seq,
            reason=refusal.reason,
            detail=refusal.detail[:300],
        )


def _judge_policies(state: ClusterState, round_: _Round) -> None:
    subject = subjects.decide("policy_judged")
    for seq, asked in state.policy_requests.items():
        if not round_.room:
            return
        choice = written_out(asked)
        why = refuse(choice)
        policy = None if why else POLICIES[choice.name]
        round_.add(
            subject,
            PolicyJudged,
            request=seq,
            name=choice.name[:64],
            version=policy.version if policy else 0,
            chosen=complete(policy, choice.params) if policy else {},
            refused=why,
        )


def _order_stops(state: ClusterState, planner: Planner, now_ms: int, round_: _Round) -> None:
    for seq in state.stops_owed:
        if not round_.room:
            return
        run = state.runs[seq]
        round_.add(subjects.assign(run.node), StopOrdered, run=seq, reason=run.stop_owed)
    for seq, exit_code in state.finishes_owed.items():
        if not round_.room:
            return
        round_.add(subjects.assign(state.runs[seq].node), FinishOrdered, run=seq, exit_code=exit_code)
    for name in sorted(planner.draining):
        node = state.nodes[name]
        if not node.drain_at_ms or node.drain_at_ms > now_ms:
            continue
        for seq in node.runs:
            run = state.runs[seq]
            if not round_.room:
                return
            if may_be_stopped(run):
                round_.add(subjects.assign(name), StopOrdered, run=seq, reason="drained")


def _conclude(state: ClusterState, planner: Planner, now_ms: int, round_: _Round) -> dict[str, None]:
    """End what can never start and what has waited too long; the keys that end."""
    ending: dict[str, None] = {}
    conclusions: list[Conclusion] = []
    for key in state.doomed:
        if len(conclusions) == CONCLUDED_MAX:
            break
        job = state.jobs[key]
        text = f"job {job.doomed_by!r} did not succeed"
        conclusions.append(_conclusion(job, "aborted", "dependency_failed", text))
        ending[key] = None
    for job in planner.expired(state, now_ms, CONCLUDED_MAX - len(conclusions)):
        if job.key in ending or not job.admitted:
            continue
        text = f"waited longer than {job.spec.queue_timeout_ms} ms"
        reason = "gang_timeout" if job.spec.gang else "queue_timeout"
        conclusions.append(_conclusion(job, "expired", reason, text))
        ending[job.key] = None
    if conclusions and round_.room:
        round_.add(subjects.decide("concluded"), Concluded, jobs=tuple(conclusions))
    return ending


def _conclusion(job: Job, final: str, reason: str, detail: str) -> Conclusion:
    job_id = job.job_id
    if job.member >= 0:
        job_id = job_id.rpartition(".")[0]
    return Conclusion(job.tenant, job_id, job.member, final, reason, detail)  # type: ignore[arg-type]


def _admit_and_assign(
    state: ClusterState,
    planner: Planner,
    now_ms: int,
    round_: _Round,
    verdict: Admitted | None,
    accepted: list[str],
    ending: dict[str, None],
) -> None:
    """Place what fits. An assign accepts its job, so the verdict is left out when it would add nothing."""
    if verdict is not None and not round_.room:
        return
    slot = len(round_.messages)
    if verdict is not None:
        round_.add(subjects.decide("admitted"), Admitted, upto=verdict.upto, rejected=verdict.rejected)
    implied = 0
    if round_.room and (state.tick or state.clock_mode != "manual"):
        implied = _place(state, planner, now_ms, round_, ending)
        if state.tick and round_.room:
            round_.add(subjects.decide("ticked"), Ticked, clock=state.tick)
    if verdict is not None and not verdict.rejected and implied == len(accepted):
        del round_.messages[slot]


def _place(state: ClusterState, planner: Planner, now_ms: int, round_: _Round, ending: dict[str, None]) -> int:
    """Assigns and evictions, as many as the round holds; how many of the jobs were not accepted yet."""
    implied: dict[str, None] = {}
    encoded: dict[int, bytes] = {}

    def spec_of(job: Job) -> bytes:
        if job.seq not in encoded:
            encoded[job.seq] = codec.encode(job.spec)
        return encoded[job.seq]

    def fits(job: Job, count: int) -> bool:
        return round_.fits(count, len(spec_of(job)))

    for unit in place(state, planner, now_ms, ending, fits):
        if isinstance(unit, Eviction):
            _add_evictions(round_, unit)
        elif isinstance(unit, Reclaim):
            _add_reclaims(round_, unit)
        else:
            for placement in unit:
                if not placement.job.admitted:
                    implied[placement.job.key] = None
                head = unit[0].node if placement.job.spec.gang else ""
                _add_assign(state, round_, placement, spec_of(placement.job), head)
        if not round_.room:
            break
    return len(implied)


def _add_reclaims(round_: _Round, reclaim: Reclaim) -> None:
    for run in reclaim.runs:
        fields = {"run": run.seq, "reason": REASON, "detail": reclaim.detail}
        round_.add(subjects.assign(run.node), StopOrdered, **fields)


def _add_evictions(round_: _Round, eviction: Eviction) -> None:
    for victim in eviction.victims:
        round_.add(
            subjects.assign(eviction.node),
            StopOrdered,
            run=victim.run,
            reason=REASON,
            detail=eviction.detail,
            in_favour_of=eviction.job.key,
        )


def _attempt(state: ClusterState, placement: Placement) -> int:
    job = placement.job
    if placement.member != job.member:
        member = state.jobs.get(member_key(job, placement.member))
        return 1 if member is None else member.attempt + 1
    return job.attempt + 1


def _add_assign(state: ClusterState, round_: _Round, placement: Placement, spec: bytes, gang_head: str) -> None:
    job, need = placement.job, placement.need
    job_id = job.job_id
    if job.member >= 0:
        job_id = job_id.rpartition(".")[0]
    round_.size += len(spec)
    round_.add(
        subjects.assign(placement.node),
        RunAssigned,
        session=state.nodes[placement.node].session,
        tenant=job.tenant,
        job=job_id,
        member=placement.member,
        attempt=_attempt(state, placement),
        cpu_millis=need.cpu_millis,
        memory_bytes=need.memory_bytes,
        gpus=placement.gpus,
        gpu_millis=need.gpu_millis,
        gang_head=gang_head,
        score=placement.score,
        terms=placement.terms,
        runner_up=placement.runner_up,
        runner_up_score=placement.runner_up_score,
        feasible=placement.feasible,
        spec=Raw(spec),
    )
