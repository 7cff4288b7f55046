"""The command line's root: which verbs there are, and how errors leave it."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from typing import NoReturn

from cyclopts import App, CycloptsError, Group, Parameter

from eventsched import __version__
from eventsched.cli.exits import OK, complain
from eventsched.errors import EventschedError, UsageError

JOBS, NODES, CLUSTER, SERVE = (
    Group(name, sort_key=index) for index, name in enumerate(("Jobs", "Nodes", "The cluster and its log", "Run it"))
)

# Mounted by name: a command's modules are imported when it is used (or explained), not before.
VERBS: dict[Group, dict[str, str]] = {
    JOBS: {
        "submit": "eventsched.cli.submitting:submit",
        "jobs": "eventsched.cli.reading:jobs",
        "job": "eventsched.cli.reading:job",
        "explain": "eventsched.cli.explaining:explain",
        "logs": "eventsched.cli.reading:logs",
        "wait": "eventsched.cli.steering:wait",
        "abort": "eventsched.cli.steering:abort",
        "hold": "eventsched.cli.steering:hold",
        "release": "eventsched.cli.steering:release",
        "requeue": "eventsched.cli.steering:requeue",
        "complete": "eventsched.cli.steering:complete",
    },
    NODES: {
        "nodes": "eventsched.cli.reading:nodes",
        "node": "eventsched.cli.reading:node",
        "drain": "eventsched.cli.steering:drain",
        "cordon": "eventsched.cli.steering:cordon",
        "uncordon": "eventsched.cli.steering:uncordon",
    },
    CLUSTER: {
        "stats": "eventsched.cli.reading:stats",
        "smoke": "eventsched.projections.smoke.command:smoke",
        "events": "eventsched.cli.reading:events",
        "simulate": "eventsched.projections.simulation.simulating:simulate",
    },
    SERVE: {
        "dev": "eventsched.dev.command:dev",
        "scheduler": "eventsched.projections.cli:scheduler",
        "agent": "eventsched.agents.cli:agent",
        "api": "eventsched.projections.http.command:api",
        "compile": "eventsched.projections.compiled.command:compile_",
    },
}
BENCHES = {
    "decide": "eventsched.projections.bench.deciding:deciding",
    "simulate": "eventsched.projections.bench.simulating:simulating",
    "fold": "eventsched.projections.bench.fold:fold",
    "throughput": "eventsched.projections.bench.throughput:throughput",
    "start": "eventsched.projections.bench.start:start",
    "http": "eventsched.projections.bench.http:http",
    "docker": "eventsched.agents.bench:docker",
    "process": "eventsched.agents.bench:process",
}
POLICIES = {
    "list": "eventsched.cli.policy:policy_list",
    "show": "eventsched.cli.policy:policy_show",
    "set": "eventsched.cli.policy:policy_set",
}
TENANTS = {
    "list": "eventsched.cli.tenants:tenant_list",
    "show": "eventsched.cli.tenants:tenant_show",
    "set": "eventsched.cli.tenants:tenant_set",
    "remove": "eventsched.cli.tenants:tenant_remove",
}
PRICES = {
    "show": "eventsched.cli.tenants:price_show",
    "set": "eventsched.cli.tenants:price_set",
}
EVALUATIONS = {
    "placement": "eventsched.projections.simulation.command:placement",
    "published": "eventsched.projections.simulation.publishing:published",
}
REPLAYS = {
    "digest": "eventsched.projections.cli:digest",
    "file": "eventsched.projections.simulation.simulating:replay_file",
}


def build(arguments: list[str]) -> App:
    """The app. Commands are resolved at once only if help may list them."""
    app = App(
        name="eventsched",
        version=__version__,
        help="Schedule containers on shared GPUs and servers; every decision is an event you can replay.",
        result_action="return_value",
        help_format="plaintext",
        default_parameter=Parameter(negative=(), show_default=_worth_showing),
    )
    for group, verbs in VERBS.items():
        _mount(app, verbs, listed=not arguments or arguments[0].startswith("-"), group=group)
    for name, text, group, commands in (
        ("policy", "Which policy decides, and with which parameters.", CLUSTER, POLICIES),
        ("tenant", "What tenants may hold and spend, and what they hold.", CLUSTER, TENANTS),
        ("price", "What an hour of a core, memory or a GPU costs.", CLUSTER, PRICES),
        ("replay", "Fold the log again, here and now.", CLUSTER, REPLAYS),
        ("evaluate", "Recorded workloads through policies, measured as published.", SERVE, EVALUATIONS),
        ("bench", "Measure this machine: each prints one JSON object.", SERVE, BENCHES),
    ):
        sub = App(name=name, help=text, group=group)
        _mount(sub, commands, listed=arguments[:1] == [name] and commands.keys().isdisjoint(arguments[1:2]))
        app.command(sub)
    return app


def _worth_showing(default: object) -> str | None:
    return str(default) if default else None


def _mount(app: App, commands: dict[str, str], listed: bool, group: Group | None = None) -> None:
    for name, path in commands.items():
        module, _, function = path.partition(":")
        try:
            target = getattr(import_module(module), function) if listed else path
        except ImportError as error:
            _not_installed(error)
            continue  # not offered; whoever asks for it all the same is told what is missing
        app.command(target, name=name, group=group)


def main() -> NoReturn:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal can show "…"
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run()
        print(end="", flush=True)
    except CycloptsError as error:
        code = _explain_usage(error)
    except EventschedError as error:
        code = complain(error)
    except BaseExceptionGroup as group:
        code = complain(_first(group))
    except ImportError as error:
        code = complain(_not_installed(error))
    except KeyboardInterrupt:
        code = 130
    except UnicodeEncodeError as error:
        code = complain(_not_utf8(error))
    except BrokenPipeError:  # `eventsched jobs | head`
        _drop_output()
        code = OK
    except OSError as error:
        code = complain(_not_written(error))
        _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """Let what is still buffered go nowhere, or Python would try to write it at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _not_utf8(error: UnicodeEncodeError) -> UsageError:
    """What was given in bytes that are no text, so that nothing can be called like that; else `error` is a bug."""
    ours = ((name, value) for name, value in os.environ.items() if name.startswith("EVENTSCHED_"))
    for where, text in (*(("argument", text) for text in sys.argv[1:]), *ours):
        if text.encode(errors="replace").decode() != text:
            return UsageError(f"{where} {text!r} is not UTF-8", "ids and texts are UTF-8")
    raise error


def _not_written(error: OSError) -> EventschedError:
    """Output that cannot be written: then it still can't. Anything else is a bug."""
    try:
        print(end="", flush=True)
    except OSError:
        return EventschedError(f"the output cannot be written: {error.strerror}", "look at where stdout leads")
    raise error


def _not_installed(error: ImportError) -> EventschedError:
    """A package that this command needs, and an installation without its extra has not got; else it is a bug."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__ or cause.__context__
    package = (cause.name or "").partition(".")[0] if cause is not None else ""
    if package in ("", "eventsched"):
        raise error
    return EventschedError(f"{package} is not installed, which this needs", "pip install 'eventsched[all]'")


def _run() -> int:
    result = build(sys.argv[1:])(exit_on_error=False, print_error=False)
    return result if isinstance(result, int) else OK


def _explain_usage(error: CycloptsError) -> int:
    command = " ".join(("eventsched", *(error.command_chain or ())))
    return complain(UsageError(str(error).rstrip("."), f"`{command} --help` shows what may be given"))


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
