"""HTTP as `eventsched dev` serves it, and the commands of its page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .pages import blocks
from .terminal import Terminal
from .test_dev import _children

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy/docs/http.md").read_text()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.kill()


def _ask(url: str, method: str = "GET", body: Any = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def _curls(section: str) -> list[str]:
    return [line for block in blocks(section, "sh") for line in block.splitlines() if line.startswith("curl ")]


def _run(line: str, url: str) -> str:
    command = line.replace("localhost:8000", url.removeprefix("http://")).replace("curl ", "curl -sS -m 20 ", 1)
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=True).stdout


def test_the_service_of_dev_takes_its_token_and_comes_back_without_refusing_anyone(here: Terminal) -> None:
    said = here.dev("--driver", "process", "--cpus", "4")
    found = re.search(r"http +(http://\S+)/schema; .*: (\S+)", said)
    assert found is not None
    url, token = found.groups()
    job = _ask(f"{url}/jobs", "POST", {"driver": "process", "command": ["echo", "hello"]})
    here.run("wait", job["job_id"])
    assert _ask(f"{url}/jobs/{job['job_id']}", Authorization=f"Bearer {token}", Host="far.example")["logs"] == "hello\n"
    os.kill(_children(here.dev_pid)["api"], signal.SIGKILL)
    assert _ask(f"{url}/healthz")["status"] == "ok", "the socket is held, so that a client only waits"


def test_the_first_commands_of_the_page(here: Terminal) -> None:
    said = here.dev("--driver", "process", "--cpus", "4")
    url = re.search(r"(http://127\S+)/schema", said)
    assert url is not None
    submit, show, follow = _curls(PAGE.partition("## Forms")[0])
    submit = submit.replace('"image":"busybox"', '"driver":"process"')
    job_id = json.loads(_run(submit, url[1]))["job_id"]
    here.run("wait", job_id)
    assert json.loads(_run(show.replace("JOB", job_id), url[1]))["status"] == "SUCCEEDED"
    assert 'data: "hi\\n"' in _run(follow.replace("JOB", job_id), url[1])


def test_the_page_of_jobs_finished_by_hand(here: Terminal) -> None:
    assert "eventsched dev --config deploy/quota.toml" in PAGE
    said = here.dev("--config", str(ROOT / "deploy/quota.toml"))
    url = re.search(r"(http://127\S+)/schema", said)
    assert url is not None
    submit, schedule, complete = _curls(PAGE.partition("## Forms")[2])
    assert json.loads(_run(submit, url[1]))["status"] == "WAITING"
    assert json.loads(_run(schedule, url[1]))["scheduled"] == ["j1"]
    assert json.loads(_run(complete, url[1]))["status"] == "COMPLETED"
    assert "DUPLICATE_JOB" in _run(submit, url[1])
    nobody = submit.replace('"t1"', '"t9"').replace('"j1"', '"j9"')
    assert json.loads(_run(nobody, url[1]))["status"] == "WAITING"
    _ask(f"{url[1]}/jobs", "POST", {"job_id": "c9", "tenant": "t9", "driver": "manual"})  # without a GPU, either
    assert json.loads(_run(schedule, url[1]))["scheduled"] == []
    assert {_ask(f"{url[1]}/jobs/{one}")["reason"] for one in ("j9", "c9")} == {"quota"}
    limits = {one["tenant"]: one["limits"] for one in _ask(f"{url[1]}/tenants")}
    assert len(limits["t1"]) == 2, "a limit for each model"
    assert here.stop().code == 0
    here.run("dev", "--config", "none.toml", code=2)
    (here.directory / "wrong.toml").write_text('clok = "manual"\n')
    assert "clok" in here.run("dev", "--config", "wrong.toml", code=2).err


def test_every_form_of_the_page_is_taken(here: Terminal) -> None:
    said = here.dev("--driver", "fake")
    url = re.search(r"(http://127\S+)/schema", said)
    assert url is not None
    forms = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert forms is not None
    taken = [_ask(f"{url[1]}/jobs", "POST", json.loads(line)) for line in forms[1].splitlines()]
    assert len(taken) == 4
    deadline = time.monotonic() + 20
    while (jobs := _ask(f"{url[1]}/stats")["jobs"].get("pending", 0)) < 4:
        assert time.monotonic() < deadline, f"{jobs} of 4 jobs wait"
        time.sleep(0.05)
    assert [one["state"] for one in _ask(f"{url[1]}/jobs")] == ["pending"] * 4
