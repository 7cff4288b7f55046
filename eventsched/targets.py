"""Which job is meant, and whether what is asked of it makes sense.

A job is named by its id, by the printed form `tenant/id`, or by the beginning of its id. Reading
may guess: a wrong guess shows another job. What changes a job may not: it wants the whole id, or so
much of an id made by us that it can't be somebody's mistyping, and it stays in one tenant.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from eventsched.errors import Ambiguous, EventschedError, InvalidSpec, NotFound, UsageError
from eventsched.ids import split_member
from eventsched.new_ids import drawn_from
from eventsched.reasons import in_words
from eventsched.views import JobView

PREFIX_MIN = 6
"""Characters of a made id that name it for changing, at least;"""
DRAWN_MIN = 3
"""so many of them from its random part."""
RULE = f"To change a job, give its whole id, or at least {PREFIX_MIN} characters of one that was made for it"


class Lookup(Protocol):
    """Finds a job by id or the beginning of one; tenant "" = of any tenant."""

    def __call__(self, job_id: str, tenant: str) -> Awaitable[JobView]:
        """The job. Raises NotFound, Ambiguous."""
        ...


def split_tenant(job_id: str, tenant: str) -> tuple[str, str]:
    """(tenant, job id) of a job as people name it: `acme/j1` says its tenant, `j1` is of `tenant`."""
    owner, slash, rest = job_id.partition("/")
    if not slash:
        owner, rest = tenant, job_id
    if not rest or (slash and not owner):
        raise UsageError(f"job id: {job_id!r} names no job", "give an id, or tenant/id")
    return owner, rest


async def job_to_change(look_up: Lookup, job_id: str, tenant: str) -> JobView:
    """The job of exactly this id in this tenant. Raises NotFound with what may have been meant, Ambiguous."""
    owner, name = split_tenant(job_id, tenant)
    try:
        view = await look_up(name, owner)
    except NotFound as error:
        raise NotFound(error.message, await _elsewhere(look_up, name, owner) or error.hint) from None
    if not _surely(name, view.job_id):
        raise NotFound(f"tenant {owner!r} has no job {name!r}", f"did you mean {view.job_id}? {RULE}")
    if view.ended:
        raise EventschedError(
            f"job {view.tenant}/{view.job_id} has ended ({view.state})", "submit it again under a new id"
        )
    return view


def _surely(typed: str, job_id: str) -> bool:
    """True when nobody can have meant another job."""
    if typed == job_id:
        return True
    beginning, typed_member = split_member(typed) or (typed, -1)
    whole, member = split_member(job_id) or (job_id, -1)
    drawn = drawn_from(whole)
    return member == typed_member and 0 <= drawn <= len(beginning) - DRAWN_MIN and len(beginning) >= PREFIX_MIN


async def _elsewhere(look_up: Lookup, name: str, owner: str) -> str:
    """What to say when another tenant has a job like that; "" when none has."""
    try:
        view = await look_up(name, "")
    except Ambiguous as error:
        return f"{error.message}; give --tenant, or tenant/id"
    except NotFound:
        return ""
    return f"did you mean {view.tenant}/{view.job_id}? It is another tenant's: say it like that, or give --tenant"


# ---- requests that can't come to anything -------------------------------------------------------


def check_requeue(view: JobView, force: bool) -> None:
    """Raise EventschedError when there is no run to stop, or nobody may say that it has stopped."""
    name = f"job {view.tenant}/{view.job_id}"
    if view.state == "pending" and view.reason != "backoff":
        hint = "release lets it start" if view.held else "requeue stops a run, and this job has none"
        raise EventschedError(f"{name} waits already: {in_words(view.reason, view.detail)}", hint)
    if view.run_state == "unknown" and not force:
        raise EventschedError(
            f"{name} may still run: {in_words(view.reason, view.detail)}",
            f"make sure on node {view.node} that it has ended, then requeue it with --force",
        )


def check_complete(view: JobView, exit_code: int) -> None:
    """Raise EventschedError unless this is a run of the manual driver, and the exit code is one."""
    name = f"job {view.tenant}/{view.job_id}"
    if not 0 <= exit_code <= 255:
        raise InvalidSpec(f"exit_code: {exit_code} is not between 0 and 255")
    if view.driver != "manual":
        raise EventschedError(
            f"{name} is run by the driver {view.driver}: only jobs of the driver manual are completed by hand",
            f"`eventsched abort {view.job_id}` ends it",
        )
    if view.array:
        raise EventschedError(f"{name} is an array", f"complete its members one by one, e.g. {view.job_id}.0")
    if view.run_state not in ("assigned", "starting", "running"):
        raise EventschedError(
            f"{name} does not run now ({view.run_state or view.state}): {in_words(view.reason, view.detail)}",
            "it can be completed while it runs",
        )
