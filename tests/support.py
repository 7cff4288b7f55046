"""Helpers for tests of the pure core: a state that is fed events by hand, as a log would."""

from __future__ import annotations

from typing import Any

from eventsched import codec, subjects
from eventsched.events import ClusterCreated, LeaderClaimed, NodeJoined, RunEnded, RunStarted
from eventsched.events.runs import Outcome
from eventsched.log.port import Entry
from eventsched.projections.cluster.check import check
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState, Job, Run
from eventsched.projections.scheduling.decide import Proposed, decide
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.scheduling.quota import Usage
from eventsched.projections.scheduling.waiting import why_waiting
from eventsched.recorded import Recorded
from eventsched.resources import Capacity, Gpu, Resources
from eventsched.spec import FakeRun, JobSpec
from eventsched.wire import Event

FAKE = JobSpec(driver="fake", fake=FakeRun())


def asking(cpus: int = 1, gpus: int = 0, model: str = "", memory: int = 0, **fields: object) -> JobSpec:
    """A fake job that asks for so much."""
    asked = Resources(cpu_millis=cpus * 1000, memory_bytes=memory, gpus=gpus, gpu_model=model)
    return JobSpec(driver="fake", resources=asked, **fields)  # type: ignore[arg-type]


class Ledger:
    """A log and the state folded from it; every step checks the invariants."""

    def __init__(self, **created: object) -> None:
        self.state = ClusterState()
        self.entries: list[Entry] = []
        self.now_ms = 1_000_000
        self.put("ev.admin.cluster_created", ClusterCreated(cluster_id="test", **created))  # type: ignore[arg-type]
        self.planner: Planner | None = None

    # ---- writing ------------------------------------------------------------------------------

    def raw(self, subject: str, payload: bytes) -> int:
        """Record bytes; the sequence."""
        self.now_ms += 1
        entry = Entry(len(self.entries) + 1, self.now_ms, subject, payload)
        self.entries.append(entry)
        evolve(self.state, Recorded(entry.seq, entry.at_ms, subject, codec.decode(subject, payload)))
        broken = check(self.state)
        assert not broken, broken
        return entry.seq

    def put(self, subject: str, event: Event) -> int:
        """Record an event; the sequence."""
        return self.raw(subject, codec.encode(event))

    def lead(self, name: str = "s1") -> int:
        """A scheduler claims."""
        return self.put(subjects.LEADER, LeaderClaimed(leader=name, nonce=name))

    def join(
        self,
        node: str = "n1",
        cpus: int = 4,
        memory: int = 8 << 30,
        gpus: tuple[str, ...] = (),
        machine: str = "",
        runs: tuple[int, ...] = (),
        leash: bool = True,
        drivers: tuple[str, ...] = ("fake", "docker", "process", "manual"),
        **more: Any,
    ) -> int:
        """An agent joins; the session. gpus: models, or `model/variant`."""
        devices = tuple(Gpu(f"{node}-gpu{index}", *name.split("/")) for index, name in enumerate(gpus))
        event = NodeJoined(
            machine_id=machine or f"machine-{node}",
            boot_id="boot",
            capacity=Capacity(cpus * 1000, memory, devices),
            drivers=drivers,
            runs=runs,
            leash=leash,
            fence_after_ms=20_000,
            stop_ms=12_000,
            **more,
        )
        return self.put(subjects.node(node), event)

    def submit(self, job_id: str, spec: JobSpec = FAKE, tenant: str = "t") -> int:
        """A client submits."""
        return self.put(subjects.job(tenant, job_id, "submitted"), spec)

    def ask(self, job_id: str, verb: str, event: Event, tenant: str = "t") -> int:
        """A client asks something about a job."""
        return self.put(subjects.job(tenant, job_id, verb), event)

    def started(self, run: int) -> None:
        """The agent reports a start."""
        self.put(subjects.run(self.run(run).node), RunStarted(run=run))

    def ended(self, run: int, outcome: Outcome = "exited", exit_code: int | None = 0, reason: str = "") -> None:
        """The agent reports an end."""
        event = RunEnded(run=run, outcome=outcome, exit_code=exit_code, reason=reason)
        self.put(subjects.run(self.run(run).node), event)

    # ---- deciding -----------------------------------------------------------------------------

    def decide(self, now_ms: int | None = None, limit: int = 1_000) -> list[Proposed]:
        """One round, decided with a fresh planner and with the kept one: they must agree; not recorded."""
        now = self.state.clock_ms if now_ms is None else now_ms
        fresh = decide(self.state, now, limit=limit)
        if self.planner is None:
            self.planner = Planner(self.state)
        kept = decide(self.state, now, self.planner, limit=limit)
        assert [codec.encode(one.event) for one in fresh] == [codec.encode(one.event) for one in kept]
        return fresh

    def round(self, now_ms: int | None = None, limit: int = 1_000) -> list[Proposed]:
        """One round, decided and recorded."""
        proposed = self.decide(now_ms, limit)
        for one in proposed:
            self.put(one.subject, one.event)
        return proposed

    def settle(self, now_ms: int | None = None) -> None:
        """Rounds until there is nothing more to decide."""
        for _ in range(100):
            if not self.round(now_ms):
                return
        raise AssertionError("deciding does not come to an end")

    # ---- looking ------------------------------------------------------------------------------

    def job(self, job_id: str, tenant: str = "t") -> Job:
        """A job by id."""
        return self.state.jobs[f"{tenant}/{job_id}"]

    def run(self, seq: int) -> Run:
        """An open run."""
        return self.state.runs[seq]

    def why(self, job_id: str, tenant: str = "t") -> tuple[str, str]:
        """Why a job waits: the code, and the words."""
        state = self.state
        found = why_waiting(state, Fleet(state), Usage(state), self.job(job_id, tenant), state.clock_ms)
        assert found is not None, f"{job_id} does not wait"
        return found.code, found.detail

    def states(self) -> dict[str, str]:
        """Job id -> state."""
        return {job.job_id: job.state for job in self.state.jobs.values()}


def ready(**created: object) -> Ledger:
    """A ledger with a leader and one open node `n1` of 4 cpus."""
    ledger = Ledger(**created)
    ledger.lead()
    ledger.join()
    ledger.settle()
    return ledger
