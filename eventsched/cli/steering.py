"""Verbs that change something: abort, hold, release, requeue, complete, drain, cordon, uncordon; and wait.

They act on this user's tenant (`--tenant`, or `tenant/id`), and take no guess for an id (`eventsched.targets`).
"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from eventsched.cli.common import Output, Where, connected, number, print_json
from eventsched.cli.exits import OUR_FAULT, TIMED_OUT, complain, end_of, exit_code_of
from eventsched.cli.patience import saying_why
from eventsched.errors import EventschedError, NotFound, UsageError, WaitTimeout
from eventsched.units import parse_duration_ms
from eventsched.visible import visible


async def abort(job_id: str, /, *, reason: str = "", where: Where = Where()) -> None:
    """End a job: a waiting one at once, a running one by SIGTERM, its grace, SIGKILL."""
    async with connected(where) as client:
        view = await client.abort(job_id, reason=reason)
    print(f"abort of {view.tenant}/{view.job_id} requested")


async def hold(job_id: str, /, *, where: Where = Where()) -> None:
    """Keep a job from starting until it is released."""
    async with connected(where) as client:
        view = await client.hold(job_id)
    print(f"{view.tenant}/{view.job_id} is held")


async def release(job_id: str, /, *, where: Where = Where()) -> None:
    """Let a held job start."""
    async with connected(where) as client:
        view = await client.release(job_id)
    print(f"{view.tenant}/{view.job_id} is released")


async def requeue(
    job_id: str,
    /,
    *,
    force: Annotated[bool, Parameter(negative=(), help="also if nobody can say whether it still runs")] = False,
    where: Where = Where(),
) -> None:
    """Stop a job's run and let the job wait again."""
    async with connected(where) as client:
        view = await client.requeue(job_id, force=force)
    print(f"requeue of {view.tenant}/{view.job_id} requested")


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
