"""The earlier quota-aware GPU scheduler, held against a straight rendering of its rules.

Capacity A100=4, H100=2; t1 and t2 may hold A100=2, H100=1; a tenant without a quota gets nothing; logical
time in seconds; rounds only when asked for. Effective priority is `priority + (now - submitted_at) // 60`;
within a GPU type the higher comes first, then the earlier, then the smaller id; what does not fit is
skipped.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from eventsched.events import ClockSet, PolicySet, RunAssigned, TenantSet
from eventsched.projections.simulation.engine import START_MS, Options, Simulation
from eventsched.projections.simulation.reading import read_workload
from eventsched.projections.simulation.setup import read_setup
from eventsched.recorded import Recorded
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger

CAPACITY = {"A100": 4, "H100": 2}
QUOTAS = {(tenant, model): limit for tenant in ("t1", "t2") for model, limit in (("A100", 2), ("H100", 1))}


@dataclass
class Waiting:
    """A job of theirs."""

    job_id: str
    tenant: str
    model: str
    gpus: int
    priority: int
    submitted_s: int


@dataclass
class Straight:
    """Their scheduler, as its description says and no faster."""

    waiting: list[Waiting] = field(default_factory=list)
    running: dict[str, Waiting] = field(default_factory=dict)

    def schedule(self, now_s: int) -> dict[str, list[str]]:
        """One tick: what starts, in order, by GPU type."""
        started: dict[str, list[str]] = {}
        for model, capacity in CAPACITY.items():
            ranked = [job for job in self.waiting if job.model == model]
            ranked.sort(key=lambda job: (job.submitted_s, job.job_id))
            ranked.sort(key=lambda job: job.priority + (now_s - job.submitted_s) // 60, reverse=True)
            for job in ranked:
                busy = [one for one in self.running.values() if one.model == model]
                free = capacity - sum(one.gpus for one in busy)
                held = sum(one.gpus for one in busy if one.tenant == job.tenant)
                if job.gpus <= free and held + job.gpus <= QUOTAS.get((job.tenant, model), 0):
                    self.waiting.remove(job)
                    self.running[job.job_id] = job
                    started.setdefault(model, []).append(job.job_id)
        return started


class Both:
    """The same story told to both."""

    def __init__(self) -> None:
        self.straight = Straight()
        self.ledger = Ledger(clock_mode="manual", job_id_scope="cluster", quota_default="nothing")
        self.ledger.lead()
        self.ledger.join("n0", cpus=1_000, gpus=("A100",) * 4 + ("H100",) * 2)
        self.ledger.put("ev.admin.policy_set", PolicySet(name="quota-aging"))
        for tenant in ("t1", "t2"):
            self.ledger.put("ev.admin.tenant_set", TenantSet(tenant=tenant, gpu_models={"A100": 2, "H100": 1}))
        self.ledger.settle()
        self.now_s = 0

    def submit(self, job_id: str, tenant: str, model: str, gpus: int, priority: int) -> None:
        """A job at the present second; a second one of the same id is refused, whoever asks."""
        asked = Resources(gpus=gpus, gpu_model=model)
        self.ledger.submit(job_id, JobSpec(driver="fake", resources=asked, priority=priority), tenant)
        known = [job.job_id for job in self.straight.waiting] + list(self.straight.running)
        if job_id not in known:
            self.straight.waiting.append(Waiting(job_id, tenant, model, gpus, priority, self.now_s))

    def complete(self, index: int) -> None:
        """One of the running jobs ends."""
        if self.straight.running:
            job_id = sorted(self.straight.running)[index % len(self.straight.running)]
            job = self.straight.running.pop(job_id)
            self.ledger.ended(self.ledger.job(job_id, job.tenant).run)

    def tick(self, seconds: int) -> None:
        """Time passes, and both schedule."""
        self.now_s += seconds
        before = max(self.ledger.state.runs, default=0)
        expected = self.straight.schedule(self.now_s)
        self.ledger.put("ev.admin.clock_set", ClockSet(now_ms=self.now_s * 1000))
        self.ledger.settle()
        started: dict[str, list[str]] = {}
        for seq in sorted(self.ledger.state.runs):
            if seq > before:
                job = self.ledger.state.jobs[self.ledger.run(seq).key]
                started.setdefault(job.spec.resources.gpu_model, []).append(job.job_id)
        assert started == expected
        assert {run.key.partition("/")[2] for run in self.ledger.state.runs.values()} == set(self.straight.running)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.sampled_from(["t1", "t2", "t3"]),
            st.sampled_from(["A100", "H100", "H100", "V100"]),
            st.integers(1, 3),
            st.integers(-1, 2),
        ),
        st.tuples(st.just("complete"), st.integers(0, 5)),
        st.tuples(st.just("tick"), st.sampled_from([0, 1, 59, 60, 61, 119, 120, 600])),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150)
@given(STEPS, st.permutations([f"j{index}" for index in range(40)]))
def test_the_order_is_theirs_exactly(steps: list[tuple[object, ...]], ids: list[str]) -> None:
    both = Both()
    for (what, *given_), job_id in zip(steps, ids, strict=False):
        match what:
            case "submit":
                both.submit(job_id, *given_)  # type: ignore[arg-type]
            case "complete":
                both.complete(*given_)  # type: ignore[arg-type]
            case "tick":
                both.tick(*given_)  # type: ignore[arg-type]
    both.tick(60)


def test_ties_and_the_second_that_makes_a_minute() -> None:
    """Equal in effective priority: the earlier; equal in time too: the smaller id, as text."""
    both = Both()
    for job_id in ("j2", "j10", "j1"):
        both.submit(job_id, "t1", "H100", 1, 0)
    both.tick(59)
    assert list(both.straight.running) == ["j1"]
    both.submit("late", "t1", "H100", 1, 1)
    both.complete(0)
    both.tick(0)
    assert list(both.straight.running) == ["late"], "59 s are not a minute yet"
    both.submit("later", "t1", "H100", 1, 1)
    both.complete(0)
    both.tick(1)
    assert list(both.straight.running) == ["j10"], "a minute is worth one, and the earlier wins"


def test_an_id_is_taken_whoever_has_it_and_a_tenant_without_a_quota_gets_nothing() -> None:
    both = Both()
    both.submit("j", "t1", "A100", 1, 0)
    both.submit("j", "t2", "A100", 1, 9)
    both.submit("k", "t3", "A100", 1, 9)
    both.tick(0)
    assert list(both.straight.running) == ["j"]
    assert both.ledger.state.anomalies == {"duplicate_submission": 1}
    assert both.ledger.job("k", "t3").state == "pending"


# ---- the same in a simulation, from files -------------------------------------------------------


ROOT = Path(__file__).parents[2]
HEAD = "job_id,tenant_id,gpu_type,gpus,priority,submitted_at,max_runtime"
ROWS = st.tuples(
    st.sampled_from(["t1", "t2", "t3"]),
    st.sampled_from(["A100", "H100", "H100", "V100"]),
    st.integers(1, 3),
    st.integers(-1, 2),
    st.sampled_from([0, 0, 1, 59, 60, 61, 120, 600]),
    st.sampled_from([1, 20, 59, 60, 61, 300]),
)


def straight_starts(jobs: list[Waiting], takes_s: dict[str, int]) -> dict[str, list[tuple[int, str]]]:
    """When which job starts, by GPU type, if a round follows whatever happens."""
    straight, found = Straight(), dict[str, list[tuple[int, str]]]()
    ends: dict[str, int] = {}
    now_s = 0
    while True:
        for job_id in [job_id for job_id, end_s in ends.items() if end_s == now_s]:
            del straight.running[job_id], ends[job_id]
        straight.waiting += [job for job in jobs if job.submitted_s == now_s]
        for model, started in straight.schedule(now_s).items():
            found.setdefault(model, []).extend((now_s, job_id) for job_id in started)
            ends |= {job_id: now_s + takes_s[job_id] for job_id in started}
        later = [job.submitted_s for job in jobs if job.submitted_s > now_s] + list(ends.values())
        if not later:
            return found
        now_s = min(later)


@settings(max_examples=100)
@given(st.lists(ROWS, min_size=1, max_size=30), st.permutations([f"j{index}" for index in range(30)]))
def test_a_simulation_from_their_files_starts_what_they_start(rows: list[tuple[object, ...]], ids: list[str]) -> None:
    lines = [",".join(map(str, (job_id, *row))) for row, job_id in zip(rows, ids, strict=False)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "jobs.csv").write_text("\n".join([HEAD, *lines]))
        setup = read_setup(ROOT / "deploy/quota.toml")
        workload = read_workload(Path(folder) / "jobs.csv", 1, shape=setup.shape)
    found: dict[str, list[tuple[int, str]]] = {}

    def saw(recorded: Recorded) -> None:
        if isinstance(recorded.event, RunAssigned):
            model = simulation.state.jobs[f"{recorded.event.tenant}/{recorded.event.job}"].spec.resources.gpu_model
            found.setdefault(model, []).append(((recorded.at_ms - START_MS) // 1000, recorded.event.job))

    simulation = Simulation(workload, setup.policy, Options(setup=setup), saw)
    simulation.run()
    jobs = [Waiting(job_id, *row[:5]) for row, job_id in zip(rows, ids, strict=False)]  # type: ignore[arg-type]
    takes_s = {job_id: row[5] for row, job_id in zip(rows, ids, strict=False)}
    assert found == straight_starts(jobs, takes_s)  # type: ignore[arg-type]
