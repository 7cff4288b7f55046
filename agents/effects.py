"""What passes between the agent's core and its shell: inputs in, effects out. Data only."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from eventsched.events import NodeEvent, RunEvent
from eventsched.spec import JobSpec


class Launch(Struct, frozen=True):
    """Everything a driver needs to start a run. job_id is `<array>.<i>` for a member; gang_head: the
    node of its gang's first member."""

    run: int
    tenant: str
    job_id: str
    attempt: int
    gpus: tuple[str, ...]
    spec: JobSpec
    member: int = -1
    gang_head: str = ""


class Ended(Struct, frozen=True):
    """How a run ended; outcome, reason and detail as in `RunEnded`.

    `stopped` means that a signal of ours was on its way before the end; a run that ended by itself
    just before that is `exited`.
    """

    outcome: Literal["exited", "oom", "timed_out", "stopped", "start_failed", "lost"]
    exit_code: int | None = None
    reason: str = ""
    detail: str = ""


class KnownRun(Struct, frozen=True):
    """A run this machine still has: found by a driver when the agent starts.

    ended: how it ended, None = it runs. ran_ms: for how long it has run so far. stop: why an earlier
    agent had begun to stop it ("" = it had not).
    """

    launch: Launch
    ended: Ended | None = None
    ran_ms: int = 0
    stop: str = ""


# ---- effects ----------------------------------------------------------------------------


class StartRun(Struct, frozen=True):
    """Start it; answer with `started` or `start_failed`."""

    launch: Launch


class WatchRun(Struct, frozen=True):
    """An adopted run: watch it from here on, ship the rest of its output."""

    launch: Launch


class StopRun(Struct, frozen=True):
    """SIGTERM, grace, SIGKILL; `ended` follows when it is over."""

    run: int
    grace_ms: int


class FinishRun(Struct, frozen=True):
    """End a run of the manual driver."""

    run: int
    exit_code: int


class ForgetRun(Struct, frozen=True):
    """Its end is recorded, or the log never knew it: remove what is left of it after the keep time."""

    run: int


class Report(Struct, frozen=True):
    """Write this to `ev.run.<node>`; answer with `stored` once it is."""

    event: RunEvent


class Announce(Struct, frozen=True):
    """Write this to `ev.node.<node>`."""

    event: NodeEvent


class SessionOver(Struct, frozen=True):
    """This session has ended. rejoin: begin another one (after stopping what must stop); else exit."""

    why: str
    rejoin: bool


Effect = StartRun | WatchRun | StopRun | FinishRun | ForgetRun | Report | Announce | SessionOver
