"""Verbs that change something: abort, hold, release, requeue, complete, drain, cordon, uncordon; and wait."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from eventsched.cli.common import Output, Where, connected, print_json
from eventsched.cli.exits import OUR_FAULT, TIMED_OUT, complain, exit_code_of
from eventsched.errors import EventschedError, NotFound, WaitTimeout
from eventsched.units import parse_duration_ms


async def abort(job_id: str, /, *, reason: str = "", where: Where = Where()) -> None:
    """End a job: a waiting one at once, a running one by SIGTERM, its grace, SIGKILL."""
    async with connected(where) as client:
        view = await client.get(job_id, tenant=where.tenant)
        await client.abort(view.job_id, reason=reason, tenant=view.tenant)
    print(f"abort of {view.tenant}/{view.job_id} requested")


async def hold(job_id: str, /, *, where: Where = Where()) -> None:
    """Keep a job from starting until it is released."""
    async with connected(where) as client:
        await client.hold(job_id, tenant=where.tenant)
    print(f"{job_id} is held")


async def release(job_id: str, /, *, where: Where = Where()) -> None:
    """Let a held job start."""
    async with connected(where) as client:
        await client.release(job_id, tenant=where.tenant)
    print(f"{job_id} is released")


async def requeue(
    job_id: str,
    /,
    *,
    force: Annotated[bool, Parameter(negative=(), help="also if nobody can say whether it still runs")] = False,
    where: Where = Where(),
) -> None:
    """Stop a job's run and let the job wait again."""
    async with connected(where) as client:
        await client.requeue(job_id, force=force, tenant=where.tenant)
    print(f"requeue of {job_id} requested")


async def complete(job_id: str, /, *, exit_code: int = 0, where: Where = Where()) -> None:
    """Finish a job of the manual driver."""
    async with connected(where) as client:
        await client.complete(job_id, exit_code=exit_code, tenant=where.tenant)
    print(f"completion of {job_id} requested")


async def drain(
    node: str,
    /,
    *,
    deadline: Annotated[str, Parameter(help="stop and requeue what still runs after 10m, 1h, …")] = "",
    now: Annotated[bool, Parameter(negative=(), help="stop and requeue at once")] = False,
    where: Where = Where(),
) -> None:
    """Empty a node: no new runs, and the present ones end."""
    async with connected(where) as client:
        await client.drain(node, deadline_ms=parse_duration_ms(deadline, "--deadline") if deadline else 0, now=now)
    print(f"{node} is draining")


async def cordon(node: str, /, *, where: Where = Where()) -> None:
    """No new runs on a node."""
    async with connected(where) as client:
        await client.cordon(node)
    print(f"{node} is cordoned")


async def uncordon(node: str, /, *, where: Where = Where()) -> None:
    """End a cordon or a drain."""
    async with connected(where) as client:
        await client.uncordon(node)
    print(f"{node} takes work again")


async def wait(
    job_id: str,
    /,
    *,
    timeout: Annotated[str, Parameter(help="give up after 30s, 10m, … (exit code 124)")] = "",
    output: Output = "table",
    where: Where = Where(),
) -> int:
    """Wait until a job has ended; exits with the job's exit code."""
    try:
        async with connected(where) as client:
            seconds = parse_duration_ms(timeout, "--timeout") / 1000 if timeout else None
            view = await client.wait(job_id, timeout=seconds, tenant=where.tenant)
    except WaitTimeout as error:
        complain(error)
        return TIMED_OUT
    except NotFound:
        raise
    except EventschedError as error:
        complain(error)
        return OUR_FAULT
    if output == "json":
        print_json(view)
    else:
        print(f"{view.tenant}/{view.job_id} {view.state}" + (f": {view.detail or view.reason}" if view.reason else ""))
    return exit_code_of(view)
