"""`eventsched smoke`: all is well, or it says what is not."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from .terminal import Terminal
from .test_dev import _children

OVER_NATS = ["connect", "log", "schedulers", "nodes", "submit", "run", "output", "fold"]


def _url(terminal: Terminal) -> str:
    return str(json.loads((terminal.directory / ".eventsched/dev.json").read_text())["http"])


@pytest.mark.parametrize("driver", ["process", "fake", "manual"])
def test_all_is_well(terminal: Terminal, driver: str) -> None:
    found = terminal.run("smoke", _url(terminal), "--driver", driver, "-o", "json").json
    assert [one["check"] for one in found["checks"]] == [*OVER_NATS, "http", "ready", "http job"]
    assert found["ok"] is True
    assert all(one["ok"] and one["ms"] >= 0 for one in found["checks"])
    jobs = terminal.json("jobs", "--limit", "2")
    assert [(one["labels"], one["state"]) for one in jobs] == [({"smoke": "true"}, "succeeded")] * 2
    assert {one["driver"] for one in jobs} == {driver}


def test_each_check_is_a_line_with_its_time(terminal: Terminal) -> None:
    lines = terminal.run("smoke").out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * len(OVER_NATS)
    assert [line.split()[3] for line in lines[:-1]] == OVER_NATS
    assert all(line.split()[2] == "ms" for line in lines[:-1])
    assert lines[-1].startswith("all is well (")


def test_a_job_that_does_not_start_is_told_with_the_reason_and_aborted(terminal: Terminal) -> None:
    done = terminal.run("smoke", _url(terminal), "--driver", "docker", "--timeout", "300ms", code=1)
    failed = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert [line.split()[3] for line in failed] == ["run", "http"]
    assert all("pending after 0.3 s: none of 1 nodes offers the docker driver" in line for line in failed)
    assert "2 of 10 checks failed" in done.out
    for job in terminal.json("jobs", "--limit", "2"):
        terminal.until_state(job["job_id"], "aborted")


def test_what_does_not_answer_is_named(terminal: Terminal, tmp_path: Path) -> None:
    done = terminal.run("smoke", "localhost:1", "--nats", "nats://127.0.0.1:1", code=1)
    assert [line.split()[0] for line in done.out.splitlines()] == ["FAIL", "FAIL", "2"]
    assert "no NATS server answers at nats://127.0.0.1:1" in done.out
    assert "http://localhost:1 does not answer" in done.out
    assert "URL" in terminal.run("smoke", "ftp://x", code=2).err
    assert "--timeout" in terminal.run("smoke", "--timeout", "5", code=2).err
    wrong = terminal.run("smoke", _url(terminal), "--driver", "fake", "--token", "wrong-0123456789abcdef", code=1)
    assert "401 UNAUTHORIZED" in wrong.out
    assert "EVENTSCHED_HTTP_TOKEN" in wrong.out
    assert "wrong-0123" not in wrong.out + wrong.err


def test_a_frozen_scheduler_and_a_node_that_takes_no_work_fail(tmp_path: Path) -> None:
    here = Terminal(tmp_path)
    here.dev("--driver", "fake")
    try:
        (node,) = here.json("nodes")
        here.run("cordon", node["node"])
        assert "none of 1 nodes takes work" in here.run("smoke", code=1).out
        here.run("uncordon", node["node"])
        scheduler = _children(here.dev_pid)["scheduler"]
        os.kill(scheduler, signal.SIGSTOP)
        try:
            said = here.run("smoke", code=1, timeout=60).out
        finally:
            os.kill(scheduler, signal.SIGCONT)
        assert "no scheduler answers" in said
        assert "ok" in here.run("smoke").out
    finally:
        here.kill()
