"""`eventsched dev` as a new user meets it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventsched.nats_server import free_port

from .terminal import Terminal


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.kill()


def _containers(cluster: str) -> list[str]:
    label = f"label=eventsched.cluster={cluster}"
    listed = subprocess.run(["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True)
    return listed.stdout.split()


def _processes(here: Terminal) -> str:
    """Processes of this directory."""
    found = subprocess.run(["pgrep", "-af", str(here.directory)], capture_output=True, text=True, check=False)
    return found.stdout


def test_it_says_what_runs_and_stops_cleanly_and_goes_on(here: Terminal) -> None:
    said = here.dev("--driver", "process")
    assert "eventsched dev is up" in said
    for word in ("log ", "scheduler", "agents", "http", "submit", "jobs", "events --follow"):
        assert word in said
    job_id = here.submit("--driver", "process", "--", "echo", "kept")
    here.run("wait", job_id)
    running = here.submit("--driver", "process", "--name", "long", "--", "sleep", "60")
    here.until_state(running, "running")
    before = here.json("stats")
    stopped = here.stop()
    assert stopped.code == 0
    assert "stopped; the log stays in .eventsched" in stopped.out
    assert not (here.directory / ".eventsched" / "dev.json").exists(), "commands do not look for it any more"
    here.dev("--driver", "process")
    after = here.json("stats")
    assert after["cluster_id"] == before["cluster_id"]
    assert after["seq"] > before["seq"]
    assert here.json("job", job_id)["state"] == "succeeded"
    assert here.run("logs", job_id).out == "kept\n"
    assert here.until_state(running, "running")["attempt"] == 2, "it was stopped with its node, and began again"
    assert here.stop().code == 0
    deadline = time.monotonic() + 5  # the leash looks at its lease now and then
    while leftover := _processes(here):
        assert time.monotonic() < deadline, f"nothing goes on after Ctrl-C: {leftover}"
        time.sleep(0.05)


def test_a_file_sets_prices_and_what_tenants_without_limits_get_once(here: Terminal) -> None:
    config = here.directory / "setup.toml"
    config.write_text('driver = "fake"\nquota_default = "nothing"\n[prices]\ngpu_models = { A100 = 2_500_000 }\n')
    here.dev("--config", str(config))
    assert here.json("price", "show")["gpu_models"] == {"a100": 2_500_000}
    job_id = here.submit("--driver", "fake")
    waiting = here.json("job", job_id)
    assert (waiting["state"], waiting["reason"]) == ("pending", "quota")
    here.run("price", "set", "--cpu", "1")
    assert here.stop().code == 0
    here.dev("--config", str(config))
    assert here.json("price", "show")["core_micros_per_h"] == 1_000_000, "what was changed by hand stays"
    config.write_text("[prices]\ncore_micros_per_h = -1\n")
    assert "core_micros_per_h: -1 is not between" in here.run("dev", "--config", str(config), code=2).err


def test_a_second_one_in_the_same_place_is_refused(here: Terminal) -> None:
    said = here.dev("--driver", "fake")
    url = re.search(r"http://127.0.0.1:(\d+)", said)
    assert url is not None
    error = here.run("dev", "--driver", "fake", "--http-port", url[1], code=1).err
    assert "runs here already" in error, "that is what is wrong, not that its port is taken"
    assert "--data" in error
    assert here.json("stats")["leader"] == "dev", "the first goes on"


def _children(of: int) -> dict[str, int]:
    """Part -> process id of a dev's children."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(of)], capture_output=True, text=True, check=True)
    found = {}
    for line in listed.stdout.splitlines():
        pid, _, words = line.strip().partition(" ")
        found[next(part for part in ("nats-server", " api ", " scheduler ", " agent ") if part in words).strip()] = int(
            pid
        )
    return found


def test_what_dies_is_started_again_and_the_work_goes_on(here: Terminal) -> None:
    here.dev("--driver", "process")
    done = here.directory / "done"
    job_id = here.submit("--driver", "process", "--", "sh", "-c", f"until [ -e {done} ]; do sleep 0.1; done")
    here.until_state(job_id, "running")
    for part in ("agent", "scheduler", "nats-server", "api"):
        os.kill(_children(here.dev_pid)[part], signal.SIGKILL)
        line = here.dev_says("started again")
        assert line.startswith(part)
        assert "SIGKILL" in line
        assert ".log" in line
        assert here.json("stats")["leader"] == "dev"
    done.touch()
    here.run("wait", job_id)
    assert here.json("job", job_id)["attempt"] == 1, "the run outlived them all"


