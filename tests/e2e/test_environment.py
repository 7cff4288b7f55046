"""The README's list of a job's variables is what a job finds, with every driver that runs programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .terminal import Terminal

README = (Path(__file__).parents[2] / "README.md").read_text()
OURS = re.compile(r"(?:EVENTSCHED|NVIDIA|CUDA)_\w+")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path_factory.mktemp("environment"))
    terminal.dev("--driver", "docker", "--cpus", "4", "--gpus", "A100:2")
    yield terminal
    assert terminal.stop().code == 0


def _documented() -> set[str]:
    section = README.partition("### What a job finds in its environment")[2].partition("\n### ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`(\w+)`", " ".join(rows)))


def _environment(terminal: Terminal, *asked: str) -> dict[str, str]:
    job_id = terminal.submit(*asked, "busybox", "--", "env")
    terminal.run("wait", job_id)
    member = f"{job_id}.1" if "--array" in asked else job_id
    lines = [line.partition("=") for line in terminal.run("logs", member).out.splitlines()]
    return {name: value for name, _, value in lines if OURS.fullmatch(name)}


def test_what_the_readme_lists_is_what_a_job_finds(both: Terminal) -> None:
    full = _environment(both, "--id", "seen", "--array", "2", "--gpus", "A100:1")
    assert set(full) == _documented()
    assert (full["EVENTSCHED_JOB"], full["EVENTSCHED_TENANT"]) == ("seen.1", "default")
    assert (full["EVENTSCHED_ARRAY_INDEX"], full["EVENTSCHED_ARRAY_COUNT"]) == ("1", "2")
    assert full["EVENTSCHED_FENCE"] == full["EVENTSCHED_RUN"] == str(both.json("job", "seen.1")["run"])
    assert full["EVENTSCHED_NODE"] == both.json("nodes")[0]["node"]
    assert full["EVENTSCHED_CLUSTER"] == both.json("stats")["cluster_id"]
    plain = _environment(both)
    assert set(full) - set(plain) == {name for name in full if "ARRAY" in name or "DEVICES" in name}
