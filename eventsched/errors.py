"""Errors a user or caller meets: each says what, where, and how to mend it."""

from __future__ import annotations


class EventschedError(Exception):
    """Base of all errors of this package. `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NoServer(EventschedError):
    """No NATS server answers, or the one that does is not ours."""


class NoScheduler(EventschedError):
    """The server answers, but no scheduler does."""


class SchedulerFault(EventschedError):
    """A scheduler failed over a question; its log says why."""


class PolicyRefused(EventschedError):
    """The leader has refused the policy asked for; the message says why."""


class PermissionDenied(EventschedError):
    """The server refuses this user that subject."""


class NotFound(EventschedError):
    """No such job, node or run."""


class Ambiguous(EventschedError):
    """The id's beginning, or the id without a tenant, fits several jobs."""


class UsageError(EventschedError):
    """What the caller gave cannot be used as it is; nothing was sent. The message names the option or field."""


class InvalidSpec(UsageError):
    """A job cannot be accepted as it is; the message names field and allowed range."""


class DuplicateJob(EventschedError):
    """The job id is taken."""


class StoreFull(EventschedError):
    """The log's store is nearly full: submissions stop, so that reports still fit."""


class WaitTimeout(EventschedError):
    """It did not happen in the time given."""


class StreamMismatch(EventschedError):
    """A stream on the server differs from ours in a way that endangers the promises."""


class UpgradeNeeded(EventschedError):
    """The log holds events of a newer version; this build must not go on."""


class LogGap(EventschedError):
    """A sequence is missing from the log: storage has lost data."""


class ClientClosed(EventschedError):
    """The client was used after it had been closed."""


class SettingsError(UsageError):
    """A setting or an environment variable has a value that cannot be used."""
