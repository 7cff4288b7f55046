"""The command line as a user types it: verbs, exit codes, JSON, errors that help."""

from __future__ import annotations

import json
import signal
import time

import pytest

from .terminal import Terminal

SH = ("--driver", "process", "--", "sh", "-c")
JOB_KEYS = {"job_id", "tenant", "state", "reason", "node", "attempt", "exit_code"} | {
    f"{moment}_ms" for moment in ("submitted", "assigned", "started", "finished")
}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((*SH, "exit 0"), 0, "succeeded"),
        ((*SH, "exit 7"), 7, "failed"),
        (("--driver", "process", "--", "no-such-command"), 127, "not found"),
        (("--max-runtime", "300ms", *SH, "sleep 60"), 124, "timed_out"),
        (("--driver", "fake", "--cpus", "100", "--queue-timeout", "300ms"), 125, "expired"),
        (("--driver", "fake", "--after-ok", "nobody"), 125, "nobody"),
        (("--driver", "fake", "--array", "3"), 0, "succeeded"),
        (("--array", "2", *SH, "exit $EVENTSCHED_ARRAY_INDEX"), 1, "failed"),
        (
            ("--retries", "1", "--backoff", "100ms", *SH, "test $EVENTSCHED_ATTEMPT = 2"),
            0,
            "succeeded",
        ),
        ((*SH, "kill -9 $$"), 137, "failed"),
    ],
)
def test_submit_and_wait_mirror_the_exit_code(
    terminal: Terminal, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = terminal.run("submit", "--wait", *arguments, code=code)
    assert says in done.err
    job_id = terminal.json("jobs", "--all", "--limit", "1")[0]["job_id"]
    assert terminal.run("wait", job_id, code=code).code == code


def test_a_server_that_is_not_there(terminal: Terminal) -> None:
    nowhere = ("--nats", "nats://127.0.0.1:1")
    for verb in (("jobs",), ("submit", "busybox"), ("nodes",), ("replay", "digest")):
        done = terminal.run(*verb, *nowhere, code=4)
        assert "no NATS server answers at nats://127.0.0.1:1" in done.err
        assert "hint:" in done.err
    assert terminal.run("submit", "--wait", "busybox", *nowhere, code=125).code == 125
    assert terminal.run("wait", "x", *nowhere, code=125).code == 125


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("jobs", "--nonsense"),
        ("job",),
        ("submit", "--retries", "x", "busybox"),
        ("jobs", "-o", "xml"),
    ],
)
def test_wrong_usage(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    terminal.run(*arguments, code=2)


def test_help_names_every_verb(terminal: Terminal) -> None:
    text = terminal.run("--help").out
    reading = ["jobs", "job", "logs", "nodes", "node", "events", "stats", "wait"]
    steering = ["submit", "abort", "hold", "release", "requeue", "drain", "cordon", "uncordon"]
    for verb in [*reading, *steering, "dev", "scheduler", "agent", "bench", "replay"]:
        line = next(line for line in text.splitlines() if f" {verb} " in line)
        assert len(line.split()) > 4, f"{verb} is not explained: {line}"
    for verb in ("submit", "dev", "jobs"):
        assert "Usage" in terminal.run(verb, "--help").out


def test_a_job_as_json_and_as_text(terminal: Terminal) -> None:
    job_id = terminal.submit("--name", "shown", *SH, "echo out; echo err >&2; exit 3")
    terminal.run("wait", job_id, code=3)
    view = terminal.json("job", job_id)
    assert set(view) >= JOB_KEYS
    assert (view["state"], view["reason"], view["exit_code"], view["attempt"]) == ("failed", "exit_code", 3, 1)
    assert view["submitted_ms"] <= view["assigned_ms"] <= view["started_ms"] <= view["finished_ms"]
    assert view["node"] == terminal.json("nodes")[0]["node"]
    text = terminal.run("job", job_id).out
    for word in (job_id, "failed", "exit_code", "exit code 3"):
        assert word in text
    assert "out" in terminal.run("logs", job_id).out


def test_jobs_and_their_filters(terminal: Terminal) -> None:
    done = terminal.submit("--tenant", "filters", "--driver", "fake", "--name", "done")
    held = terminal.submit("--tenant", "filters", "--driver", "fake", "--name", "held", "--hold")
    terminal.run("wait", done, "--tenant", "filters")

    def ids(*arguments: str) -> set[str]:
        views = terminal.json("jobs", "--tenant", "filters", *arguments)
        assert all(set(view) >= JOB_KEYS for view in views)
        return {view["job_id"] for view in views}

    assert ids() == {done, held}
    assert ids("--state", "succeeded") == {done}
    assert ids("--state", "pending") == {held}
    assert ids("--node", terminal.json("nodes")[0]["node"]) == {done}
    assert ids("--since", "1ms") == {held}, "live ones are always shown; a command takes longer than that to start"
    assert ids("--all") == {done, held}
    assert ids("--limit", "1") == {held}, "newest first"
    table = terminal.run("jobs", "--tenant", "filters").out
    assert table.splitlines()[0].split()[:1] == ["JOB"]
    assert "REASON" in table.splitlines()[0]
    assert all(line == line.rstrip() for line in table.splitlines())
    assert "held" in next(line for line in table.splitlines() if held in line)
    assert "states:" in terminal.run("jobs", "--state", "nonsense", code=2).err


def test_ids_may_be_shortened_and_mistyped(terminal: Terminal) -> None:
    first = terminal.submit("--id", "prefix-one", "--driver", "fake")
    terminal.submit("--id", "prefix-two", "--driver", "fake")
    assert terminal.json("job", "prefix-o")["job_id"] == first
    assert "prefix-one" in terminal.run("job", "prefix-", code=1).err
    missing = terminal.run("job", "prefix-oen", code=3).err
    assert "prefix-one" in missing, "near matches are offered"
    assert terminal.run("wait", "never-heard-of", code=3).code == 3
    assert terminal.run("abort", "never-heard-of", code=3).code == 3
    several = [terminal.submit("--driver", "fake", "--hold") for _ in range(2)]
    some = terminal.run("abort", several[0], "never-heard-of", several[1], code=3)
    assert [line.split("/")[-1] for line in some.out.splitlines()] == [f"{one} requested" for one in several]
    assert "JOB_ID: none is given" in terminal.run("abort", code=2).err
    assert "taken" in terminal.run("submit", "--id", "prefix-one", "--driver", "fake", code=1).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cpus", "nan", "busybox"), "--cpus"),
        (("--memory", "5Q", "busybox"), "--memory"),
        (("--env", "X", "busybox"), "--env"),
        (("--max-runtime", "soon", "busybox"), "--max-runtime"),
        (("--priority", "5000", "busybox"), "priority"),
        (("--retries", "-1", "busybox"), "retries"),
        (("--id", "Not An Id!", "busybox"), "job id"),
        ((), "image"),
        (("--volume", "/nowhere", "busybox"), "--volume"),
        (("--file", "missing.json"), "missing.json"),
    ],
)
def test_a_bad_submission_names_the_field(terminal: Terminal, arguments: tuple[str, ...], says: str) -> None:
    assert says in terminal.run("submit", *arguments, code=2).err


