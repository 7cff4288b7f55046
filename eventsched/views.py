"""What people and programs read about jobs, nodes and the cluster: typed, and pleasant to look at.

Times are milliseconds since 1970 (or of the manual clock); None = has not happened.
"""

from __future__ import annotations

from html import escape
from typing import Any

from msgspec import Struct, field, structs

from eventsched.units import format_bytes, format_cpus


class _View(Struct, kw_only=True):
    """Base: a table in notebooks, one line elsewhere."""

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in structs.asdict(self).items()
            if value not in (None, "", [], {})
        )
        return f"<table>{rows}</table>"


class Try(Struct):
    """One run of a job: its id (sequence of its assign), node, chunks of output (-1 = not ended)."""

    run: int
    node: str
    log_chunks: int = -1


class JobView(_View, kw_only=True):
    """A job, or a member of an array (`<array>.<i>`).

    state: pending, assigned, starting, running, succeeded, failed, aborted, timed_out, rejected, expired.
    reason, detail: why it waits or how it ended: a stable code and words.
    seq: sequence of its submission. run: the current or last run.
    members: of an array, how many are in which state.
    failures, losses: runs that failed by themselves, or were lost, drained or preempted; evictions: how often
        of these it had to give way (preempted, or its spot node was taken away).
    cost_micros: what its runs have cost so far, in millionths of the currency.
    """

    job_id: str
    tenant: str
    state: str
    reason: str = ""
    detail: str = ""
    name: str = ""
    node: str = ""
    attempt: int = 0
    exit_code: int | None = None
    submitted_ms: int = 0
    assigned_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    seq: int = 0
    run: int = 0
    run_state: str = ""
    held: bool = False
    priority: int = 0
    failures: int = 0
    losses: int = 0
    evictions: int = 0
    cost_micros: int = 0
    driver: str = "docker"
    image: str = ""
    command: list[str] = field(default_factory=list)
    cpu_millis: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    gpu_model: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    waiting_on: list[str] = field(default_factory=list)
    array: int = 0
    members: dict[str, int] = field(default_factory=dict)
    tries: list[Try] = field(default_factory=list)
    submitted_by: str = ""

    @property
    def ended(self) -> bool:
        """True when the state is final."""
        return self.state in ("succeeded", "failed", "aborted", "timed_out", "rejected", "expired")

    def __repr__(self) -> str:
        parts = [f"{self.tenant}/{self.job_id}", self.state]
        if self.reason:
            parts.append(f"({self.reason})")
        if self.node:
            parts.append(f"on {self.node}")
        if self.exit_code is not None:
            parts.append(f"exit {self.exit_code}")
        return f"<Job {' '.join(parts)}>"


class NodeView(_View, kw_only=True):
    """A node: `capacity` and `free` hold cpu_millis, memory_bytes and gpus by model.

    state: ready, draining (runs are left), drained (none is), suspect, leaving, lost, left.
    cordoned: it gets no new runs. draining: a drain was asked for and not taken back.
    heartbeat_age_ms, cpu_percent, memory_used_bytes: from the last heartbeat this scheduler read.
    usage: per run (by id): cpu_percent and memory_bytes.
    """

    node: str
    state: str
    capacity: dict[str, Any]
    free: dict[str, Any]
    cordoned: bool = False
    draining: bool = False
    drivers: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    session: int = 0
    machine_id: str = ""
    leash: bool = False
    joined_ms: int | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)
    gpus: list[dict[str, Any]] = field(default_factory=list)
    heartbeat_age_ms: int | None = None
    cpu_percent: float | None = None
    memory_used_bytes: int | None = None
    usage: dict[str, dict[str, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        free = (
            f"{format_cpus(self.free.get('cpu_millis', 0))} of {format_cpus(self.capacity.get('cpu_millis', 0))} cpus"
        )
        memory = format_bytes(self.free.get("memory_bytes", 0))
        return f"<Node {self.node} {self.state} free: {free}, {memory}>"


class PolicyView(_View, kw_only=True):
    """A policy: what it is made of, and with which parameters. current: it decides now."""

    name: str
    version: int
    summary: str
    ties: str
    params: dict[str, Any]
    current: bool = False
    stages: dict[str, str] = field(default_factory=dict)


class TenantView(_View, kw_only=True):
    """A tenant: weight, limits (absent = unlimited), and what its runs hold and cost.

    limits, held, borrowed: runs, cpu_millis, memory_bytes, gpu_millis (1000 = one GPU) and
    gpu_millis:<model>. share_ppm: its dominant share of the cluster in millionths. own_limits: it has
    limits of its own, not those of "*". waiting: its jobs without a run. borrowed: what it holds beyond
    its limits, out of its cohort. spent_micros: in this period of its budget (until `next_period_ms`),
    open runs so far included; previous_micros: in the one before; total_micros: ever.
    """

    tenant: str
    weight: int
    limits: dict[str, int]
    held: dict[str, int]
    share_ppm: int = 0
    waiting: int = 0
    own_limits: bool = False
    cohort: str = ""
    borrow_percent: int | None = None
    lend_percent: int | None = None
    borrowed: dict[str, int] = field(default_factory=dict)
    budget_micros: int | None = None
    budget_period_ms: int = 0
    next_period_ms: int | None = None
    spent_micros: int = 0
    previous_micros: int = 0
    total_micros: int = 0


class PriceView(_View, kw_only=True):
    """The price book: millionths of the currency for an hour of a core, a GiB, a GPU (by model)."""

    core_micros_per_h: int = 0
    gib_micros_per_h: int = 0
    gpu_micros_per_h: int = 0
    gpu_models: dict[str, int] = field(default_factory=dict)


class Stats(_View, kw_only=True):
    """The cluster in numbers.

    jobs: live jobs by state. ended: all that ever ended, by state. seq: last sequence folded by
    the scheduler that answers; lag: entries it knows of and has not folded. clock_mode: wall or manual.
    nodes: by state. nodes_open: how many of them take work (ready, neither cordoned nor drained).
    """

    cluster_id: str
    seq: int
    clock_ms: int
    leader: str
    epoch: int
    answered_by: str
    role: str
    rounds: int
    policy: str
    jobs: dict[str, int]
    ended: dict[str, int]
    nodes: dict[str, int]
    capacity: dict[str, Any]
    free: dict[str, Any]
    runs: int
    anomalies: dict[str, int]
    recent_anomalies: list[dict[str, Any]] = field(default_factory=list)
    nodes_open: int = 0
    late_reports: int = 0
    void_assigns: int = 0
    digest_mismatches: int = 0
    history: str = "complete"
    lag: int = 0
    clock_mode: str = "wall"


class JobList(Struct, kw_only=True):
    """A page of jobs; `cursor` asks for the next one, "" = this was the last."""

    jobs: list[JobView]
    cursor: str = ""
    seq: int = 0
