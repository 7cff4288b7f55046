"""How the command line ends: exit codes, and errors as people read them.

0 ok, 1 error, 2 usage (also a value that cannot be used), 3 not found, 4 no connection. `submit --wait`
and `wait` give the job's own exit code, 124 when it timed out, 125 when the fault is ours.
"""

from __future__ import annotations

import sys

from eventsched.errors import EventschedError, NoScheduler, NoServer, NotFound, UsageError
from eventsched.reasons import in_words
from eventsched.views import JobView
from eventsched.visible import visible

OK, ERROR, USAGE, NOT_FOUND, NO_CONNECTION = 0, 1, 2, 3, 4
TIMED_OUT, OUR_FAULT = 124, 125
COMMAND_CODES = {"command_not_found": 127, "command_not_executable": 126}


def complain(error: EventschedError) -> int:
    """Say what is wrong and how to mend it, on stderr; the exit code."""
    print(f"error: {visible(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {visible(error.hint)}", file=sys.stderr)
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, NoServer | NoScheduler):
        return NO_CONNECTION
    return ERROR


def end_of(view: JobView) -> str:
    """A job's end on one line."""
    text = f"{view.tenant}/{view.job_id} {view.state}"
    return f"{text}: {in_words(view.reason, view.detail)}" if view.reason else text


def exit_code_of(view: JobView) -> int:
    """What waiting for a job exits with: its own code, 124 timed out, 125 not the job's doing."""
    if view.state == "succeeded":
        return OK
    if view.state == "timed_out":
        return TIMED_OUT
    if view.state in ("rejected", "expired") or view.reason == "node_lost":
        return OUR_FAULT
    if view.exit_code:
        return min(view.exit_code, 255)
    if view.state == "failed" and view.array:
        return ERROR
    return COMMAND_CODES.get(view.reason, OUR_FAULT)