def test_output_is_followed_and_stays(terminal: Terminal) -> None:
    seen = terminal.directory / "seen"
    job_id = terminal.submit(*SH, f"echo line 1; until [ -e {seen} ]; do sleep 0.05; done; echo line 2; echo line 3")
    following = terminal.spawn("logs", "-f", job_id)
    assert following.stdout is not None
    assert following.stdout.readline() == "line 1\n", "it comes while the job runs: the job waits for this"
    seen.touch()
    assert following.stdout.read() == "line 2\nline 3\n"
    assert following.wait(10) == 0
    assert terminal.run("logs", job_id).out == "line 1\nline 2\nline 3\n"
    shown = terminal.run("submit", "--logs", *SH, "echo seen; exit 4", code=4)
    assert shown.out == "seen\n"


def test_abort_hold_release_requeue_complete(terminal: Terminal) -> None:
    job_id = terminal.submit("--name", "steered", "--hold", *SH, "sleep 60")
    assert terminal.json("job", job_id)["reason"] == "held"
    terminal.run("release", job_id)
    first = terminal.until_state(job_id, "running")
    terminal.run("requeue", job_id)
    deadline = time.monotonic() + 20
    while terminal.json("job", job_id)["attempt"] == first["attempt"]:
        assert time.monotonic() < deadline
    terminal.until_state(job_id, "running")
    assert "is running after 0.2 s" in terminal.run("wait", job_id, "--timeout", "200ms", code=124).err
    terminal.run("abort", job_id, "--reason", "enough of it")
    view = terminal.until_state(job_id, "aborted")
    assert "enough of it" in json.dumps(view)
    assert "has ended" in terminal.run("abort", job_id, code=1).err
    manual = terminal.submit("--driver", "manual")
    terminal.until_state(manual, "running")
    terminal.run("complete", manual, "--exit-code", "5")
    terminal.run("wait", manual, code=5)


