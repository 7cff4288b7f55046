"""The simulator: the same fold and decisions in virtual time, books that add up, logs that are logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventsched.errors import InvalidSpec, UsageError
from eventsched.projections.cluster.digest import digest
from eventsched.projections.simulation.accounts import BrokenLaw
from eventsched.projections.simulation.compare import resampled
from eventsched.projections.simulation.engine import HOUR_MS, START_MS, Options, Simulation, parse_policy
from eventsched.projections.simulation.loop import Action, Loop
from eventsched.projections.simulation.metrics import details, measure
from eventsched.projections.simulation.outcome import Outcome
from eventsched.projections.simulation.reading import read_workload
from eventsched.projections.simulation.simulating import Inputs, Looping, simulate
from eventsched.projections.simulation.workload import Shape, SimJob, Workload, make_node, make_nodes
from eventsched.resources import Resources
from eventsched.spec import JobSpec

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
POLICIES = ("best-fit", "first-fit", "fifo", "drf", "srsf", "edf", "backfill", "backfill-conservative", "random")


def job(
    job_id: str, at_s: float = 0, takes_s: float = 10, cores: float = 1, tenant: str = "t", **spec: object
) -> SimJob:
    asked = Resources(cpu_millis=int(cores * 1000))
    made = JobSpec(driver="fake", resources=asked, **spec)  # type: ignore[arg-type]
    return SimJob(int(at_s * 1000), "default", job_id, made, int(takes_s * 1000))


def play(jobs: list[SimJob], policy: str = "fifo", nodes: int = 1, **options: object) -> Outcome:
    workload = Workload(jobs, make_nodes(nodes, Shape()))
    return Simulation(workload, policy, Options(**options)).run()  # type: ignore[arg-type]


def philly(count: int = 400) -> Workload:
    workload = read_workload(DATA / "philly/philly-2017-10-02.csv.gz", 6)
    return Workload(workload.jobs[:count], workload.nodes)


def spot_workload(jobs: int = 20) -> Workload:
    nodes = [make_node(f"n{index}", Shape(), spot=True, price_micros_per_h=1_000_000) for index in range(2)]
    found = [job(f"j{index}", takes_s=3_000, max_lost=1_000) for index in range(jobs)]
    return Workload(found, nodes)


def test_times_of_jobs_are_those_of_a_queue_worked_off_by_hand() -> None:
    stories = details(play([job("a", 0, 10), job("b", 4, 5), job("c", 5, 1)]))
    times = {name: (one["submitted_s"], one["started_s"], one["finished_s"]) for name, one in stories.items()}
    assert times == {"a": (0, 0, 10), "b": (4, 10, 15), "c": (5, 15, 16)}
    assert {one["node"] for one in stories.values()} == {"node-0"}


def test_metrics_of_that_queue() -> None:
    metrics = measure(play([job("a", 0, 10), job("b", 4, 5), job("c", 5, 1, deadline_ms=5_000)]))
    assert metrics["makespan_s"] == 16
    assert metrics["wait_mean_s"] == pytest.approx((0 + 6 + 10) / 3)
    assert (metrics["wait_p50_s"], metrics["wait_p99_s"]) == (6, 10)
    assert metrics["jct_mean_s"] == pytest.approx((10 + 11 + 11) / 3)
    assert metrics["slowdown_mean"] == pytest.approx((1 + 1.1 + 1.1) / 3), "short runs count as 10 s"
    assert metrics["cpu_utilisation_pct"] == 100
    assert (metrics["deadline_misses"], metrics["tardiness_mean_s"]) == (1, 6)


def test_policies_see_the_estimate_and_never_the_truth() -> None:
    jobs = [job("first", 0, 5), job("short", 1, 1, estimate_ms=9_000), job("long", 1, 9, estimate_ms=1_000)]
    stories = details(play(jobs, "srsf"))
    assert stories["long"]["started_s"] == 5
    assert stories["short"]["started_s"] == 14


def test_a_run_is_stopped_at_its_max_runtime() -> None:
    outcome = play([job("a", 0, 10, max_runtime_ms=4_000), job("b", 0, 4, max_runtime_ms=4_000)])
    stories = details(outcome)
    assert (stories["a"]["state"], stories["a"]["finished_s"]) == ("timed_out", 4)
    assert (stories["b"]["state"], stories["b"]["finished_s"]) == ("succeeded", 8)
    assert measure(outcome)["failed"] == 1


def test_what_never_fits_ends_as_pending_without_a_node() -> None:
    outcome = play([job("huge", cores=99), job("small")])
    assert details(outcome)["huge"]["node"] is None
    assert {name: one["state"] for name, one in details(outcome).items()} == {"huge": "pending", "small": "succeeded"}
    assert measure(outcome)["pending"] == 1


def test_a_job_that_waits_too_long_expires_though_nothing_else_happens() -> None:
    stories = details(play([job("huge", cores=99, queue_timeout_ms=7_000)]))
    assert (stories["huge"]["state"], stories["huge"]["finished_s"]) == ("expired", 7)


def test_members_of_an_array_take_their_own_time_and_a_gang_starts_as_one() -> None:
    array = msgspec.structs.replace(job("array", array=3), member_ms=(1_000, 2_000, 3_000))
    stories = details(play([array], nodes=3))
    assert (stories["array"]["finished_s"], stories["array"]["nodes"]) == (3, ["node-0", "node-1", "node-2"])
    gang = [job("one", 0, 5), job("gang", 1, 4, array=3, gang=True), job("two", 2, 1)]
    stories = details(play(gang, nodes=3))
    assert (stories["gang"]["started_s"], stories["gang"]["finished_s"]) == (5, 9)
    assert stories["two"]["started_s"] == 2


def test_a_dependency_waits_for_its_parent() -> None:
    stories = details(play([job("parent", 0, 5), job("child", 1, after_ok=("parent",))], nodes=2))
    assert stories["child"]["started_s"] == 5


@pytest.mark.parametrize(("policy", "wait_s"), [("backfill", 9.52), ("backfill-conservative", 9.86)])
def test_batsim_reaches_the_published_makespan_and_mean_wait(policy: str, wait_s: float) -> None:
    workload = read_workload(DATA / "batsim-medium/medium_late.json.gz", 32)
    metrics = measure(Simulation(workload, policy).run())
    assert metrics["makespan_s"] == pytest.approx(16_088.51, abs=0.005)
    assert metrics["wait_mean_s"] <= wait_s
    assert metrics["succeeded"] == 801


# ---- the laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_books_add_up_under_every_policy(policy: str) -> None:
    outcome = Simulation(philly(40 if policy == "backfill-conservative" else 150), policy).run()
    books = outcome.accounts
    assert books.used_time == books.held_time
    assert books.jobs_time == books.sojourn > 0
    jct_s = measure(outcome)["jct_mean_s"]
    assert books.jobs_time == pytest.approx(1000 * jct_s * len(outcome.records)), "L = lambda W, over the whole span"


@pytest.mark.parametrize("broken", ["jobs_time", "used_time"])
def test_books_that_do_not_add_up_are_an_error(broken: str) -> None:
    simulation = Simulation(Workload([job("a")], make_nodes(1, Shape())), "fifo")
    while simulation.step():
        pass
    if broken == "jobs_time":
        simulation.accounts.jobs_time += 1
    else:
        simulation.accounts.used_time[0] += 1
    with pytest.raises(BrokenLaw):
        simulation.finish()


@pytest.mark.parametrize("policy", ["best-fit", "drf", "backfill", "order=aging,score=random", "order=srsf,preempt=1"])
def test_rounds_that_are_left_out_would_have_been_empty(policy: str) -> None:
    """The engine skips rounds nothing can come of; deciding them all the same changes nothing."""
    digests = []
    for eager in (False, True):
        simulation = Simulation(philly(120), policy, Options(eager=eager))
        simulation.run()
        digests.append(digest(simulation.state))
    assert digests[0] == digests[1]


# ---- spot ---------------------------------------------------------------------------------------


def test_spot_nodes_are_taken_away_by_rate_and_their_jobs_are_put_back() -> None:
    calm = Simulation(spot_workload(), "first-fit").run()
    assert measure(calm)["preemptions"] == 0, "no node states a rate, and none is given"
    rough = Simulation(spot_workload(), "first-fit", Options(spot_ppm_per_h=500_000)).run()
    metrics = measure(rough)
    assert metrics["preemptions"] > 0
    assert metrics["succeeded"] == 20
    assert metrics["goodput_pct"] < 100
    assert metrics["cost"] == pytest.approx(metrics["cost_spot"])
    again = Simulation(spot_workload(), "first-fit", Options(spot_ppm_per_h=500_000)).run()
    assert digest(rough.state) == digest(again.state)
    other = Simulation(spot_workload(), "first-fit", Options(seed=1, spot_ppm_per_h=500_000)).run()
    assert digest(rough.state) != digest(other.state)


def test_a_rate_of_one_takes_every_node_away_in_every_hour() -> None:
    outcome = Simulation(spot_workload(2), "first-fit", Options(spot_ppm_per_h=1_000_000, checkpoints=True)).run()
    first = min(record.started_ms for record in outcome.records)
    assert all(record.stopped >= (record.finished_ms - first) // (2 * HOUR_MS) for record in outcome.records)
    assert measure(outcome)["goodput_pct"] == 100, "with checkpoints nothing is lost"
    assert {record.ran_ms for record in outcome.records} == {3_000_000}


def test_a_node_that_stays_away_while_jobs_wait_comes_back() -> None:
    outcome = Simulation(spot_workload(6), "first-fit", Options(spot_ppm_per_h=900_000, away_ms=5 * HOUR_MS)).run()
    assert measure(outcome)["succeeded"] == 6


# ---- determinism ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> list[object]:
    """What this process makes of two workloads."""
    drf = Simulation(philly(120), "drf").run()
    drawn = Simulation(spot_workload(), "random", Options(spot_ppm_per_h=500_000)).run()
    return [digest(drf.state), digest(drawn.state), measure(drf), measure(drawn)]


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_hash_seed_makes_no_difference(hash_seed: str, reference: list[object]) -> None:
    script = (
        "import json\n"
        "from tests.unit.test_simulation import philly, spot_workload, Options, Simulation, digest, measure\n"
        "a = Simulation(philly(120), 'drf').run()\n"
        "b = Simulation(spot_workload(), 'random', Options(spot_ppm_per_h=500_000)).run()\n"
        "print(json.dumps([digest(a.state), digest(b.state), measure(a), measure(b)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == reference


def test_a_seed_reaches_policies_that_draw() -> None:
    assert parse_policy("random", 7).params["seed"] == 7
    assert parse_policy("order=drf,score=random", 7).params["seed"] == 7
    assert "seed" not in parse_policy("best-fit", 7).params
    with pytest.raises(InvalidSpec, match="no policy 'magic'"):
        parse_policy("magic")
    with pytest.raises(InvalidSpec, match="no order 'magic'"):
        parse_policy("order=magic")


# ---- the continuous view ------------------------------------------------------------------------


def test_the_loop_submits_its_backlog_again_and_stops_after_so_many_rounds() -> None:
    seen: list[Action] = []
    slept: list[float] = []
    workload = read_workload(DATA / "s0/jobs.json", DATA / "s0/nodes.json")
    loop = Loop(workload, "best-fit", Options(endless=True), seen.append, speed=2.0, sleep=slept.append)
    assert loop.run(6) == "6 rounds"
    assigned = [one.job for one in seen if one.action == "assigned"]
    assert {"train", "serve", "sweep", "train-r2", "serve-r2"} <= set(assigned)
    assert not [name for name in assigned if name.startswith("huge")]
    assert loop.simulation is not None
    assert sum(slept) == pytest.approx((loop.simulation.now_ms - START_MS) / 1000 / 2, abs=2)
    assert len(loop.simulation.records) < 10, "what has ended is forgotten"


def test_every_pass_of_the_loop_submits_every_job_that_ended_under_a_name_of_its_own() -> None:
    """Whatever they are called: like a later pass, or alike in all but their last letters."""
    names = ["train", "train-r1", "train-r2", "x" * 63 + "1", "x" * 63 + "2"]
    jobs = [job(name, index) for index, name in enumerate(names)]
    seen: list[Action] = []
    Loop(Workload(jobs, make_nodes(1, Shape())), "fifo", Options(endless=True), seen.append, speed=0).run(40)
    assigned = [one.job for one in seen if one.action == "assigned"]
    assert assigned[:5] == names
    assert assigned[5:8] == ["train-r2-2", "train-r1-r2", "train-r2-r2"]
    assert assigned[8:10] == ["x" * 61 + "-r2", "x" * 59 + "-r2-2"]
    assert assigned[10:13] == ["train-r3", "train-r1-r3", "train-r2-r3"]
    assert len(set(assigned)) == len(assigned) >= 15


def test_a_job_of_a_later_pass_waits_for_its_parent_in_that_pass() -> None:
    jobs = [
        job("huge", cores=99),
        job("parent", 0, 5),
        job("child", 1, after_ok=("parent",)),
        job("orphan", 1, after_any=("huge",)),
    ]
    seen: list[Action] = []
    loop = Loop(Workload(jobs, make_nodes(2, Shape())), "fifo", Options(endless=True), seen.append, speed=0)
    loop.run(12)
    happened = [(one.action, one.job) for one in seen if one.job]
    for mark in ("", "-r2", "-r3"):
        assert happened.index(("ended", f"parent{mark}")) < happened.index(("assigned", f"child{mark}"))
    assert loop.simulation is not None
    assert [record.job.job_id for record in loop.simulation.records.values()][:2] == ["huge", "orphan"]


def test_what_checkpoints_remember_of_a_job_ends_with_it() -> None:
    seen: list[Action] = []
    options = Options(checkpoints=True, spot_ppm_per_h=900_000, endless=True)
    loop = Loop(spot_workload(4), "fifo", options, seen.append, speed=0)
    loop.run(60)
    stopped = {one.job for one in seen if one.action == "stopped"}
    assert stopped & {one.job for one in seen if one.outcome == "exited"}
    assert loop.simulation is not None
    assert set(loop.simulation._left_ms) <= set(loop.simulation.records)


def test_drawn_again_jobs_are_as_many_have_names_of_their_own_and_wait_for_nobody() -> None:
    jobs = [job(f"j{index}", index, index + 1, after_ok=(f"j{index - 1}",) if index else ()) for index in range(20)]
    other = msgspec.structs.replace(jobs[0], tenant="u")
    workload = Workload([other, *jobs], make_nodes(1, Shape()))
    drawn = resampled(workload, 3).jobs
    assert [one.submit_ms for one in drawn] == [one.submit_ms for one in workload.jobs]
    assert len({one.job_id for one in drawn}) == len(drawn) == 21
    assert len({one.duration_ms for one in drawn}) < 20, "some are drawn twice"
    assert not any(one.spec.after_ok for one in drawn)
    assert measure(Simulation(resampled(workload, 3), "fifo").run())["succeeded"] == 21


def test_the_loop_ends_when_nothing_can_start() -> None:
    loop = Loop(
        Workload([job("huge", cores=99)], make_nodes(1, Shape())), "fifo", Options(endless=True), print, speed=0
    )
    assert loop.run() == "nothing can happen any more; 1 jobs wait"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"csv": True, "looping": Looping(loop=True)}, "--csv has no effect with --loop"),
        ({"seeds": 2, "looping": Looping(loop=True)}, "--seeds has no effect with --loop"),
        ({"resample": True, "looping": Looping(loop=True)}, "--resample has no effect with --loop"),
        ({"jobs_detail": True, "looping": Looping(loop=True)}, "--jobs-detail has no effect with --loop"),
        ({"looping": Looping(rounds=3)}, "--rounds has no effect without --loop"),
        ({"looping": Looping(speed="0")}, "--speed has no effect without --loop"),
    ],
)
def test_an_option_without_effect_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        simulate(inputs=Inputs(nodes="1", jobs=DATA / "s0/jobs.json"), **given)
    assert caught.value.message == says


def test_actions_in_words() -> None:
    loop_seen: list[Action] = []
    workload = spot_workload(4)
    Loop(workload, "fifo", Options(spot_ppm_per_h=900_000, endless=True), loop_seen.append, speed=0).run(12)
    texts = [one.text() for one in loop_seen]
    assert {one.action for one in loop_seen} == {"joined", "assigned", "ended", "stopped", "spot_notice"}
    assert any("is taken away (spot)" in text for text in texts)
    assert any("-> n0 (score" in text for text in texts)
