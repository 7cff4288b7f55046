"""Questions a scheduler answers over NATS: subjects, requests, errors.

    eventsched.get    GetRequest   -> JobView        eventsched.nodes  NodesRequest -> [NodeView]
    eventsched.list   ListRequest  -> JobList        eventsched.stats  StatsRequest -> Stats
    eventsched.wait   WaitRequest  -> JobView, once it has ended or the time is up
    eventsched.policies  PoliciesRequest -> [PolicyView]    eventsched.tenants  TenantsRequest -> [TenantView]
    eventsched.prices    PricesRequest -> PriceView

JSON both ways. Any scheduler answers, leader or not; `min_seq` makes it wait until it has folded
that sequence, so that a client reads its own writes. Errors come in the service headers.
"""

from __future__ import annotations

from msgspec import Struct, field

SERVICE = "eventsched"
GET = f"{SERVICE}.get"
LIST = f"{SERVICE}.list"
WAIT = f"{SERVICE}.wait"
NODES = f"{SERVICE}.nodes"
STATS = f"{SERVICE}.stats"
POLICIES = f"{SERVICE}.policies"
TENANTS = f"{SERVICE}.tenants"
PRICES = f"{SERVICE}.prices"

PAGE_MAX = 500
WAIT_MAX_MS = 20_000
"""Longest a scheduler holds a WaitRequest; clients ask again."""
ERROR_HEADER = "Nats-Service-Error"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"


class GetRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One job by id, or by the beginning of its id; tenant "" = any that has it, `prefer` first."""

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
    array: the members of this array instead (key `<tenant>/<job>`).
    """

    tenant: str = ""
    states: list[str] = field(default_factory=list)
    node: str = ""
    since_ms: int = 0
    array: str = ""
    limit: int = PAGE_MAX
    cursor: str = ""
    min_seq: int = 0


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