def test_who_waits_for_long_is_told_why(terminal: Terminal) -> None:
    args = ("submit", "--driver", "fake", "--cpus", "100", "--id", "vast", "--queue-timeout", "6s", "--wait")
    said = terminal.run(*args, code=125).err
    assert said.count("default/vast waits: too_big: asks 100 cpus, the largest node has ") == 1
    job_id = terminal.submit("--driver", "fake", "--hold")
    for verb in (("wait", job_id, "--timeout", "5s"), ("wait", job_id[:20], "--timeout", "5s")):
        assert f"default/{job_id} waits: held: release it" in terminal.run(*verb, code=124).err
    terminal.run("abort", job_id)


def test_nodes_and_their_states(terminal: Terminal) -> None:
    (node,) = terminal.json("nodes")
    assert {"node", "state", "capacity", "free"} <= set(node)
    assert node["capacity"]["cpu_millis"] == 4000
    assert node["capacity"]["gpus"] == {"A100": 2}
    name = node["node"]
    job_id = terminal.submit("--gpus", "A100:1", *SH, "echo $CUDA_VISIBLE_DEVICES; sleep 60")
    terminal.until_state(job_id, "running")
    busy = terminal.json("node", name)
    assert busy["free"]["gpus"] == {"A100": 1}
    assert job_id in terminal.run("node", name).out
    terminal.run("cordon", name)
    assert "cordoned" in terminal.run("nodes").out
    waiting = terminal.submit("--driver", "fake")
    view = terminal.until_state(waiting, "pending")
    assert view["reason"], "it says why it waits"
    terminal.run("drain", name, "--now")
    terminal.until_state(job_id, "pending")
    terminal.run("uncordon", name)
    terminal.run("wait", waiting)
    terminal.until_state(job_id, "running")
    terminal.run("abort", job_id)
    assert name in terminal.run("cordon", f"{name}x", code=3).err, "near matches of nodes, too"


def test_arrays_and_dependencies(terminal: Terminal) -> None:
    array = terminal.submit("--name", "sweep", "--array", "4", *SH, "echo member $EVENTSCHED_ARRAY_INDEX")
    then = terminal.submit("--after-ok", array, "--driver", "fake")
    terminal.run("wait", then)
    members = terminal.json("jobs", "--array", array)
    assert {view["job_id"] for view in members} == {f"{array}.{index}" for index in range(4)}
    assert terminal.run("logs", f"{array}.3").out == "member 3\n"
    assert f"{array}.0" in terminal.run("logs", array, code=1).err
    failed = terminal.submit(*SH, "exit 1")
    never = terminal.submit("--after-ok", failed, "--driver", "fake")
    anyway = terminal.submit("--after-any", failed, "--driver", "fake")
    terminal.run("wait", anyway)
    assert terminal.run("wait", never, code=125).code == 125
    assert terminal.json("job", never)["reason"] == "dependency_failed"


