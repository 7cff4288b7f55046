"""`submit -f`: documents as a whole, rows one by one; what was told is so."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .terminal import COMMAND, Terminal

HEADER = "job_id,tenant_id,gpu_type,gpus,priority,submitted_at\n"


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A cluster of its own: what is left waiting here is in nobody's way."""
    terminal = Terminal(tmp_path_factory.mktemp("files"))
    terminal.dev("--driver", "fake", "--cpus", "64")
    yield terminal
    assert terminal.stop().code == 0


def _write(terminal: Terminal, name: str, *jobs: Any) -> str:
    (terminal.directory / name).write_text("".join(json.dumps(job) + "\n" for job in jobs))
    return name


def test_documents_and_rows_are_submitted(terminal: Terminal) -> None:
    jobs = [{"job_id": f"file-{index}", "driver": "fake", "priority": index} for index in range(3)]
    (terminal.directory / "jobs.json").write_text(json.dumps(jobs))
    (terminal.directory / "one.toml").write_text('job_id = "file-toml"\ndriver = "fake"\n[fake]\nduration_ms = 5\n')
    many = '[[jobs]]\njob_id = "file-t1"\ndriver = "fake"\n[[jobs]]\njob_id = "file-t2"\ndriver = "fake"\n'
    (terminal.directory / "many.toml").write_text(many)
    _write(terminal, "jobs.jsonl", *({"job_id": f"file-n{index}", "driver": "fake"} for index in range(3)))
    (terminal.directory / "JOBS.CSV").write_text(HEADER + "file-c1,default,A100,1,5,0\nfile-c2,t2,A100,2,5,0\n")
    found = terminal.json("submit", "-f", "jobs.json")
    assert [(one["job"], one["job_id"], one["tenant"]) for one in found["accepted"]] == [
        (1, "file-0", "default"),
        (2, "file-1", "default"),
        (3, "file-2", "default"),
    ]
    assert (found["rejected"], found["accepted_count"], found["rejected_count"]) == ([], 3, 0)
    for name, ids in (
        ("one.toml", ["file-toml"]),
        ("many.toml", ["file-t1", "file-t2"]),
        ("jobs.jsonl", ["file-n0", "file-n1", "file-n2"]),
        ("JOBS.CSV", ["file-c1", "file-c2"]),
    ):
        assert [one["job_id"] for one in terminal.json("submit", "-f", name)["accepted"]] == ids, name
    for job_id in ("file-2", "file-toml", "file-t2", "file-n2"):
        terminal.run("wait", job_id)
    assert terminal.json("job", "t2/file-c2")["tenant"] == "t2"
    again = terminal.run("submit", "-f", "jobs.json", code=1)
    assert again.err.count("is taken") == 3
    assert again.out == "0 accepted, 3 refused\n"


def test_stdin_is_json_unless_it_is_said_to_be_rows(terminal: Terminal) -> None:
    piped = terminal.run("submit", "-f", "-", "-o", "json", stdin='{"job_id":"piped","driver":"fake"}')
    assert piped.json["accepted"][0]["job_id"] == "piped"
    lines = '{"job_id":"piped-1","driver":"fake"}\n{"job_id":"piped-2","driver":"fake"}\n'
    assert "--format" in terminal.run("submit", "-f", "-", stdin=lines, code=2).err
    assert "2 accepted" in terminal.run("submit", "-f", "-", "--format", "ndjson", stdin=lines).out
    assert "--format" in terminal.run("submit", "--format", "csv", "busybox", code=2).err


def test_each_row_has_its_own_fate_with_its_line(terminal: Terminal) -> None:
    rows = [f"fate-{index},t1,A100,{0 if index in (3, 50) else 1},5,0\n" for index in range(100)]
    (terminal.directory / "hundred.csv").write_text(HEADER + "".join(rows))
    done = terminal.run("submit", "-f", "hundred.csv", code=1)
    assert done.out.endswith("98 accepted, 2 refused\n")
    assert re.findall(r"^refused: (hundred\.csv, line \d+): (gpus)", done.err, re.MULTILINE) == [
        ("hundred.csv, line 5", "gpus"),
        ("hundred.csv, line 52", "gpus"),
    ]
    _write(terminal, "rows.ndjson", {"job_id": "row-1", "driver": "fake"}, {"driver": "fake", "cpus": 2}, 5)
    with (terminal.directory / "rows.ndjson").open("a") as file:
        file.write('\n{"driver":\n{"jobId":"row-6","resourceRequest":{"cpu":1}}\n')
    found = terminal.run("submit", "-f", "rows.ndjson", "-o", "json", code=1)
    assert [(one["line"], one["job_id"]) for one in found.json["accepted"]] == [(1, "row-1"), (6, "row-6")]
    assert [(one["line"], one["error"]["message"]) for one in found.json["rejected"]] == [
        (2, "cpus: is not a field of a job"),
        (3, "a job is a JSON object"),
        (5, "is not JSON: Input data was truncated"),
    ]
    assert (found.json["accepted_count"], found.json["rejected_count"]) == (2, 3)
    many = terminal.run("submit", "-f", "hundred.csv", code=1)
    assert many.err.count("refused: ") == 21
    assert "80 more" in many.err


