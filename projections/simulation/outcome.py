"""What came out of a simulation: one record a job, and the accounts."""

from __future__ import annotations

from dataclasses import dataclass, field

from eventsched.ids import job_key
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.simulation.accounts import Accounts, Amounts
from eventsched.projections.simulation.workload import SimJob, SimNode


@dataclass(slots=True)
class Record:
    """One job's story in numbers; an array is one job. Times are -1 until they are known.

    started_ms: when its first run started. ran_ms: all its runs together. stopped: how many were stopped
    before their end. crowd_ms: job-milliseconds spent in the system by all jobs while it was there, itself
    included. open_runs: how many it has now.
    """

    job: SimJob
    submitted_ms: int
    state: str = "pending"
    reason: str = ""
    started_ms: int = -1
    finished_ms: int = -1
    ran_ms: int = 0
    stopped: int = 0
    crowd_ms: int = 0
    open_runs: int = 0
    nodes: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The job's key in the state."""
        return job_key(self.job.tenant, self.job.job_id)

    @property
    def is_open(self) -> bool:
        """True while it has not ended."""
        return self.finished_ms < 0

    def runs_on(self, node: str, now_ms: int) -> None:
        """A run of it starts."""
        if self.started_ms < 0:
            self.started_ms = now_ms
        if self.job.spec.array or not self.nodes:
            self.nodes.append(node)
        else:
            self.nodes[0] = node
        self.state = "running"

    def opens(self) -> bool:
        """A run of it is assigned; whether it had none."""
        self.open_runs += 1
        return self.open_runs == 1

    def closes(self) -> bool:
        """A run of it is closed; whether it has none left."""
        self.open_runs -= 1
        return not self.open_runs

    def refused(self, now_ms: int) -> None:
        """The fold did not take it: its id is taken."""
        self.state, self.reason = "rejected", "duplicate"
        self.finished_ms = now_ms

    def ended(self, job: Job) -> None:
        """The fold says it has ended."""
        self.state = job.state
        self.reason = job.reason
        self.finished_ms = job.finished_ms


@dataclass(slots=True)
class OpenRun:
    """A run that holds `held` (cpu, memory, GPU thousandths) of a node."""

    seq: int
    node: str
    record: Record
    member: int
    since_ms: int
    held: Amounts
    takes_ms: int = 0
    over_time: bool = False


@dataclass(slots=True)
class Outcome:
    """A finished simulation; `records` in order of submission, `nodes` whether they are there at the end or not."""

    policy: str
    start_ms: int
    end_ms: int
    records: list[Record]
    nodes: list[SimNode]
    accounts: Accounts
    state: ClusterState
