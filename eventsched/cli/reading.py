"""Verbs that read: jobs, job, logs, nodes, node, events, stats."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
from cyclopts import Parameter

from eventsched.cli import tables
from eventsched.cli.common import BIG, Output, Where, connected, now_ms, number, print_chunk, print_json
from eventsched.cli.patience import saying_why
from eventsched.errors import EventschedError, UsageError
from eventsched.stories import kind_of, line_of
from eventsched.units import parse_duration_ms
from eventsched.visible import visible, visible_json

RECENT_MS = 3_600_000
STATES = [
    "pending",
    "assigned",
    "starting",
    "running",
    "succeeded",
    "failed",
    "aborted",
    "timed_out",
    "rejected",
    "expired",
]


async def jobs(
    *,
    all_: Annotated[bool, Parameter(name=["--all", "-a"], negative=(), help="ended jobs of all times too")] = False,
    state: Annotated[list[str] | None, Parameter(help="only these states; may be repeated")] = None,
    node: Annotated[str, Parameter(help="only jobs on (or last on) this node")] = "",
    since: Annotated[str, Parameter(help="ended jobs of the last 10m, 2h, …; 1h by default")] = "",
    array: Annotated[str, Parameter(help="the members of this array")] = "",
    limit: Annotated[int, number(0, BIG), Parameter(help="at most so many; 0 = all")] = 0,
    output: Output = "table",
    where: Where = Where(),
) -> None:
    """List jobs: the live ones, and those that ended in the last hour."""
    for one in state or ():
        if one not in STATES:
            raise UsageError(f"--state: no state {one!r}", f"states: {', '.join(STATES)}")
    recent_ms = parse_duration_ms(since, "--since") if since else RECENT_MS
    async with connected(where) as client:
        now = await now_ms(client)
        ago = 0 if all_ else max(0, now - recent_ms)
        key = ""
        if array:
            parent = await client.get(array, tenant=where.tenant)
            key = f"{parent.tenant}/{parent.job_id}"
        views = await client.list(
            tenant=where.tenant, states=state or (), node=node, since_ms=ago, array=key, limit=limit
        )
    if output == "json":
        print_json(views)
    elif views:
        tables.show(tables.jobs_table(views, now))
    else:
        print("no jobs" if all_ else "no jobs now or in the last hour (--all shows older ones)")


async def job(job_id: str, /, *, output: Output = "table", where: Where = Where()) -> None:
    """Show one job: by its id, tenant/id, or the beginning of its id."""
    async with connected(where) as client:
        view = await client.get(job_id, tenant=where.tenant)
        now = 0 if output == "json" else await now_ms(client)
    if output == "json":
        print_json(view)
    else:
        tables.show(tables.job_block(view, now))


async def logs(
    job_id: str,
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], negative=(), help="go on until the job has ended")
    ] = False,
    where: Where = Where(),
) -> None:
    """Print a job's output, from its start; for a member of an array: `logs sweep.3`."""
    async with connected(where) as client:
        view = await client.get(job_id, tenant=where.tenant)
        if view.array:
            raise EventschedError(f"{view.job_id} is an array", f"name a member, e.g. {view.job_id}.0")
        async with saying_why(client, view.job_id, view.tenant):
            async for chunk in client.follow_logs(view.job_id, follow=follow, tenant=view.tenant):
                print_chunk(chunk)


async def nodes(*, output: Output = "table", where: Where = Where()) -> None:
    """List nodes: free and total."""
    async with connected(where) as client:
        views = list(await client.nodes())
    if output == "json":
        print_json(views)
    elif views:
        tables.show(tables.nodes_table(views))
    else:
        print("no node has joined yet; start one with `eventsched agent`")


async def node(node_id: str, /, *, output: Output = "table", where: Where = Where()) -> None:
    """Show one node and its runs."""
    async with connected(where) as client:
        view = await client.node(node_id)
    if output == "json":
        print_json(view)
        return
    tables.show(tables.nodes_table([view]))
    for gpu in view.gpus:
        busy = f"run {gpu['run']}" if gpu["run"] else "free"
        print(visible(f"  GPU {gpu['uuid']}  {gpu['variant'] or gpu['model']}  {busy}"))
    if view.runs:
        print()
        tables.show(tables.node_runs_table(view))


async def events(
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative=(), help="go on as events happen")] = False,
    job: Annotated[str, Parameter(help="only events about this job")] = "",
    from_: Annotated[
        int, number(-BIG, BIG), Parameter(name="--from", help="first sequence; a negative number counts from the end")
    ] = 1,
    output: Output = "table",
    where: Where = Where(),
) -> None:
    """Print the log: one readable line an event."""
    if from_ == 0:
        raise UsageError("--from: 0 is no sequence", "1 is the first event, -1 the last one")
    async with connected(where) as client:
        start = from_ if from_ > 0 else max(1, await client.last_seq() + from_ + 1)
        async for recorded in client.follow_events(job_id=job, tenant=where.tenant, from_seq=start, follow=follow):
            if output == "json":
                line = {
                    "seq": recorded.seq,
                    "at_ms": recorded.at_ms,
                    "subject": recorded.subject,
                    "kind": kind_of(recorded),
                    "event": recorded.event,
                }
                print_json_line(line)
            else:
                print(line_of(recorded), flush=follow)


def print_json_line(value: object) -> None:
    """One JSON document on one line."""
    sys.stdout.write(visible_json(msgspec.json.encode(value).decode()) + "\n")
    sys.stdout.flush()


async def stats(*, output: Output = "table", where: Where = Where()) -> None:
    """The cluster in numbers: leader, nodes, jobs by state, anomalies."""
    async with connected(where) as client:
        answer = await client.stats()
    if output == "json":
        print_json(answer)
    else:
        tables.show(tables.stats_block(answer))
