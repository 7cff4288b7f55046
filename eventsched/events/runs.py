"""What an agent reports about its runs: `ev.run.<node>`, told apart by `type`.

Reports cite the run (the sequence of its assign). They may arrive late, twice or in any
order; the fold takes each for what it still says.
"""

from __future__ import annotations

from typing import Literal

from eventsched.wire import Event, Int

Outcome = Literal["exited", "oom", "timed_out", "stopped", "start_failed", "lost"]


class RunStarting(Event, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="run.starting"):
    """The start takes a while: what it is doing (`pulling`, `creating`, `queued`)."""

    run: Int
    phase: str = "creating"


class RunStarted(Event, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="run.started"):
    """The run's process runs."""

    run: Int


class RunEnded(Event, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="run.ended"):
    """The run is over and its resources are free.

    outcome:
        exited        by itself, with `exit_code`
        oom           killed by the kernel for memory
        timed_out     stopped by the agent at max_runtime
        stopped       stopped by the agent on the leader's order
        start_failed  never ran: `reason` says why
        lost          nobody can say how it ended (engine gone, machine restarted)
    reason: a stable code (`eventsched.reasons`); detail: words for people.
    log_chunks: how many chunks of output were shipped, so that a reader knows when it has all.
    """

    run: Int
    outcome: Outcome
    exit_code: Int | None = None
    reason: str = ""
    detail: str = ""
    log_chunks: Int = 0


RunEvent = RunStarting | RunStarted | RunEnded
