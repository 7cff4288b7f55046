"""Why a job waits, or why it went where it went: what `explain` says, typed. Codes: `eventsched.reasons`."""

from __future__ import annotations

from msgspec import Struct, field


class Ahead(Struct, omit_defaults=True):
    """A waiting job that is looked at earlier."""

    tenant: str
    job_id: str
    priority: int
    submitted_ms: int


class Place(Struct, omit_defaults=True):
    """A waiting job's place in the order: from 1, of so many; and who comes first."""

    order: str
    position: int
    waiting: int
    first: list[Ahead] = field(default_factory=list)


class Holder(Struct, omit_defaults=True):
    """A job of the tenant that has a run, and what the run holds."""

    job_id: str
    node: str
    cpu_millis: int
    memory_bytes: int
    gpu_millis: int = 0


class Quota(Struct, omit_defaults=True):
    """What the tenant may hold and holds, by kind (`runs`, `cpu_millis`, `memory_bytes`, `gpu_millis`,
    `gpu_millis:<model>`; `micros`: its budget, and what it has spent of it), whether that refuses the job now
    (a gang: all its members together), and the largest of those that hold it."""

    refuses: bool
    limits: dict[str, int]
    held: dict[str, int]
    holders: list[Holder] = field(default_factory=list)
    more_holders: int = 0


class Refusal(Struct, omit_defaults=True):
    """So many nodes were refused by one filter, each node at its first one.

    asked, best: what the job asks of what the filter counts, and the best any of these nodes offers, in
    words; "" where nothing is counted.
    """

    code: str
    nodes: int
    asked: str = ""
    best: str = ""


class Nodes(Struct, omit_defaults=True):
    """What the nodes say: how many there are, how many have room now, and who refuses for what."""

    total: int
    with_room: int
    refused: list[Refusal] = field(default_factory=list)


class Choice(Struct, omit_defaults=True):
    """Why this node: the decision as it stands in the log.

    seq: of the assign. score, terms: of the node (higher is better; terms only where there are several).
    runner_up, runner_up_score: the second best, "" = no other had room. feasible: how many had.
    basis: the sequence the round was decided on. ties: what decides between equal points.
    """

    seq: int
    node: str
    attempt: int
    policy: str
    round: int
    basis: int
    decided_ms: int
    score: int
    feasible: int
    runner_up: str = ""
    runner_up_score: int = 0
    ties: str = ""
    terms: dict[str, int] = field(default_factory=dict)
    gpus: list[str] = field(default_factory=list)


class Explanation(Struct, omit_defaults=True, kw_only=True):
    """One job explained. code, text: the reason in a word and in a sentence with numbers.

    stage: which stage of the pipeline it has got to: admission, held, dependencies, backoff, quota, nodes,
    promise (others give way, or a place is kept), order, running, ended.
    """

    job_id: str
    tenant: str
    state: str
    stage: str
    code: str = ""
    text: str = ""
    policy: str = ""
    seq: int = 0
    place: Place | None = None
    quota: Quota | None = None
    nodes: Nodes | None = None
    choice: Choice | None = None
