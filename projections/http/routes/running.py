"""What operators run a cluster with: nodes, tenants and their quotas, policies."""

from __future__ import annotations

from typing import Any

from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath
from msgspec import Struct, field

from eventsched import query
from eventsched.asking import policy_answer
from eventsched.client import WRITE_TIMEOUT_S
from eventsched.events import NodeCordoned, NodeDrained, NodeUncordoned, PolicySet
from eventsched.ids import is_id
from eventsched.projections.http.auth import Caller
from eventsched.projections.http.bodies import OBJECT, Answer, answer, body_of, encode, read_json, reads, sets, writes
from eventsched.projections.http.desk import Asked, Desk, come_in
from eventsched.projections.http.errors import ApiError
from eventsched.projections.http.routes.jobs import MinSeq
from eventsched.projections.views.policies import policy_views
from eventsched.projections.views.tenants import tenant_views
from eventsched.tenancy import tenant_event
from eventsched.views import NodeView, PolicyView, TenantView
from eventsched.wire import Event, Int

NODES, TENANTS, POLICIES = ["nodes"], ["tenants"], ["policies"]
NodeViews = list[NodeView]
DEADLINE_MAX_MS = 3_650 * 86_400_000


class DrainBody(Struct, forbid_unknown_fields=True):
    """deadline_ms: how long runs may go on, 0 = for ever. now: stop them at once."""

    deadline_ms: Int = 0
    now: bool = False


class PolicyBody(Struct, forbid_unknown_fields=True):
    """A policy by name, with parameters."""

    name: str
    params: dict[str, Int | str] = field(default_factory=dict)


# ---- nodes --------------------------------------------------------------------------------------


@reads("/nodes", NodeViews, summary="Nodes", tags=NODES)
async def nodes(request: Asked, min_seq: MinSeq = 0) -> Answer:
    """All nodes by name: capacity, what is free, runs, and what heartbeats say."""
    desk, caller = come_in(request)
    return answer(encode(await _nodes(desk, caller, "", min_seq)), seq=desk.follower.state.seq)


@reads("/nodes/{node:str}", NodeView, summary="One node", tags=NODES)
async def one_node(node: FromPath[str], request: Asked, min_seq: MinSeq = 0) -> Answer:
    """A node by its name."""
    desk, caller = come_in(request)
    (view,) = await _nodes(desk, caller, _known(desk, node), min_seq)
    return answer(encode(view), seq=desk.follower.state.seq)


async def _nodes(desk: Desk, caller: Caller, node: str, min_seq: int) -> NodeViews:
    asked = query.NodesRequest(node, max(min_seq, desk.intake.written))
    views: NodeViews = await desk.ask(query.NODES, asked, NodeViews)
    for view in views:
        view.runs = [run for run in view.runs if caller.sees(run["tenant"])]
        own = {str(run["run"]) for run in view.runs}
        view.usage = {run: usage for run, usage in view.usage.items() if run in own}
    return views


def _known(desk: Desk, node: str) -> str:
    desk.check_ready()
    if node not in desk.follower.state.nodes:
        raise ApiError(404, "NODE_NOT_FOUND", f"no node {node[:80]!r}")
    return node


async def _tell(request: Asked, node: str, kind: str, event: Event) -> Answer:
    desk, caller = come_in(request)
    caller.require("operator")
    seq = await desk.administer(kind, event)
    (view,) = await _nodes(desk, caller, _known(desk, node), seq)
    return answer(encode(view), seq=seq)


_DRAIN = OBJECT(properties={"deadline_ms": Schema(type=OpenAPIType.INTEGER), "now": Schema(type=OpenAPIType.BOOLEAN)})


@writes("/nodes/{node:str}/drain", NodeView, summary="Empty a node", tags=NODES, takes=body_of(_DRAIN, required=False))
async def drain(node: FromPath[str], request: Asked) -> Answer:
    """No new runs; those there are go on until the deadline, then they are stopped and requeued."""
    desk, caller = come_in(request)
    caller.require("operator")
    body = await read_json(request, DrainBody, empty=b"{}")
    if not 0 <= body.deadline_ms <= DEADLINE_MAX_MS:
        raise ApiError(
            422, "VALIDATION_ERROR", f"deadline_ms: {body.deadline_ms} is not between 0 and {DEADLINE_MAX_MS}"
        )
    event = NodeDrained(node=_known(desk, node), deadline_ms=body.deadline_ms, now=body.now)
    return await _tell(request, node, "node_drained", event)


@writes("/nodes/{node:str}/cordon", NodeView, summary="No new runs on a node", tags=NODES)
async def cordon(node: FromPath[str], request: Asked) -> Answer:
    """Runs there are go on."""
    desk, _ = come_in(request)
    return await _tell(request, node, "node_cordoned", NodeCordoned(node=_known(desk, node)))


