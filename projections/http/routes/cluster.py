"""The cluster: its numbers, its nodes as executors, and a tick of scheduling."""

from __future__ import annotations

from typing import Annotated, Any

from litestar.params import QueryParameter

from eventsched import query
from eventsched.projections.http.bodies import Answer, answer, encode, reads, writes
from eventsched.projections.http.desk import Asked, come_in
from eventsched.projections.http.routes.jobs import MinSeq
from eventsched.projections.http.shapes import executor_body, stats_body
from eventsched.projections.http.ticks import NOW_MAX, Tick, tick
from eventsched.views import NodeView, Stats

TAGS = ["cluster"]
NodeViews = list[NodeView]


@reads("/stats", summary="The cluster in numbers", tags=TAGS)
async def stats(request: Asked, min_seq: MinSeq = 0) -> Answer:
    """Ours, and the counts the earlier systems gave. `reason` is `no_nodes` when nothing can take work."""
    desk, caller = come_in(request)
    asked = query.StatsRequest(max(min_seq, desk.intake.written))
    found: Stats = await desk.ask(query.STATS, asked, Stats)
    if not caller.may("operator"):
        found.recent_anomalies = []  # they name other tenants' jobs
    return answer(encode(stats_body(found)), seq=found.seq)


@reads("/executors", list[dict[str, Any]], summary="Nodes, as executors", tags=TAGS)
async def executors(request: Asked, min_seq: MinSeq = 0) -> Answer:
    """Each node with what it has, what is free, and what its heartbeat says of the machine."""
    desk, caller = come_in(request)
    asked = query.NodesRequest("", max(min_seq, desk.intake.written))
    found: NodeViews = await desk.ask(query.NODES, asked, NodeViews)
    return answer(encode([executor_body(view, caller) for view in found]), seq=desk.follower.state.seq)


@writes("/schedule", Tick, summary="One tick of scheduling", tags=TAGS)
async def schedule(
    request: Asked,
    now: Annotated[
        int | None, QueryParameter(ge=0, le=NOW_MAX, description="the tick's time in seconds, with a manual clock")
    ] = None,
) -> Answer:
    """Answers when the runs it assigned are running. On a wall clock it waits for the next round."""
    desk, caller = come_in(request)
    caller.require("operator")
    done = await tick(desk, now)
    return answer(encode(done), seq=done.seq)


ROUTES = [stats, executors, schedule]
