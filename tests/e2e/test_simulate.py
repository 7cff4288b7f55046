"""`eventsched simulate` and `eventsched replay file`, as a user runs them; no server is needed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eventsched.projections.simulation.reading import JOBS, NODES

from .pages import blocks
from .terminal import Terminal

DATA = Path(__file__).parents[1] / "data"
S0 = ("--nodes", str(DATA / "s0/nodes.json"), "--jobs", str(DATA / "s0/jobs.json"))
HELP_ONLY = ("--help", "--version")
PHILLY = ("--nodes", "6", "--jobs", str(DATA / "philly/philly-2017-10-02.csv.gz"), "--first", "60")


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy/docs/simulation.md").read_text()


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_batsim_as_the_docs_have_it(terminal: Terminal) -> None:
    trace = str(DATA / "batsim-medium/medium_late.json.gz")
    found = terminal.run("simulate", "--nodes", "32", "--jobs", trace, "--policy", "backfill", "-o", "json").json
    assert found["backfill"]["makespan_s"] == pytest.approx(16_088.51, abs=0.005)
    assert found["backfill"]["wait_mean_s"] <= 9.52


def test_the_examples_of_the_page_run_in_a_checkout(tmp_path: Path) -> None:
    """As they stand, but for the one that goes on for ever and the one with many jobs."""
    shorter = {
        "--loop --speed 10": "--loop --speed 0 --rounds 3",
        "--seeds 3 --resample": "--seeds 2 --first 60 --resample",
    }
    script = blocks(PAGE, "sh")[0].replace("/tmp/out.jsonl", str(tmp_path / "out.jsonl"))
    for long, short in shorter.items():
        assert long in script
        script = script.replace(long, short)
    script = f'set -e\neventsched() {{ {sys.executable} -m eventsched "$@"; }}\n{script}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "rounds are decided the same again" in done.stdout


def test_the_page_names_every_format_and_option(terminal: Terminal) -> None:
    for formats in (JOBS, NODES):
        assert all(f"`{one.name}`" in PAGE for one in formats)
    options = re.findall(r"--[a-z-]+", terminal.run("simulate", "--help").out)
    assert "--skip-bad-rows" in options
    assert [name for name in options if name not in (*HELP_ONLY, "--output") and name not in PAGE] == []


def test_jobs_of_the_cost_aware_scheduler_with_their_stories(terminal: Terminal) -> None:
    found = terminal.run(
        "simulate", *S0, "--policy", "best-fit", "--policy", "spread", "-o", "json", "--jobs-detail"
    ).json
    assert list(found) == ["best-fit", "spread"]
    for policy in found.values():
        assert (policy["submitted"], policy["succeeded"], policy["pending"]) == (4, 3, 1)
        assert policy["jobs"]["huge"] == {
            "state": "pending", "node": None, "submitted_s": 0, "started_s": None, "finished_s": None,
        }  # fmt: skip
        assert policy["jobs"]["train"]["finished_s"] == 10
    assert "jobs" not in terminal.run("simulate", *S0, "-o", "json").json["fgd"]


def test_jobs_of_the_quota_aware_scheduler_in_its_order(terminal: Terminal) -> None:
    """On H100 t1 may hold one: equal jobs start in order of id; 59 s are not a minute yet, 60 s are worth one,
    and of equals the earlier wins. On A100 t2 may hold two: `wide` waits, though there is room; t3 has no quota."""
    setup, jobs = str(ROOT / "deploy/quota.toml"), str(DATA / "quota/jobs.csv")
    arguments = ("simulate", "--config", setup, "--nodes", "1", "--jobs", jobs, "-o", "json")
    found = terminal.run(*arguments, "--jobs-detail", "--tenants-detail", "--log", "log").json["quota-aging"]
    started = {name: one["started_s"] for name, one in found["jobs"].items()}
    h100 = {"j1": 0, "late": 59, "j10": 60, "j2": 70, "later": 80}
    assert started == h100 | {"wide": 5, "more": 0, "nobody": None}
    assert {name: one["pending"] for name, one in found["tenants"].items()} == {"t1": 0, "t2": 0, "t3": 1}
    assert terminal.run("replay", "file", "log", "-o", "json").json["differing"] == []
    fifo = terminal.run(*arguments, "--jobs-detail", "--policy", "fifo").json["fifo"]["jobs"]
    assert [fifo[name]["started_s"] for name in ("j2", "j10", "j1", "late")] == [0, 10, 20, 79]


def test_budgets_of_a_simulated_workload(terminal: Terminal) -> None:
    (terminal.directory / "setup.toml").write_text(
        "[prices]\ngpu_models = { T4 = 1_000_000 }\n[tenants.acme]\nbudget_micros = 2_000_000\n"
    )
    line = '{"job_id": "j%d", "tenant": "acme", "resources": {"gpus": 2}, "duration_ms": 3600000}\n'
    (terminal.directory / "jobs").write_text("".join(line % number for number in range(2)))
    arguments = (
        "--config",
        "setup.toml",
        "--shape",
        "gpus=T4:2",
        "--nodes",
        "1",
        "--jobs",
        "jobs",
        "-o",
        "json",
    )
    found = terminal.run("simulate", *arguments, "--tenants-detail").json["fgd"]
    assert (found["spent"], found["pending"]) == (2, 1)
    assert found["tenants"]["acme"]["spent"] == 2
    (terminal.directory / "setup.toml").write_text("[prices]\ncore_micros_per_h = -1\n")
    assert "core_micros_per_h: -1 is not between" in terminal.run("simulate", *arguments, code=2).err


def test_a_composition_and_a_table(terminal: Terminal) -> None:
    out = terminal.run("simulate", *PHILLY, "--policy", "order=drf,score=spread", "--policy", "fifo").out
    assert "order=drf,score=spread" in out
    assert "WAIT s" in out


def test_seeds_give_intervals_and_csv_gives_every_one(terminal: Terminal) -> None:
    arguments = ("simulate", *PHILLY, "--policy", "fifo", "--policy", "random", "--seeds", "3", "--resample")
    found = terminal.run(*arguments, "-o", "json").json
    low, high = found["fifo"]["ci95"]["wait_mean_s"]
    assert low <= found["fifo"]["wait_mean_s"] <= high
    assert found["fifo"]["seeds"] == 3
    rows = list(csv.DictReader(io.StringIO(terminal.run(*arguments, "--csv").out)))
    assert [(row["policy"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("fifo", "random") for seed in "012"
    ]
    waits = [float(row["wait_mean_s"]) for row in rows[:3]]
    assert sum(waits) / 3 == pytest.approx(found["fifo"]["wait_mean_s"], abs=1e-5)
    assert len(set(waits)) > 1, "a seed draws other jobs"


def test_a_log_replays_and_verifies(terminal: Terminal) -> None:
    terminal.run("simulate", *PHILLY, "--policy", "drf", "--log", "out.jsonl")
    found = terminal.run("replay", "file", "out.jsonl", "-o", "json").json
    lines = (terminal.directory / "out.jsonl").read_text().splitlines()
    assert (found["events"], found["differing"]) == (len(lines), [])
    assert "ev.admin.cluster_created" in lines[0]
    lines[-1] = lines[-1].replace('"exited', '"stopped').replace("exited", "stopped")
    (terminal.directory / "other.jsonl").write_text("\n".join(lines))
    assert terminal.run("replay", "file", "other.jsonl", "-o", "json").json["digest"] != found["digest"]


def test_the_loop_prints_actions(terminal: Terminal) -> None:
    done = terminal.run("simulate", *S0, "--loop", "--speed", "0", "--rounds", "4", "-o", "json")
    actions = [json.loads(line) for line in done.out.splitlines()]
    assert {action["action"] for action in actions} == {"joined", "assigned", "ended"}
    assert "4 rounds" in done.err
    assert "-> cpu-1 (score" in terminal.run("simulate", *S0, "--loop", "--speed", "0", "--rounds", "3").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--nodes", "0", "--jobs", "x"), "--nodes: 0 is not between"),
        (("--nodes", "4", "--jobs", "nowhere"), "nowhere cannot be read"),
        (("--nodes", "nowhere", *S0[2:]), "nowhere cannot be read"),
        ((*S0, "--policy", "magic"), "no policy 'magic'; known:"),
        ((*S0, "--policy", "order=magic"), "no order 'magic'; known:"),
        ((*S0, "--spot-rate", "5"), "--spot-rate: '5'"),
        ((*S0, "--spot-away", "5"), "--spot-away: '5' is not a duration"),
        ((*S0, "--shape", "discs=2"), "--shape: no 'discs'"),
        ((*S0, "--speed", "fast"), "--speed: 'fast'"),
        ((*S0, "--format", "excel"), "no format 'excel'"),
        ((*S0, "--log", "x", "--policy", "fifo", "--policy", "drf"), "--log: a log is of one policy"),
        ((*S0, "--log", "no/where"), "--log no/where cannot be written"),
        ((*S0, "--loop", "--policy", "fifo", "--policy", "drf"), "--loop plays one policy"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(terminal: Terminal, arguments: tuple[str, ...], says: str) -> None:
    assert says in terminal.run("simulate", *arguments, code=2).err


def test_faulty_rows_stop_a_run_or_are_left_out(terminal: Terminal) -> None:
    rows = ["timestamp,duration,num_gpus", "2017-10-02 00:00:00,5,1", "2017-10-02 00:00:01,-5,1"]
    (terminal.directory / "jobs.csv").write_text("\n".join(rows))
    arguments = ("simulate", "--nodes", "1", "--jobs", "jobs.csv", "-o", "json")
    assert "jobs.csv, line 3, duration: -5 is not between" in terminal.run(*arguments, code=2).err
    done = terminal.run(*arguments, "--skip-bad-rows")
    assert done.json["fgd"]["submitted"] == 1
    assert "left out: jobs.csv, line 3, duration" in done.err