def test_events_tell_the_story(terminal: Terminal) -> None:
    job_id = terminal.submit("--driver", "fake")
    terminal.run("wait", job_id)
    lines = terminal.run("events", "--job", job_id).out.splitlines()
    story = " ".join(lines)
    for word in ("submitted", "assigned", "started", "exited"):
        assert word in story, story
    assert [int(line.split()[0].lstrip("#")) for line in lines] == sorted(
        int(line.split()[0].lstrip("#")) for line in lines
    )
    documents = [json.loads(line) for line in terminal.run("events", "--job", job_id, "-o", "json").out.splitlines()]
    assert documents[0]["kind"] == "submitted"
    assert set(documents[0]) == {"seq", "at_ms", "subject", "kind", "event"}
    following = terminal.spawn("events", "--follow", "--from", "-1")
    assert following.stdout is not None
    following.stdout.readline()
    other = terminal.submit("--driver", "fake")
    assert any(other in line for line in following.stdout)
    following.send_signal(signal.SIGINT)
    following.stdout.read()  # to its end: were it closed now, a line under way would end the command first
    assert following.wait(10) == 130


def test_stats_and_digests(terminal: Terminal) -> None:
    stats = terminal.json("stats")
    assert stats["leader"] == "dev"
    whole = terminal.json("replay", "digest")
    assert set(whole) >= {"seq", "digest"}
    then = terminal.json("replay", "digest", "--at", "10")
    assert then["seq"] == 10
    assert then["digest"] != whole["digest"]
    assert terminal.json("replay", "digest", "--at", "10") == then
    assert "the log ends at sequence" in terminal.run("replay", "digest", "--at", "99999999", code=1).err
    assert "leader" in terminal.run("stats").out


def test_a_pipe_that_is_closed_early(terminal: Terminal) -> None:
    reading = terminal.spawn("events")
    assert reading.stdout is not None
    reading.stdout.readline()
    reading.stdout.close()
    assert reading.wait(20) == 0


def test_policies_are_listed_shown_and_switched(terminal: Terminal) -> None:
    names = [view["name"] for view in terminal.json("policy", "list")]
    assert {"best-fit", "first-fit", "spread", "random", "fifo", "quota-aging", "drf"} <= set(names)
    assert terminal.json("policy", "show")["name"] == "fgd"
    assert "least left over" in terminal.run("policy", "show", "best-fit").out
    chosen = terminal.json("policy", "set", "quota-aging", "aging_ms=1000", "score=spread")
    assert (chosen["name"], chosen["current"], chosen["params"]["aging_ms"]) == ("quota-aging", True, 1000)
    assert "quota-aging/1" in terminal.run("stats").out
    terminal.run("wait", terminal.submit("--driver", "fake"))
    assert "known:" in terminal.run("policy", "set", "nonsense", code=1).err
    assert "order" in terminal.run("policy", "set", "best-fit", "colour=blue", code=1).err
    assert terminal.run("policy", "show", "nonsense", code=3).code == 3
    assert "decides now" in terminal.run("policy", "set", "fgd").out
    assert "* " in terminal.run("policy", "list").out


def test_quotas_of_tenants(terminal: Terminal) -> None:
    terminal.run("tenant", "set", "limited", "--runs", "1", "--gpus", "A100:1", "--memory", "1G", "--weight", "2")
    held = [terminal.submit("--tenant", "limited", "--driver", "fake", "--duration", "60s") for _ in range(2)]
    terminal.until_state(held[0], "running")
    waiting = terminal.json("job", held[1])
    assert (waiting["state"], waiting["reason"]) == ("pending", "quota")
    assert "asks 1 run; tenant limited holds 1 of 1" in waiting["detail"]
    (view,) = [one for one in terminal.json("tenant", "list") if one["tenant"] == "limited"]
    assert (view["weight"], view["held"]["runs"], view["waiting"], view["own_limits"]) == (2, 1, 1, True)
    assert view["limits"] == {"runs": 1, "memory_bytes": 1 << 30, "gpu_millis:a100": 1000}
    assert "1 of 1" in terminal.run("tenant", "show", "limited").out
    terminal.run("tenant", "remove", "limited")
    terminal.until_state(held[1], "running")
    for job_id in held:
        terminal.run("abort", f"limited/{job_id}")
    assert "not an id" in terminal.run("tenant", "set", "No Id!", code=2).err
    assert terminal.run("tenant", "show", "never-seen", code=3).code == 3
    assert "--gpus" in terminal.run("tenant", "set", "x", "--gpus", "A100=4", code=2).err
