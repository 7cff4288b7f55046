"""The state of a cluster: data holders, no behaviour.

What lives here is exactly what a digest covers: everything the fold remembers. Derived things
(queues, arrays for placement, indexes) live elsewhere and are rebuilt from this. Only `evolve`
changes a state. Integers, strings and insertion-ordered dicts only; the order of a dict is part
of the state, as decisions may follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from eventsched.resources import Capacity
from eventsched.spec import JobSpec

TERMINAL = ("succeeded", "failed", "aborted", "timed_out", "rejected", "expired")
"""Job states that are final. The others: pending, assigned, starting, running."""

FOLD_VERSION = 1
"""Newest behaviour of the fold this build knows."""


class ArrayState(Struct, omit_defaults=True, gc=False):
    """Where an array stands. Members not reached yet are a range, not objects.

    next: the first member never run and never touched, unless it is in `taken`.
    taken: members beyond `next` that exist as jobs of their own (held, aborted).
    live: members that exist as jobs and have not ended.
    ended: how many members ended in which state.
    Of a gang: open = members that have a run. restarting: their runs are being stopped, to start
    together again. fate: (state, reason, detail) in which it ends, once that is certain.
    void_round: the last round that could not start all of it.
    """

    next: int = 0
    taken: dict[int, None] = {}
    live: dict[int, None] = {}
    ended: dict[str, int] = {}
    open: int = 0
    restarting: bool = False
    fate: tuple[str, str, str] | None = None
    void_round: int = 0


class Job(Struct, omit_defaults=True, gc=False):
    """A job, or a member of an array. `key` is `<tenant>/<job id>`; times are ms of the log's clock.

    fault: (code, field) of a submission that could not be read; it is about to be rejected.
    abort_seq: sequence of the recorded abort request, 0 = none.
    run: the current or last run. avoid_node: where it failed last.
    waiting_on: parents that have not ended, each with "ok" or "any".
    doomed_by: a parent that makes it impossible to start.
    evictions: how often it had to give way (preempted, or its spot node was taken away).
    cost_micros: what its closed runs cost; of an array, those of its members.
    promised: a node where others give way for it.
    tries: the last runs as (run, node, chunks of output shipped; -1 = not ended).
    """

    key: str
    seq: int
    spec: JobSpec
    submitted_ms: int
    state: str = "pending"
    admitted: bool = False
    fault: tuple[str, str] | None = None
    reason: str = ""
    detail: str = ""
    held: bool = False
    member: int = -1
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    evictions: int = 0
    cost_micros: int = 0
    run: int = 0
    node: str = ""
    avoid_node: str = ""
    not_before_ms: int = 0
    abort_seq: int = 0
    exit_code: int | None = None
    assigned_ms: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    waiting_on: dict[str, str] | None = None
    dependents: list[str] | None = None
    doomed_by: str = ""
    promised: str = ""
    array: ArrayState | None = None
    tries: list[tuple[int, str, int]] | None = None

    @property
    def tenant(self) -> str:
        """The tenant's id."""
        return self.key.partition("/")[0]

    @property
    def job_id(self) -> str:
        """The job's id, `<array>.<i>` for a member."""
        return self.key.partition("/")[2]

    @property
    def parent_key(self) -> str:
        """Key of the array a member belongs to."""
        return self.key.rpartition(".")[0]


class Run(Struct, omit_defaults=True, gc=False):
    """An attempt that holds resources. `seq` is the sequence of its assign: id and fence.

    state: assigned, starting, running, stopping, unknown (cut off, no leash).
    gpu_millis: the share it holds of its one device; 0 = whole devices.
    stop_owed: why it must stop, not ordered yet. stop_reason: why a stop was ordered.
    stop_detail: in whose favour.
    """

    seq: int
    node: str
    session: int
    key: str
    attempt: int
    cpu_millis: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    gpu_millis: int = 0
    state: str = "assigned"
    assigned_ms: int = 0
    started_ms: int = 0
    stop_owed: str = ""
    stop_reason: str = ""
    stop_detail: str = ""


class Node(Struct, omit_defaults=True, gc=False):
    """A node. `session` is 0 when no agent holds one (state `lost` or `left`).

    state: ready, suspect, leaving, lost, left. Free amounts may be negative after a machine shrank.
    gpu_runs: devices given whole, each with its run. gpu_shares: thousandths taken of shared ones.
    drain_at_ms: when the runs of a draining node are stopped; 0 = they may finish.
    """

    node_id: str
    session: int
    state: str
    machine_id: str
    boot_id: str
    capacity: Capacity
    cpu_free_millis: int
    memory_free_bytes: int
    drivers: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    taints: tuple[str, ...] = ()
    spot: bool = False
    hazard_ppm_per_h: int = 0
    price_micros_per_h: int = 0
    leash: bool = False
    fence_after_ms: int = 0
    stop_ms: int = 0
    gpu_runs: dict[str, int] = {}
    gpu_shares: dict[str, int] = {}
    runs: dict[int, None] = {}
    cordoned: bool = False
    draining: bool = False
    drain_at_ms: int = 0
    joined_ms: int = 0
    changed_ms: int = 0


