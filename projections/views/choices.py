"""Why a node was chosen: the assign as it stands in the log, and the round it belongs to."""

from __future__ import annotations

from eventsched import codec
from eventsched.events import RunAssigned
from eventsched.explanation import Choice
from eventsched.log.jetstream import JetStreamLog
from eventsched.projections.scheduling.policies import POLICIES
from eventsched.views import JobView
from eventsched.wire import Decision


async def choice_of(log: JetStreamLog, view: JobView) -> Choice | None:
    """The decision that gave a job its last run; None when the log does not hold it."""
    entry = await log.at(view.run)
    event = codec.decode(entry.subject, entry.payload) if entry is not None else None
    if entry is None or not isinstance(event, RunAssigned):
        return None
    first: object = event
    if event.index:  # only a round's first message says what it was decided on
        head = await log.at(view.run - event.index)
        first = codec.decode(head.subject, head.payload) if head is not None else event
    basis = first if isinstance(first, Decision) else event
    return Choice(
        seq=view.run,
        node=entry.subject.rpartition(".")[2],
        attempt=event.attempt,
        policy=basis.policy,
        round=event.round,
        basis=basis.basis,
        decided_ms=basis.now_ms,
        score=event.score,
        feasible=event.feasible,
        runner_up=event.runner_up,
        runner_up_score=event.runner_up_score,
        ties=POLICIES[name].ties if (name := basis.policy.partition("/")[0]) in POLICIES else "",
        terms=dict(event.terms),
        gpus=list(event.gpus),
    )
