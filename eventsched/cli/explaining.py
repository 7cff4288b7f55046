"""The verb explain."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table

from eventsched.cli import tables
from eventsched.cli.common import Output, Where, connected, print_json
from eventsched.explanation import Choice, Explanation, Nodes, Place, Quota
from eventsched.reasons import explain_reason
from eventsched.units import format_bytes, format_cpus, format_money

NODES_REFUSED = {
    "no_nodes": "not in a session, suspect, or leaving",
    "cordoned": "cordoned or being drained",
    "driver": "do not offer its driver",
    "node_labels": "have not the labels it asks for",
    "taint": "have a taint it does not tolerate",
    "spot": "are spot nodes, and it may not run on those",
    "price": "are dearer than it pays",
    "gpu_model": "have no GPU of the model it asks for",
    "cpu": "have not enough free cpu",
    "memory": "have not enough free memory",
    "gpu": "have not enough free GPUs",
    "per_node": "have as many of its group as it allows (max_per_node)",
}
"""What is said of the nodes one filter refuses: others may well have room."""


async def explain(job_id: str, /, *, output: Output = "table", where: Where = Where()) -> None:
    """Say why a job waits, or why it went where it went.

    A waiting job is asked about at every stage: its place in the order, its tenant's quota, what each node
    refuses it for. One that has a run shows the decision as it stands in the log.
    """
    async with connected(where) as client:
        found = await client.explain(job_id, tenant=where.tenant)
    if output == "json":
        print_json(found)
    else:
        tables.show(explanation(found))


def explanation(found: Explanation) -> RenderableType:
    """One screen."""
    head = tables.block()
    tables.row(head, "job", f"{found.tenant}/{found.job_id}")
    tables.row(head, "state", found.state)
    if found.code:
        tables.row(head, "why", f"{found.code}: {found.text or explain_reason(found.code)}")
    tables.row(head, "stage", f"{found.stage}; policy {found.policy}, as of sequence {found.seq}")
    if found.choice is not None:
        _add_choice(head, found.choice)
    if found.place is not None:
        _add_place(head, found.place)
    if found.quota is not None:
        _add_quota(head, found.quota)
    parts: list[RenderableType] = [head]
    if found.nodes is not None:
        _add_nodes(head, found.nodes)
        if found.nodes.refused:
            parts += ["", _refusals(found.nodes)]
    return Group(*parts)


def _add_choice(head: Table, choice: Choice) -> None:
    tables.row(head, "node", f"{choice.node}, run {choice.seq}, attempt {choice.attempt}")
    tables.row(head, "chosen", f"in round {choice.round} by {choice.policy}, decided on sequence {choice.basis}")
    rival = f"; next best {choice.runner_up} with {choice.runner_up_score}" if choice.runner_up else ""
    room = "the only node with room" if choice.feasible == 1 else f"best of {choice.feasible} nodes with room"
    tables.row(head, "score", f"{choice.score} ({room}{rival})")
    if choice.runner_up and choice.runner_up_score == choice.score:
        tables.row(head, "tie", f"equal points go to: {choice.ties or 'see the policy'}")
    if choice.terms:
        tables.row(head, "", " + ".join(f"{name} {points}" for name, points in choice.terms.items()))
    if choice.gpus:
        tables.row(head, "GPUs", ", ".join(choice.gpus))


def _add_place(head: Table, place: Place) -> None:
    first = ", ".join(f"{one.tenant}/{one.job_id}" for one in place.first)
    more = " …" if place.position - 1 > len(place.first) else ""
    ahead = f"; ahead: {first}{more}" if first else ""
    tables.row(head, "order", f"{place.position} of {place.waiting} that wait ({place.order}){ahead}")


def _add_quota(head: Table, quota: Quota) -> None:
    kinds = {**quota.limits, **quota.held}
    uses = [_use(kind, quota) for kind in kinds if kind in quota.limits]
    tables.row(head, "quota", ("refuses now; " if quota.refuses else "allows it; ") + ", ".join(uses))
    holders = [f"{one.job_id} on {one.node} ({_amounts(one.cpu_millis, one.gpu_millis)})" for one in quota.holders]
    if holders:
        more = f" and {quota.more_holders} more" if quota.more_holders else ""
        tables.row(head, "held by", ", ".join(holders) + more)


def _use(kind: str, quota: Quota) -> str:
    name, _, model = kind.partition(":")
    forms: dict[str, Callable[[int], str]] = {"memory_bytes": format_bytes, "runs": str, "micros": format_money}
    form = forms.get(name, format_cpus)
    words = {"cpu_millis": "cpus", "memory_bytes": "memory", "gpu_millis": model.upper() or "GPUs", "micros": "spent"}
    word = words.get(name, name)
    return f"{word} {form(quota.held.get(kind, 0))} of {form(quota.limits[kind])}"


def _amounts(cpu_millis: int, gpu_millis: int) -> str:
    cpus = f"{format_cpus(cpu_millis)} cpus"
    return f"{cpus}, {format_cpus(gpu_millis)} GPUs" if gpu_millis else cpus


def _add_nodes(head: Table, nodes: Nodes) -> None:
    tables.row(head, "nodes", f"{nodes.with_room} of {nodes.total} have room for it now")


def _refusals(nodes: Nodes) -> Table:
    table = tables.plain("REFUSED BY", "NODES", "ASKS", "BEST OFFER", "")
    for one in nodes.refused:
        tables.row(
            table, one.code, str(one.nodes), one.asked or "-", one.best or "-", NODES_REFUSED.get(one.code, one.code)
        )
    return table
