"""What cannot be used is refused with its name and a remedy: no traceback, and nothing done to something else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .terminal import COMMAND, Terminal


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.kill()


def test_no_node_is_not_the_first_one(terminal: Terminal) -> None:
    for verb in (("drain",), ("drain", "--now"), ("cordon",), ("uncordon",), ("node",)):
        assert "node: none is given" in terminal.run(*verb, "", code=2).err
    (node,) = terminal.json("nodes")
    assert (node["state"], node["cordoned"], node["draining"]) == ("ready", False, False)


@pytest.mark.parametrize("verb", ["abort", "hold", "release", "requeue", "complete", "job", "wait", "logs", "explain"])
def test_no_job_is_none(terminal: Terminal, verb: str) -> None:
    assert "names no job" in terminal.run(verb, "", code=2).err


@pytest.mark.parametrize(
    ("param", "says"),
    [("name=1", "name"), ("self=1", "self"), ("sweep_every=9999999999999999999", "sweep_every")],
)
def test_a_policy_s_parameter_is_named_and_refused(terminal: Terminal, param: str, says: str) -> None:
    began = time.monotonic()
    done = terminal.run("policy", "set", "best-fit", param, code=None)
    assert done.code in (1, 2)
    assert says in done.err
    assert time.monotonic() - began < 15, "nobody is waited for"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("agent", "--spot-command", "'x"), "--spot-command"),
        (("agent", "--data", "/proc/nowhere"), "--data: /proc/nowhere"),
        (("agent", "--data", "file"), "is no directory"),
        (("scheduler", "--data", "/proc/nowhere"), "--data: /proc/nowhere"),
        (("scheduler", "--data", "file"), "is no directory"),
        (("api", "--listen-fd", "99"), "--listen-fd 99"),
        (("api", "--listen-fd", "2"), "--listen-fd 2"),
        (("dev", "--exit-when-idle", "--clock", "manual"), "--exit-when-idle"),
        (("tenant", "set", "x", "--gpus", "A 1!:0"), "--gpus"),
        (("job", "\udcff"), "is not UTF-8"),
        (("node", "\udcff"), "is not UTF-8"),
    ],
)
def test_it_is_said_what_cannot_be_used(terminal: Terminal, arguments: tuple[str, ...], says: str) -> None:
    (terminal.directory / "file").touch()
    assert says in terminal.run(*arguments, code=2).err


@pytest.mark.parametrize("arguments", [("jobs",), ("events",), ("stats", "-o", "json"), ("--help",)])
def test_output_that_cannot_be_written_is_an_error(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=terminal.directory,
            env={name: value for name, value in os.environ.items() if not name.startswith("EVENTSCHED_")},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stderr == (
        "error: the output cannot be written: No space left on device\n  hint: look at where stdout leads\n"
    )
    assert done.returncode == 1


def test_a_terminal_that_cannot_show_every_character(here: Terminal) -> None:
    """The dots of "stopping …" ended dev before it had stopped its cluster."""
    arguments = ("dev", "--driver", "process", "--exit-when-idle", "--http-port", "0")
    done = here.run(*arguments, environment={"PYTHONIOENCODING": "ascii"}, timeout=90)
    assert "stopping \\u2026\nstopped; the log stays in .eventsched" in done.out
    assert not (here.directory / ".eventsched" / "dev.json").exists()


def test_a_demo_that_is_interrupted_ends_quietly(here: Terminal) -> None:
    here.dev("--demo", "--driver", "process")
    here.dev_says("running")
    stopped = here.stop()
    assert stopped.code == 0
    assert "stopped; the log stays" in stopped.out
    assert not re.search("Traceback|never retrieved", stopped.out), stopped.out


def test_times_by_a_manual_clock_are_the_cluster_s(here: Terminal) -> None:
    said = here.dev("--driver", "manual", "--clock", "manual")
    http = re.search(r"http://127.0.0.1:\d+", said)
    assert http is not None

    def at(seconds: int) -> None:
        request = urllib.request.Request(f"{http[0]}/schedule?now={seconds}", data=b"")
        urllib.request.urlopen(request, timeout=20).close()

    at(1_000)
    job_id, ended = here.submit("--driver", "manual"), here.submit("--driver", "manual")
    at(1_010)
    for one in (job_id, ended):
        here.until_state(one, "running")
    here.run("complete", ended)
    here.run("wait", ended)
    at(1_070)
    table = here.run("jobs").out.splitlines()
    (line,) = [line for line in table if job_id in line]
    assert "1m00s" in line
    assert ended in "".join(table), "an hour ago is not over"
    assert ended not in here.run("jobs", "--since", "30s").out


@pytest.mark.parametrize(
    ("missing", "needing"),
    [("aiodocker", ("bench", "docker")), ("psutil", ("agent",)), ("numpy", ("simulate",)), ("litestar", ("api",))],
)
def test_what_an_installation_without_extras_lacks_is_said_and_not_offered(
    missing: str, needing: tuple[str, ...]
) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[0] = 'eventsched'\n"
        "from eventsched.cli import main\n"
        "main()"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)

    done = run(*needing)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{missing} is not installed" in done.stderr
    assert "pip install 'eventsched[all]'" in done.stderr
    helped = run(*needing[:-1], "--help")
    assert helped.returncode == 0, helped.stderr
    assert needing[-1] not in re.findall(r"^│ (\S+)", helped.stdout, re.MULTILINE)
    assert run("--help").returncode == run("submit", "--help").returncode == 0