def test_what_dies_again_and_again_ends_dev_with_its_name(here: Terminal) -> None:
    here.dev("--driver", "fake")
    for _ in range(5):
        os.kill(_children(here.dev_pid)["scheduler"], signal.SIGKILL)
        here.dev_says("scheduler was killed by SIGKILL; it has been started again")
    os.kill(_children(here.dev_pid)["scheduler"], signal.SIGKILL)
    assert "scheduler.log" in here.dev_says("hint: see")
    assert here.dev_ended() == 1


def test_a_killed_dev_leaves_no_server_on_the_store_of_the_next(here: Terminal) -> None:
    here.dev("--driver", "fake")
    job_id = here.submit("--driver", "fake")
    here.run("wait", job_id)
    here.kill_dev()
    here.dev("--driver", "fake")
    assert here.json("job", job_id)["state"] == "succeeded"
    listed = subprocess.run(
        ["pgrep", "-f", f"nats-server.*{here.directory}"], capture_output=True, text=True, check=False
    )
    assert len(listed.stdout.split()) == 1


def test_ephemeral_leaves_nothing(here: Terminal) -> None:
    said = here.dev("--ephemeral", "--driver", "fake")
    data = re.search(r"stored in (\S+)", said)
    assert data is not None
    assert Path(data[1]).is_dir()
    url = re.search(r"EVENTSCHED_NATS=(\S+)", said)
    assert url is not None, "commands have to be told where it is"
    job_id = here.submit("--nats", url[1], "--driver", "fake")
    here.run("wait", job_id, "--nats", url[1])
    assert here.stop().code == 0
    assert not Path(data[1]).exists()
    assert list(here.directory.iterdir()) == []


def test_several_agents_split_the_machine(here: Terminal) -> None:
    here.dev("--driver", "fake", "--agents", "3")
    nodes = here.json("nodes")
    assert len(nodes) == 3
    assert len({(one["capacity"]["cpu_millis"], one["capacity"]["memory_bytes"]) for one in nodes}) == 1
    cores = os.cpu_count() or 1
    assert sum(one["capacity"]["cpu_millis"] for one in nodes) <= cores * 1000


def test_agents_too_small_for_an_ordinary_job_are_said_to_be(here: Terminal) -> None:
    said = here.dev("--driver", "fake", "--agents", "2", "--cpus", "0.5")
    assert "never starts" in said
    assert "--cpus 1" in said
    command = next(line for line in said.splitlines() if " submit " in line).split(" submit ")[1]
    here.run("wait", here.submit(*command.split()))


def test_capacities_that_are_given_count(here: Terminal) -> None:
    here.dev("--driver", "fake", "--agents", "2", "--cpus", "16", "--memory", "64G", "--gpus", "H100:8")
    for node in here.json("nodes"):
        assert node["capacity"]["cpu_millis"] == 16_000
        assert node["capacity"]["memory_bytes"] == 64 * 1024**3
        assert node["capacity"]["gpus"] == {"H100": 8}


def test_ports_that_are_taken(here: Terminal) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        http = here.run("dev", "--driver", "fake", "--http-port", port, code=1).err
        assert port in http
        assert "--http-port" in http
        nats = here.run("dev", "--driver", "fake", "--http-port", "0", "--nats-port", port, code=1).err
        assert port in nats
        assert "--nats-port" in nats
    here.dev("--driver", "fake", "--nats-port", str(free_port(0)))


def test_the_demo_with_processes(here: Terminal) -> None:
    done = here.run("dev", "--driver", "process", "--exit-when-idle", "--http-port", "0", timeout=90)
    assert "all of them ended as they should" in done.out
    assert "memory" not in done.out


def test_the_demo_with_containers(here: Terminal) -> None:
    done = here.run("dev", "--driver", "docker", "--exit-when-idle", "--http-port", "0", timeout=150)
    assert "one over its memory limit" in done.out
    assert "all of them ended as they should" in done.out
    here.dev("--driver", "fake")
    views = here.json("jobs", "--all")
    memory = next(view for view in views if view["job_id"].startswith("demo-memory"))
    assert (memory["state"], memory["reason"]) == ("failed", "out_of_memory")
    assert "step 4 of 4" in here.run("logs", next(v["job_id"] for v in views if v["job_id"].startswith("demo-out"))).out
    assert _containers(here.json("stats")["cluster_id"]) == [], "a node that leaves takes its containers along"
