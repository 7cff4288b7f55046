"""What cannot be used is refused with code 2, the name of the option, and a way out; never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from .terminal import Terminal


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("submit", "--gpus", "-1", "busybox"), "--gpus"),
        (("submit", "--gpus", "1.5", "busybox"), "--gpus"),
        (("submit", "--gpus", "²", "busybox"), "--gpus"),
        (("submit", "--cpus", "1e999999999", "busybox"), "--cpus"),
        (("submit", "--retries", "1.5", "busybox"), "--retries"),
        (("submit", "--retries", "-1", "busybox"), "--retries"),
        (("submit", "--priority", "0x10", "busybox"), "--priority"),
        (("submit", "--max-runtime", "99999999999999999d", "busybox"), "--max-runtime"),
        (("submit", "--array", "3", "--logs", "busybox"), "--logs"),
        (("submit", "--wait", "--priority", "5000", "busybox"), "priority"),
        (("jobs", "--limit", "-1"), "--limit"),
        (("jobs", "--since", "99999999999999999d"), "--since"),
        (("jobs", "--since", "yesterday"), "--since"),
        (("events", "--from", "0"), "--from"),
        (("replay", "digest", "--at", "-1"), "--at"),
        (("wait", "any", "--timeout", "x"), "--timeout"),
        (("complete", "any", "--exit-code", "300"), "--exit-code"),
        (("complete", "any", "--exit-code", "-1"), "--exit-code"),
        (("drain", "any", "--deadline", "soon"), "--deadline"),
        (("drain", "any", "--deadline", "1m", "--now"), "--deadline"),
        (("tenant", "set", "x", "--runs", "-1"), "--runs"),
        (("tenant", "set", "x", "--weight", "0"), "--weight"),
        (("jobs", "--nats", "foo:bar"), "--nats"),
        (("jobs", "--nats", "nats://127.0.0.1:99999"), "--nats"),
        (("scheduler", "--finished-keep", "-1"), "--finished-keep"),
        (("dev", "--http-port", "-5"), "--http-port"),
        (("dev", "--nats-port", "80000"), "--nats-port"),
        (("dev", "--agents", "65"), "--agents"),
        (("dev", "--memory", "5Q", "--data", "elsewhere"), "--memory"),
        (("dev", "--data", "a-file"), "--data"),
        (("dev", "--data", "a-file/below"), "--data"),
    ],
)
def test_a_value_that_cannot_be_used(terminal: Terminal, arguments: tuple[str, ...], names: str) -> None:
    (terminal.directory / "a-file").touch()
    said = terminal.run(*arguments, code=2).err
    assert names in said
    assert "hint:" in said


def test_a_limit_of_everything_and_a_long_look_back_are_fine(terminal: Terminal) -> None:
    job_id = terminal.submit("--driver", "fake")
    terminal.run("wait", job_id)
    assert job_id in {view["job_id"] for view in terminal.json("jobs", "--limit", "0", "--since", "3650d")}
    assert terminal.run("events", "--from", "-1").out.count("\n") == 1


@pytest.mark.parametrize("name", ["CREDS", "CA", "CERT", "KEY"])
def test_a_missing_file_of_credentials_is_named(terminal: Terminal, name: str) -> None:
    said = terminal.run("jobs", code=2, environment={f"EVENTSCHED_NATS_{name}": "/no/such/file"}).err
    assert f"EVENTSCHED_NATS_{name}" in said
    assert "nkeys" in said or "/no/such/file" in said


def test_files_that_hold_something_else_are_named(terminal: Terminal, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("nothing of the kind\n")
    for name in ("CREDS", "CA", "CERT", "NKEY_SEED"):
        said = terminal.run("jobs", code=2, environment={f"EVENTSCHED_NATS_{name}": str(other)}).err
        assert f"EVENTSCHED_NATS_{name}" in said


def test_nothing_a_name_holds_reaches_the_terminal(terminal: Terminal) -> None:
    evil = "\x1b[2J\x9b31mred[bold]\nforged \u202eline"
    job_id = terminal.submit(
        *("--id", "speaks", "--driver", "process", "--name", evil, "--label", f"a={evil}", "--hold"),
        *("--", "printf", "raw \\033[1m"),
    )
    terminal.run("release", job_id)
    terminal.run("wait", job_id)
    second = terminal.submit("--tenant", "evil", "--driver", "fake", "--hold")
    terminal.run("abort", f"evil/{second}", "--reason", evil)
    shown = [
        terminal.run("job", job_id).out,
        terminal.run("jobs", "--all").out,
        terminal.run("jobs", "--all", "-o", "json").out,
        terminal.run("events").out,
        terminal.run("wait", second, code=None).out,
        terminal.run("job", evil, code=3).err,
    ]
    for text in shown:
        assert all(character.isprintable() or character == "\n" for character in text)
        assert not any(line.startswith("forged") for line in text.splitlines())
    assert r"\x1b[2J\x9b31mred[bold]\nforged \u202eline" in shown[0], "it is shown, and markup is no markup"
    assert terminal.json("job", job_id)["name"] == evil, "and JSON says what it is"
    assert terminal.run("logs", job_id).out == "raw \x1b[1m", "output stays as it is"


def test_refusals_are_sentences(terminal: Terminal) -> None:
    said = terminal.run("submit", "--priority", "5000", "busybox", code=2).err
    assert "out_of_range" not in said
    assert "a number is outside its range" in said
    waiting = terminal.submit("--driver", "fake", "--gpus", "B200:1")
    assert "has a GPU B200" in terminal.run("job", waiting).out
    terminal.run("abort", waiting)
    assert "aborted: abort was requested" in terminal.run("job", waiting).out


def test_variables_of_earlier_systems_are_accepted_and_explained(terminal: Terminal) -> None:
    variables = {"REDIS_HOST": "localhost", "REDIS_PORT": "6379", "JOB_POLL_INTERVAL": "5"}
    said = terminal.run("api", "--host", "0.0.0.0", code=2, environment=variables).err
    assert "note: REDIS_HOST, REDIS_PORT are not used" in said
    assert "note: JOB_POLL_INTERVAL is not used" in said
    node = ("agent", "--node", "n", "--nats", "nats://127.0.0.1:1", "--heartbeat", "1ms")
    assert "note: JOB_POLL" in terminal.run(*node, code=2, environment=variables).err
