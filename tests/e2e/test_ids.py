"""Which job a verb means: reading may guess, changing may not, and nobody reaches into another tenant by accident."""

from __future__ import annotations

import pytest

from .terminal import Terminal

HELD = ("--driver", "fake", "--hold")


@pytest.mark.parametrize("verb", ["abort", "hold", "release", "requeue", "complete"])
def test_what_changes_a_job_takes_no_guess(terminal: Terminal, verb: str) -> None:
    terminal.submit("--id", f"{verb}train10", *HELD)
    refused = terminal.run(verb, f"{verb}train1", code=3).err
    assert f"did you mean {verb}train10?" in refused
    assert "whole id" in refused
    assert terminal.json("job", f"{verb}train1")["job_id"] == f"{verb}train10", "reading may guess"
    view = terminal.json("job", f"{verb}train10")
    assert (view["state"], view["held"]) == ("pending", True), "nothing has happened to it"
    terminal.run("abort", f"{verb}train10")


def test_the_beginning_of_a_made_id_names_it_when_it_is_long_enough(terminal: Terminal) -> None:
    ulid, named = terminal.submit(*HELD), terminal.submit("--name", "made-by-us", *HELD)
    terminal.run("hold", ulid[:3], code=None)
    assert terminal.json("job", ulid)["state"] == "pending"
    assert "did you mean" in terminal.run("abort", "made-by-us", code=3).err, "a name is not an id"
    assert "did you mean" in terminal.run("abort", named[: len("made-by-us-") + 2], code=3).err
    assert named in terminal.run("abort", named[: len("made-by-us-") + 4]).out
    assert terminal.json("job", named)["state"] == "aborted"
    assert ulid in terminal.run("abort", ulid[:20]).out
    assert terminal.json("job", ulid)["state"] == "aborted"


def test_another_tenants_job_is_changed_only_when_it_is_named(terminal: Terminal) -> None:
    terminal.submit("--tenant", "theirs", "--id", "across", *HELD)
    refused = terminal.run("abort", "across", code=3).err
    assert "did you mean theirs/across?" in refused
    assert "--tenant" in refused
    assert "theirs/across" in terminal.run("abort", "acros", code=3).err
    assert terminal.json("job", "across")["state"] == "pending", "reading finds it"
    assert "theirs/across is released" in terminal.run("release", "theirs/across").out
    terminal.run("wait", "theirs/across")
    terminal.submit("--tenant", "theirs", "--id", "across-2", *HELD)
    terminal.run("abort", "across-2", "--tenant", "theirs")
    assert terminal.json("job", "theirs/across-2")["state"] == "aborted"


def test_ones_own_job_is_meant_when_several_tenants_have_one_like_it(terminal: Terminal) -> None:
    for tenant in ("default", "others", "third"):
        terminal.submit("--tenant", tenant, "--id", "same-id", "--driver", "process", "--", "echo", tenant)
    for verb in (("job", "same-id", "-o", "json"), ("wait", "same-id", "-o", "json")):
        assert terminal.run(*verb).json["tenant"] == "default"
    assert terminal.run("logs", "same-id").out == "default\n"
    assert terminal.json("job", "same-id", "--tenant", "others")["tenant"] == "others"
    terminal.run("wait", "others/same-id")
    assert terminal.run("logs", "others/same-id").out == "others\n"
    assert "others/same-id" in terminal.run("events", "--job", "others/same-id").out
    assert terminal.json("job", "same-i")["tenant"] == "default", "also by the beginning of its id"
    terminal.submit("--tenant", "others", "--id", "elsewhere-a", "--driver", "fake")
    terminal.submit("--tenant", "third", "--id", "elsewhere-a", "--driver", "fake")
    several = terminal.run("job", "elsewhere-a", code=1).err
    assert "others/elsewhere-a" in several
    assert "third/elsewhere-a" in several


def test_members_are_named_with_their_arrays(terminal: Terminal) -> None:
    array = terminal.submit("--tenant", "arrays", "--array", "12", *HELD)
    assert f"arrays/{array}.1 " in terminal.run("abort", f"arrays/{array}.1").out
    states = {view["job_id"]: view["state"] for view in terminal.json("jobs", "--array", f"arrays/{array}")}
    assert states[f"{array}.1"] == "aborted"
    assert states[f"{array}.10"] == states[f"{array}.11"] == "pending"
    terminal.run("abort", f"arrays/{array}")


def test_names_that_name_nothing(terminal: Terminal) -> None:
    for typed in ("", "/", "acme/", "/j1"):
        assert "job id" in terminal.run("abort", typed, code=2).err
        assert "job id" in terminal.run("job", typed, code=2).err


def test_requests_that_cannot_come_to_anything_are_refused(terminal: Terminal) -> None:
    held = terminal.submit(*HELD)
    waits = terminal.run("requeue", held, code=1).err
    assert f"default/{held} waits already" in waits
    assert "release" in waits
    assert "only jobs of the driver manual" in terminal.run("complete", held, code=1).err
    manual = terminal.submit("--driver", "manual", "--hold")
    assert "does not run now" in terminal.run("complete", manual, code=1).err
    array = terminal.submit("--driver", "manual", "--array", "2")
    terminal.until_state(f"{array}.0", "running")
    assert f"{array}.0" in terminal.run("complete", array, code=1).err
    for member in ("0", "1"):
        terminal.until_state(f"{array}.{member}", "running")
        terminal.run("complete", f"{array}.{member}")
    terminal.run("wait", array)
    for job_id in (held, manual):
        terminal.run("abort", job_id)