class Refusal(Struct, omit_defaults=True, gc=False):
    """A join that was refused and must be answered."""

    node: str
    reason: str
    detail: str


class PolicyChoice(Struct, omit_defaults=True, gc=False):
    """A policy by name and version, with its parameters."""

    name: str = "fgd"
    version: int = 1
    params: dict[str, int | str] = {}


class TenantLimits(Struct, omit_defaults=True, gc=False):
    """What a tenant's runs may hold at a time (None = unlimited) and cost, and its weight in fair sharing.

    cohort, borrow_percent, lend_percent, budget_*: as in `TenantSet`.
    """

    cpu_millis: int | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    gpu_models: dict[str, int] = {}
    runs: int | None = None
    weight: int = 1
    cohort: str = ""
    borrow_percent: int | None = None
    lend_percent: int = 100
    budget_micros: int | None = None
    budget_period_ms: int = 0


class Account(Struct, omit_defaults=True, gc=False):
    """What a tenant's closed runs have cost: ever, and in the last two windows of its budget.

    period_ms: the windows' length, 0 = none so far; window: number of the current one since the clock's
    0. A run that spans windows is split between them.
    """

    total_micros: int = 0
    period_ms: int = 0
    window: int = 0
    current_micros: int = 0
    previous_micros: int = 0


class Anomaly(Struct, omit_defaults=True, gc=False):
    """An event that contradicts the state, or is none: it changed nothing."""

    seq: int
    kind: str
    subject: str
    detail: str = ""


@dataclass(slots=True)
class Changes:
    """What evolved since somebody last looked; not part of the state, never in a digest.

    jobs: keys of those that began or ceased to wait, or wait otherwise than before; nodes: those whose
    capacity or readiness changed; tenants: whether limits changed; these for a planner. ended: jobs that
    ended, for a history.
    """

    jobs: dict[str, None] = field(default_factory=dict)
    nodes: dict[str, None] = field(default_factory=dict)
    tenants: bool = False
    ended: list[Job] = field(default_factory=list)

    def forget_touched(self) -> None:
        """A planner has caught up, or there is none."""
        self.jobs.clear()
        self.nodes.clear()
        self.tenants = False


@dataclass(slots=True)
class ClusterState:
    """Everything the fold remembers, and `changes` beside it.

    grants_only: a tenant gets only what its limits name (`quota_default: nothing`).
    prices: the price book, micros per hour of "core", "gib", "gpu" and "gpu:<model>".
    rates: what an hour of an open run costs, as it was at its assign; absent = nothing.
    tick: sequence of the last setting of a manual clock while its jobs are being placed; 0 = none is.
    epoch: sequence of the last claim on `ev.leader`; leader_junk: of something unreadable there since.
    round_*: where the round in progress stands.
    unjudged: submissions (sequence -> key) no leader has judged. doomed: jobs that can never start.
    stops_owed: runs to be stopped; finishes_owed: manual runs to be ended, with their exit code.
    gone: nodes nothing depends on any more, in the order they became so; the oldest are forgotten.
    answers_owed: nodes whose join awaits its answer; refusals: joins (by sequence) to be refused.
    demand: accepted GPU jobs counted by kind; typical: the frequent kinds, as adopted last (see `demand.py`).
    finished: ordinal -> key of ended jobs still kept; `finished_total` counts all of them.
    """

    cluster_id: str = ""
    generation: int = 0
    clock_mode: str = "wall"
    job_id_scope: str = "tenant"
    fold_version: int = 0
    finished_keep: int = 0
    digest_every: int = 0
    suspect_after_ms: int = 0
    lost_after_ms: int = 0
    seq: int = 0
    clock_ms: int = 0
    tick: int = 0
    epoch: int = 0
    leader: str = ""
    leader_nonce: str = ""
    leader_junk: dict[int, None] = field(default_factory=dict)
    rounds: int = 0
    round_next: int = 0
    round_count: int = 0
    round_end: int = 0
    upgrade_needed: int = 0
    policy: PolicyChoice = field(default_factory=PolicyChoice)
    policy_requests: dict[int, PolicyChoice] = field(default_factory=dict)
    grants_only: bool = False
    tenants: dict[str, TenantLimits] = field(default_factory=dict)
    prices: dict[str, int] = field(default_factory=dict)
    rates: dict[int, int] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    job_ids: dict[str, str] = field(default_factory=dict)
    unjudged: dict[int, str] = field(default_factory=dict)
    doomed: dict[str, None] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    stops_owed: dict[int, None] = field(default_factory=dict)
    finishes_owed: dict[int, int] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    gone: dict[str, None] = field(default_factory=dict)
    answers_owed: dict[str, None] = field(default_factory=dict)
    refusals: dict[int, Refusal] = field(default_factory=dict)
    demand: dict[str, int] = field(default_factory=dict)
    typical: dict[str, int] = field(default_factory=dict)
    finished: dict[int, str] = field(default_factory=dict)
    finished_total: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    late_reports: int = 0
    void_assigns: int = 0
    anomalies: dict[str, int] = field(default_factory=dict)
    recent_anomalies: list[Anomaly] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)


CANONICAL: tuple[str, ...] = tuple(name for name in ClusterState.__slots__ if name != "changes")
"""The fields a digest and a snapshot cover, in this order."""
