"""What operators write: `ev.admin.<kind>`. The kind picks the Struct."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType, field

from eventsched.wire import ClientEvent, Int


class ClusterCreated(ClientEvent, frozen=True, kw_only=True, omit_defaults=False):
    """The first event of a log: its identity and the modes the fold runs in, for ever.

    generation: counts successor streams of one cluster (archiving).
    clock_mode: wall (the stored timestamps) or manual (`clock_set` events alone).
    job_id_scope: whether a job id is unique per tenant or in the whole cluster.
    quota_default: what a tenant may hold of what its limits do not name: unlimited (absent means the
        same) or nothing: then a tenant without limits gets no run, and no GPU it was not given.
    finished_keep: how many finished jobs stay in the state; older ones live in the history.
    digest_every: a digest (and a snapshot) is taken at sequences divisible by this.
    suspect_after_ms, lost_after_ms: a silent node gets no new runs, then is given up. A node whose
        leash needs longer than that to stop its runs is refused (see `cluster.nodes.timers_fit`).
    """

    cluster_id: str
    generation: Int = 1
    clock_mode: Literal["wall", "manual"] = "wall"
    job_id_scope: Literal["tenant", "cluster"] = "tenant"
    quota_default: Literal["unlimited", "nothing"] | UnsetType = UNSET
    fold_version: Int = 1
    finished_keep: Int = 10_000
    digest_every: Int = 50_000
    suspect_after_ms: Int = 12_000
    lost_after_ms: Int = 45_000


class TimersSet(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Changes when a silent node is suspected and given up; refused if a live node's leash is slower."""

    suspect_after_ms: Int
    lost_after_ms: Int
    by: str = ""


class ClockSet(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Moves the clock of a cluster created with `clock_mode: manual`; never back."""

    now_ms: Int


class PolicySet(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Chooses the scheduling policy by name, with integer or text parameters."""

    name: str
    params: dict[str, Int | str] = field(default_factory=dict)
    by: str = ""


class TenantSet(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """A tenant's weight and limits on what its runs hold at a time; replaces what was set before.

    tenant: an id, or "*" for every tenant that has no limits of its own.
    cpu_millis, memory_bytes, gpus, runs: limits; null = unlimited. gpu_models: limits by model.
        A share of a GPU counts in thousandths of one.
    weight: for fair sharing; a tenant of weight 2 may hold twice as much.
    cohort: tenants of one cohort lend each other what they do not use; "" = it neither lends nor borrows.
    borrow_percent: how much it may hold beyond its own limits, in percent of them; null = whatever the
        others lend. lend_percent: how much of its limits others may use while it does not.
    budget_micros: what its runs may cost in a period, in millionths of the currency; null = no budget.
    budget_period_ms: windows of the log's clock, counted from 1970 (or the manual clock's 0); 0 = one
        window for ever.
    removed: it has no limits of its own any more.
    """

    tenant: str
    cpu_millis: Int | None = None
    memory_bytes: Int | None = None
    gpus: Int | None = None
    gpu_models: dict[str, Int] = field(default_factory=dict)
    runs: Int | None = None
    weight: Int = 1
    cohort: str = ""
    borrow_percent: Int | None = None
    lend_percent: Int = 100
    budget_micros: Int | None = None
    budget_period_ms: Int = 0
    removed: bool = False
    by: str = ""


class PriceSet(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """The price book, in place of the one before: millionths of the currency for an hour of holding.

    It holds for runs assigned from now on, on nodes that state no price of their own.
    core_micros_per_h: one core. gib_micros_per_h: one GiB of memory that is reserved.
    gpu_micros_per_h: a GPU of a model that `gpu_models` does not name. gpu_models: by model or variant.
        A share of a GPU costs its share.
    """

    core_micros_per_h: Int = 0
    gib_micros_per_h: Int = 0
    gpu_micros_per_h: Int = 0
    gpu_models: dict[str, Int] = field(default_factory=dict)
    by: str = ""


class NodeCordoned(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """No new runs on this node."""

    node: str
    by: str = ""


class NodeUncordoned(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Ends a cordon and a drain."""

    node: str
    by: str = ""


class NodeDrained(ClientEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Empty this node: cordon it, let runs finish for `deadline_ms`, then stop and requeue the rest.

    deadline_ms: 0 = wait for ever; `now` = stop them at once.
    """

    node: str
    deadline_ms: Int = 0
    now: bool = False
    by: str = ""
