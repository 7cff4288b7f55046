"""Verbs that change something: abort, hold, release, requeue, complete, drain, cordon, uncordon; and wait.

They act on this user's tenant (`--tenant`, or `tenant/id`), and take no guess for an id (`eventsched.targets`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from cyclopts import Parameter

from eventsched.cli.common import Output, Where, connected, number, print_json
from eventsched.cli.exits import OK, OUR_FAULT, TIMED_OUT, complain, end_of, exit_code_of
from eventsched.cli.patience import saying_why
from eventsched.client import Client
from eventsched.errors import EventschedError, NotFound, UsageError, WaitTimeout
from eventsched.units import parse_duration_ms
from eventsched.views import JobView
from eventsched.visible import visible


async def abort(*job_ids: str, reason: str = "", where: Where = Where()) -> int:
    """End jobs: waiting ones at once, running ones by SIGTERM, their grace, SIGKILL."""
    return await _each(job_ids, where, lambda client, one: client.abort(one, reason=reason), "abort of {} requested")


async def hold(*job_ids: str, where: Where = Where()) -> int:
    """Keep jobs from starting until they are released."""
    return await _each(job_ids, where, lambda client, one: client.hold(one), "{} is held")


async def release(*job_ids: str, where: Where = Where()) -> int:
    """Let held jobs start."""
    return await _each(job_ids, where, lambda client, one: client.release(one), "{} is released")


async def requeue(
    *job_ids: str,
    force: Annotated[bool, Parameter(negative=(), help="also if nobody can say whether it still runs")] = False,
    where: Where = Where(),
) -> int:
    """Stop the runs of jobs and let the jobs wait again."""
    return await _each(job_ids, where, lambda client, one: client.requeue(one, force=force), "requeue of {} requested")


async def _each(
    job_ids: Sequence[str], where: Where, steer: Callable[[Client, str], Awaitable[JobView]], said: str
) -> int:
    """Steer each of the jobs, whatever becomes of the others; the first error's exit code."""
    if not job_ids:
        raise UsageError("JOB_ID: none is given", "name one job or several")
    code = OK
    async with connected(where) as client:
        for job_id in job_ids:
            try:
                view = await steer(client, job_id)
            except EventschedError as error:
                code = code or complain(error)
            else:
                print(said.format(f"{view.tenant}/{view.job_id}"))
    return code


async def complete(
    job_id: str,
    /,
    *,
    exit_code: Annotated[int, number(0, 255), Parameter(help="what it exits with")] = 0,
    where: Where = Where(),
) -> None:
    """Finish a running job of the manual driver."""
    async with connected(where) as client:
        view = await client.complete(job_id, exit_code=exit_code)
    print(f"completion of {view.tenant}/{view.job_id} requested")


async def drain(
    node: str,
    /,
    *,
    deadline: Annotated[str, Parameter(help="stop and requeue what still runs after 10m, 1h, …")] = "",
    now: Annotated[bool, Parameter(negative=(), help="stop and requeue at once")] = False,
    where: Where = Where(),
) -> None:
    """Empty a node: no new runs, and the present ones end."""
    if now and deadline:
        raise UsageError("--now and --deadline: give one of them", "--now stops at once what runs there")
    deadline_ms = parse_duration_ms(deadline, "--deadline") if deadline else 0
    async with connected(where) as client:
        await client.drain(node, deadline_ms=deadline_ms, now=now)
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
    """Wait until a job has ended; exits with the job's exit code.

    Why it waits, if it does so for long, is said on stderr.
    """
    seconds = parse_duration_ms(timeout, "--timeout") / 1000 if timeout else None
    try:
        async with connected(where) as client:
            async with saying_why(client, job_id, where.tenant):
                view = await client.wait(job_id, timeout=seconds, tenant=where.tenant)
    except WaitTimeout as error:
        complain(error)
        return TIMED_OUT
    except (NotFound, UsageError):
        raise
    except EventschedError as error:
        complain(error)
        return OUR_FAULT
    if output == "json":
        print_json(view)
    else:
        print(visible(end_of(view)))
    return exit_code_of(view)