@writes("/nodes/{node:str}/uncordon", NodeView, summary="End a cordon or a drain", tags=NODES)
async def uncordon(node: FromPath[str], request: Asked) -> Answer:
    """The node gets runs again."""
    desk, _ = come_in(request)
    return await _tell(request, node, "node_uncordoned", NodeUncordoned(node=_known(desk, node)))


# ---- tenants ------------------------------------------------------------------------------------


@reads("/tenants", list[TenantView], summary="Tenants", tags=TENANTS)
async def tenants(request: Asked, min_seq: MinSeq = 0) -> Answer:
    """Limits, what their runs hold and how many jobs wait; a tenant's token sees its own."""
    desk, caller = come_in(request)
    await desk.folded(min_seq)
    views = [view for view in tenant_views(desk.follower.state, desk.follower.now_ms()) if caller.sees(view.tenant)]
    return answer(encode(views), seq=desk.follower.state.seq)


@reads("/tenants/{name:str}", TenantView, summary="One tenant", tags=TENANTS)
async def one_tenant(name: FromPath[str], request: Asked, min_seq: MinSeq = 0) -> Answer:
    """`*` stands for every tenant that has no limits of its own."""
    desk, caller = come_in(request)
    await desk.folded(min_seq)
    return answer(encode(_tenant(desk, caller, name)), seq=desk.follower.state.seq)


def _tenant(desk: Desk, caller: Caller, name: str) -> TenantView:
    found = tenant_views(desk.follower.state, desk.follower.now_ms(), name) if caller.sees(name) else []
    if not found:
        raise ApiError(404, "TENANT_NOT_FOUND", f"nothing is known of a tenant {name[:80]!r}")
    return found[0]


_LIMITS = OBJECT(
    properties={
        **{name: Schema(type=OpenAPIType.INTEGER) for name in ("weight", "cpu_millis", "memory_bytes", "gpus", "runs")},
        "gpu_models": OBJECT(additional_properties=Schema(type=OpenAPIType.INTEGER)),
    }
)


@sets(
    "/tenants/{name:str}",
    TenantView,
    summary="Set a tenant's limits",
    tags=TENANTS,
    takes=body_of(_LIMITS, quota={"gpu_models": {"A100": 2, "H100": 1}, "weight": 2}),
)
async def set_tenant(name: FromPath[str], request: Asked) -> Answer:
    """In place of those it had: what is left out is unlimited."""
    desk, caller = come_in(request)
    caller.require("operator")
    limits = await read_json(request, dict[str, Any])
    if name != "*" and not is_id(name):
        raise ApiError(404, "TENANT_NOT_FOUND", f"{name[:80]!r} is no tenant's id")
    fixed = [one for one in ("tenant", "by") if one in limits]
    if fixed:
        raise ApiError(422, "VALIDATION_ERROR", f"{fixed[0]}: is not given in the body")
    seq = await desk.administer("tenant_set", tenant_event(tenant=name, **limits))
    if limits.get("removed"):
        return answer(b"{}", seq=seq)
    return answer(encode(_tenant(desk, caller, name)), seq=seq)


# ---- policies -----------------------------------------------------------------------------------


@reads("/policies", list[PolicyView], summary="Policies", tags=POLICIES)
async def policies(request: Asked, min_seq: MinSeq = 0) -> Answer:
    """All policies, by name; the current one with its parameters."""
    desk, _ = come_in(request)
    await desk.folded(min_seq)
    return answer(encode(policy_views(desk.follower.state)), seq=desk.follower.state.seq)


@reads("/policy", PolicyView, summary="The policy that decides", tags=POLICIES)
async def policy(request: Asked, min_seq: MinSeq = 0) -> Answer:
    """With its parameters."""
    desk, _ = come_in(request)
    await desk.folded(min_seq)
    return answer(encode(_current(desk)), seq=desk.follower.state.seq)


def _current(desk: Desk) -> PolicyView:
    current = [view for view in policy_views(desk.follower.state) if view.current]
    if not current:
        raise ApiError(404, "POLICY_NOT_FOUND", "the policy that decides is not of this build")
    return current[0]


@sets(
    "/policy",
    PolicyView,
    summary="Let another policy decide",
    tags=POLICIES,
    takes=body_of(
        OBJECT(properties={"name": Schema(type=OpenAPIType.STRING), "params": OBJECT()}, required=["name"]),
        best_fit={"name": "best-fit", "params": {}},
    ),
)
async def set_policy(request: Asked) -> Answer:
    """Answers when the leader has judged it: 422 with the reason if it is refused."""
    desk, caller = come_in(request)
    caller.require("operator")
    body = await read_json(request, PolicyBody)
    seq = await desk.administer("policy_set", PolicySet(name=body.name, params=body.params))
    await desk.folded(await policy_answer(desk.client.log, seq, WRITE_TIMEOUT_S))
    return answer(encode(_current(desk)), seq=desk.follower.state.seq)


ROUTES = [nodes, one_node, drain, cordon, uncordon, tenants, one_tenant, set_tenant, policies, policy, set_policy]
