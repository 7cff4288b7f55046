"""What a scheduler answers over NATS: subjects, requests, errors. (What comes back: `eventsched.endpoints`.)

JSON both ways. Any scheduler answers, leader or not; `min_seq` makes it wait until it has folded
that sequence, so that a client reads its own writes. Errors come in the service headers.

    eventsched.<endpoint>            of whoever may speak for every tenant
    eventsched.<tenant>.<endpoint>   of that tenant: the import of a tenant's account leads here, whatever
                                     its users send, so the token is the server's word
"""

from __future__ import annotations

from msgspec import Struct, field

from eventsched.spec import JobSpec

SERVICE = "eventsched"
GET = f"{SERVICE}.get"
LIST = f"{SERVICE}.list"
WAIT = f"{SERVICE}.wait"
NODES = f"{SERVICE}.nodes"
STATS = f"{SERVICE}.stats"
POLICIES = f"{SERVICE}.policies"
TENANTS = f"{SERVICE}.tenants"
PRICES = f"{SERVICE}.prices"
EXPLAIN = f"{SERVICE}.explain"
SUBMIT = f"{SERVICE}.submit"
ABORT = f"{SERVICE}.abort"
SCHEMA = f"{SERVICE}.schema"

PAGE_MAX = 500
WAIT_MAX_MS = 20_000
"""Longest a scheduler holds a WaitRequest; clients ask again."""
ERROR_HEADER = "Nats-Service-Error"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"


class GetRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One job by id, or (unless `exact`) by the beginning of its id; tenant "" = any that has it, `prefer` first."""

    job_id: str
    tenant: str = ""
    min_seq: int = 0
    prefer: str = ""
    exact: bool = False


class ExplainRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Why a job waits, or why it went where it went; named as in GetRequest."""

    job_id: str
    tenant: str = ""
    min_seq: int = 0
    prefer: str = ""


class WaitRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One job, answered when it has ended, or after `timeout_ms` as it is then."""

    job_id: str
    tenant: str = ""
    timeout_ms: int = 0
    min_seq: int = 0


class ListRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Jobs, newest first.

    states: only these. since_ms: finished jobs only if they ended then or later; -1 = none finished.
    array: the members of this array instead (key `<tenant>/<job>`). labels: only jobs that have all of these;
    of those that ended long ago, others may be among them.
    """

    tenant: str = ""
    states: list[str] = field(default_factory=list)
    node: str = ""
    since_ms: int = 0
    array: str = ""
    limit: int = PAGE_MAX
    cursor: str = ""
    min_seq: int = 0
    labels: dict[str, str] = field(default_factory=dict)


class NodesRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """All nodes, or one."""

    node: str = ""
    min_seq: int = 0


class PoliciesRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """All policies the scheduler knows, the current one with its parameters."""

    min_seq: int = 0


class TenantsRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """All tenants that have limits, runs or waiting jobs."""

    min_seq: int = 0


class PricesRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The price book."""

    min_seq: int = 0


class StatsRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The cluster in numbers."""

    min_seq: int = 0


class SubmitRequest(JobSpec, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A job: the fields of `JobSpec`, its id (one is made if it has none) and its tenant.

    The forms of earlier systems are read, too (`eventsched.forms`). A tenant whose account is its own
    need not name itself, and may name no other; elsewhere the tenant is `default` if none is given.
    """

    job_id: str = ""
    tenant: str = ""


class AbortRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """End a job or a member of an array: its whole id, or `tenant/id`. tenant: as in `SubmitRequest`."""

    job_id: str
    tenant: str = ""
    reason: str = ""
    min_seq: int = 0


class SchemaRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What there is to ask: of one endpoint, or of all of them and of the events of the log."""

    endpoint: str = ""


class Written(Struct):
    """A request that is in the log, at `seq`: durable, and not judged yet. state: of the job when it was written."""

    job_id: str
    tenant: str
    state: str
    seq: int


class ReplicaReport(Struct, omit_defaults=True):
    """What a scheduler says of itself beside the numbers of its service (`$SRV.STATS`, endpoint `stats`).

    seq: the last sequence it has folded. lag: entries it knows of beyond that. heartbeat_age_ms: the
    oldest last heartbeat of nodes in each state. Counted since the process began: rounds it has led,
    runs placed in them, the time to decide them and to have them stored.
    """

    scheduler: str
    role: str
    seq: int
    lag: int = 0
    digest_mismatches: int = 0
    rounds: int = 0
    placements: int = 0
    decide_ns: int = 0
    commit_ns: int = 0
    heartbeat_age_ms: dict[str, int] = field(default_factory=dict)
