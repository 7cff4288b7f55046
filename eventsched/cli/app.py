"""The command line's root: which verbs there are, and how errors leave it."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from cyclopts import App, CycloptsError

from eventsched import __version__
from eventsched.cli.exits import OK, USAGE, complain
from eventsched.errors import EventschedError

app = App(
    name="eventsched",
    version=__version__,
    help="Schedule containers on shared GPUs and servers; every decision is an event you can replay.",
    result_action="return_value",
)
app.command("eventsched.dev.command:dev", name="dev")
app.command("eventsched.projections.cli:scheduler", name="scheduler")
app.command("eventsched.agents.cli:agent", name="agent")
app.command("eventsched.cli.submitting:submit", name="submit")
app.command("eventsched.cli.reading:jobs", name="jobs")
app.command("eventsched.cli.reading:job", name="job")
app.command("eventsched.cli.reading:logs", name="logs")
app.command("eventsched.cli.steering:abort", name="abort")
app.command("eventsched.cli.steering:wait", name="wait")
app.command("eventsched.cli.reading:nodes", name="nodes")
app.command("eventsched.cli.reading:node", name="node")
app.command("eventsched.cli.steering:hold", name="hold")
app.command("eventsched.cli.steering:release", name="release")
app.command("eventsched.cli.steering:requeue", name="requeue")
app.command("eventsched.cli.steering:complete", name="complete")
app.command("eventsched.cli.steering:drain", name="drain")
app.command("eventsched.cli.steering:cordon", name="cordon")
app.command("eventsched.cli.steering:uncordon", name="uncordon")
app.command("eventsched.cli.reading:events", name="events")
app.command("eventsched.cli.reading:stats", name="stats")

bench = App(name="bench", help="Measure this machine: each prints one JSON object.")
bench.command("eventsched.projections.bench.fold:fold", name="fold")
bench.command("eventsched.projections.bench.throughput:throughput", name="throughput")
bench.command("eventsched.projections.bench.start:start", name="start")
bench.command("eventsched.agents.bench:docker", name="docker")
bench.command("eventsched.agents.bench:process", name="process")
app.command(bench)

replay = App(name="replay", help="Fold the log again, here and now.")
replay.command("eventsched.projections.cli:digest", name="digest")
app.command(replay)


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        code = _run()
    except CycloptsError:
        code = USAGE
    except EventschedError as error:
        code = complain(error)
    except BaseExceptionGroup as group:
        code = complain(_first(group))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `eventsched jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    sys.exit(code)


def _run() -> int:
    result = app(exit_on_error=False)
    return result if isinstance(result, int) else OK


def _first(group: BaseExceptionGroup[BaseException]) -> EventschedError:
    """The error of ours in a group of failed tasks; anything else is a bug and goes on up."""
    found, rest = group.split(EventschedError)
    if found is None or rest is not None:
        raise group
    error: BaseException = found
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EventschedError)
    return error
