"""What clients write: `ev.job.<tenant>.<job>.<verb>`. The verb picks the Struct.

`submitted` carries a `JobSpec` (see `eventsched.spec`). The others are requests about a job
that exists; `member` aims at one member of an array (-1: the whole job).
"""

from __future__ import annotations

from eventsched.wire import ClientEvent, Int


class AbortRequested(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """End the job: it is `aborted` if this is recorded before its run's end."""

    member: Int = -1
    reason: str = ""
    by: str = ""


class HoldRequested(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Do not start the job (again) until it is released; a run in progress goes on."""

    member: Int = -1
    by: str = ""


class ReleaseRequested(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Undo a hold."""

    member: Int = -1
    by: str = ""


class RequeueRequested(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Stop the job's run and put the job back to pending; uses up no retry.

    force: close the run at once although nobody can say whether it still runs (`unknown`);
    the operator vouches for it.
    """

    member: Int = -1
    force: bool = False
    by: str = ""


class CompleteRequested(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Finish a job of the manual driver with an exit code."""

    member: Int = -1
    exit_code: Int = 0
    by: str = ""


class Keyed(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """An idempotency key was used: stored with the submission it stands for, in one batch, right before it.

    The subject's job id is made from a hash of the key. body_hash: of the job that was submitted.
    """

    job_id: str
    body_hash: str = ""
