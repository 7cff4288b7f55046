"""What the documents say is so: examples run, generated pages are fresh, configurations are accepted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventsched.events.page import page
from eventsched.nats_server import NatsServer, find_binary

from .pages import blocks
from .terminal import Terminal

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = blocks(README, "python")
SHELL = [line for block in blocks(README, "sh") for line in block.splitlines()]
SUBMISSIONS = [line.split("#")[0].strip() for line in SHELL if line.startswith("eventsched submit")]


@pytest.fixture(scope="module")
def docker_terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path_factory.mktemp("docs"))
    terminal.dev("--driver", "docker", "--cpus", "8", "--memory", "32G", "--gpus", "A100:2")
    yield terminal
    assert terminal.stop().code == 0


def test_the_readme_opens_with_its_two_commands() -> None:
    commands = [line.split()[0] for line in SHELL if line.strip()]
    assert commands[:2] == ["deploy/dev", "deploy/test"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[0])
def test_python_examples_run(docker_terminal: Terminal, block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=docker_terminal.directory,
        env={name: value for name, value in os.environ.items() if not name.startswith("EVENTSCHED_")},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.parametrize("line", SUBMISSIONS)
def test_submissions_of_the_readme_run(docker_terminal: Terminal, line: str) -> None:
    script = line.replace("eventsched", f"{sys.executable} -m eventsched", 1)
    wanted = 3 if "exit 3" in line else 0
    if "--wait" not in line:
        script = script.replace(" submit ", " submit --wait ")
    done = subprocess.run(
        ["sh", "-c", script], cwd=docker_terminal.directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == wanted, done.stderr


def test_the_page_of_events_is_fresh() -> None:
    assert (ROOT / "deploy/docs/events.md").read_text() == page(), (
        "python -m eventsched.events.page > deploy/docs/events.md"
    )


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "deploy/docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} names {target}"


def _permissions(conf: str, user: str) -> list[str]:
    """The quoted subjects between a user and the next."""
    text = conf[re.search(rf"user: {user},", conf).start() :]  # type: ignore[union-attr]
    found = re.findall(r'"([^"{]+)"', re.split(r"\n +(?:#|\{ user|\])", text)[0].replace('""', ""))
    return [subject for subject in found if not re.fullmatch(r"[\w-]{20,}", subject)]


def test_the_production_configuration_is_accepted_and_gives_the_rights_dev_gives(tmp_path: Path) -> None:
    passwords = {f"{name}_PASSWORD": "x" for name in ("SYS", "SCHEDULER", "AGENT", "OPERATOR", "ACME")}
    check = subprocess.run(
        [find_binary(), "-c", str(ROOT / "deploy/nats.conf"), "-t"],
        env={**os.environ, **passwords},
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr
    production, dev = (ROOT / "deploy/nats.conf").read_text(), NatsServer(tmp_path)._conf()
    for user in ("scheduler", "agent"):
        assert _permissions(production, user) == _permissions(dev, user) != []
    assert re.search(r"^ *sync_interval: always", production, re.MULTILINE)