def test_waiting_for_the_rows_that_were_accepted(terminal: Terminal) -> None:
    name = _write(terminal, "wait.ndjson", {"driver": "fake", "job_id": "waited"}, {"driver": "fake", "cpus": 2})
    done = terminal.run("submit", "-f", name, "--wait", code=125)
    assert "waited succeeded" in done.err
    assert "1 accepted, 1 refused" in done.err
    name = _write(terminal, "array.ndjson", {"driver": "fake", "array": 2}, {"driver": "fake", "job_id": "no-array"})
    assert "array" in terminal.run("submit", "-f", name, "--logs", code=125).err


def test_a_bar_is_drawn_on_a_terminal_only(terminal: Terminal) -> None:
    name = _write(terminal, "drawn.ndjson", *({"driver": "fake", "hold": True} for _ in range(3_000)))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "submit", "-f", name, "-o", "json"],
        cwd=terminal.directory,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["accepted_count"] == 3_000, "the bar stays out of the answer"
    drawn = b""
    with pytest.raises(OSError, match="Input/output error"):  # the end, on a terminal
        while True:
            drawn += os.read(ours, 65_536)
    os.close(ours)
    assert b"3,000 accepted" in drawn
    assert b"100%" in drawn
    assert terminal.run("submit", "-f", name).err == ""


def test_every_row_that_was_told_is_there_when_it_is_killed_in_the_middle(terminal: Terminal) -> None:
    jobs = ({"driver": "fake", "hold": True, "job_id": f"told-{index}", "tenant": "told"} for index in range(40_000))
    name = _write(terminal, "told.ndjson", *jobs)
    with subprocess.Popen(
        [*COMMAND, "submit", "-f", name, "-o", "json"], cwd=terminal.directory, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        told = process.stdout.read(200_000)
        process.kill()
        told += process.stdout.read()
    reported = re.findall(r'"job_id":"(told-\d+)","tenant":"told","seq":\d+}', told.decode())
    assert 2_000 < len(reported) < 40_000
    there = {one["job_id"] for one in terminal.json("jobs", "--tenant", "told")}
    assert not [job_id for job_id in reported if job_id not in there]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"driver":"fake","job_id":null}', "job_id"),
        ('{"driver":"fake","job_id":7}', "job_id"),
        ('{"driver":"fake","tenant":null}', "tenant"),
        ('[{"driver":"fake"},{"driver":"fake","priority":5000}]', "job 2: priority"),
        ('[{"driver":"fake"},{"driver":"fake","job_id":"no id!"}]', "job 2: job_id"),
        ('{"driver":"fake","labels":' + '{"a":' * 100_000, "nested"),
        ("[" * 100_000, "nested"),
        ("5", "a job is a JSON object"),
        ("[]", "no job"),
        ("{", "jobs.json"),
        ("\udcff", "jobs.json"),
    ],
)
def test_a_file_with_a_fault_submits_nothing(terminal: Terminal, text: str, names: str) -> None:
    (terminal.directory / "jobs.json").write_bytes(text.encode(errors="surrogateescape"))
    before = terminal.json("stats")["seq"]
    said = terminal.run("submit", "-f", "jobs.json", code=2).err
    assert names in said
    assert "jobs.json" in said
    assert not _submitted_since(terminal, before)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("bad.toml", b"x = [", "bad.toml"),
        ("bad.csv", b"job_id,what\na,b\n", "column 'what'"),
        ("empty.csv", b"", "the header is missing"),
        ("empty.ndjson", b"\n\n", "no job in it"),
        ("bytes.ndjson", b'{"driver":"fake"}\n{"driver":"\xff"}\n', "not UTF-8"),
        ("bytes.csv", HEADER.encode() + b"j,t,A100,1,5,0\nj\xff,t,A100,1,5,0\n", "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_submits_nothing(
    terminal: Terminal, name: str, data: bytes, says: str
) -> None:
    (terminal.directory / name).write_bytes(data)
    before = terminal.json("stats")["seq"]
    said = terminal.run("submit", "-f", name, code=2).err
    assert name in said
    assert says in said
    assert not _submitted_since(terminal, before)


def _submitted_since(terminal: Terminal, seq: int) -> list[str]:
    lines = terminal.run("events", "--from", str(seq + 1), "-o", "json").out.splitlines()
    return [line for line in lines if json.loads(line)["kind"] == "submitted"]


def test_what_is_no_file_is_named(terminal: Terminal, tmp_path: Path) -> None:
    assert "directory" in terminal.run("submit", "-f", ".", code=2).err
    assert "nowhere.csv" in terminal.run("submit", "-f", str(tmp_path / "nowhere.csv"), code=2).err


def test_a_file_says_what_its_jobs_ask_for(terminal: Terminal) -> None:
    (terminal.directory / "jobs.json").write_text('{"driver":"fake","job_id":"from-a-file"}')
    given = ("--id", "x", "--priority", "0", "--gpus", "1", "--hold", "--env", "A=1", "--after-ok", "b")
    refused = terminal.run("submit", "-f", "jobs.json", *given, code=2).err
    for option in given:
        if option.startswith("--"):
            assert option in refused
    assert "IMAGE" in terminal.run("submit", "-f", "jobs.json", "busybox", code=2).err
    done = terminal.run("submit", "-f", "jobs.json", "--wait", "--tenant", "filed", "-o", "json")
    assert (done.json["tenant"], done.json["state"]) == ("filed", "succeeded"), "these go with a file"
