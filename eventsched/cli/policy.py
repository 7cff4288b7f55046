"""Verbs for operators: policy list, show, set; tenant list, show, set, remove."""

from __future__ import annotations

import getpass
import re
from contextlib import suppress
from typing import Annotated, Any

from cyclopts import Parameter

from eventsched.cli import tables
from eventsched.cli.common import BIG, Output, Where, connected, number, pairs, print_json
from eventsched.errors import InvalidSpec, NotFound
from eventsched.submissions import WEIGHT_MAX
from eventsched.units import parse_cpus_millis, parse_gpus, parse_memory
from eventsched.visible import visible


async def policy_list(*, output: Output = "table", where: Where = Where()) -> None:
    """List the policies the scheduler knows; the one that decides now is marked."""
    async with connected(where) as client:
        views = list(await client.policies())
    if output == "json":
        print_json(views)
    else:
        tables.show(tables.policies_table(views))


async def policy_show(name: str = "", /, *, output: Output = "table", where: Where = Where()) -> None:
    """Show a policy, stage by stage; without a name, the one that decides now."""
    async with connected(where) as client:
        views = list(await client.policies())
    found = [view for view in views if (view.name == name if name else view.current)]
    if not found:
        raise NotFound(f"no policy {name!r}", f"known: {', '.join(view.name for view in views)}")
    if output == "json":
        print_json(found[0])
    else:
        tables.show(tables.policy_block(found[0]))


async def policy_set(name: str, /, *params: str, output: Output = "table", where: Where = Where()) -> None:
    """Let another policy decide, from the next round on.

    eventsched policy set first-fit
    eventsched policy set quota-aging aging_ms=30000
    eventsched policy set best-fit order=drf score=spread
    """
    async with connected(where) as client:
        view = await client.set_policy(name, **{key: _value(text) for key, text in pairs(params, "parameter").items()})
    if output == "json":
        print_json(view)
    else:
        chosen = " ".join(f"{key}={value}" for key, value in view.params.items())
        print(visible(f"policy {view.name}/{view.version} decides now: {chosen}"))


def _value(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else text


async def tenant_list(*, output: Output = "table", where: Where = Where()) -> None:
    """List tenants: what they may hold, what they hold, what waits."""
    async with connected(where) as client:
        views = list(await client.tenants())
    if output == "json":
        print_json(views)
    elif views:
        tables.show(tables.tenants_table(views))
    else:
        print("no tenant has limits or jobs")


async def tenant_show(tenant: str, /, *, output: Output = "table", where: Where = Where()) -> None:
    """Show one tenant."""
    async with connected(where) as client:
        views = list(await client.tenants())
    found = [view for view in views if view.tenant == tenant]
    if not found:
        known = ", ".join(view.tenant for view in views) or "none"
        raise NotFound(f"tenant {tenant!r} has neither limits nor jobs", f"known: {known}")
    if output == "json":
        print_json(found[0])
    else:
        tables.show(tables.tenants_table(found))


async def tenant_set(
    tenant: str,
    /,
    *,
    cpus: Annotated[str, Parameter(help="cores its runs may hold at a time")] = "",
    memory: Annotated[str, Parameter(help="memory its runs may hold, e.g. 512G")] = "",
    gpus: Annotated[
        tuple[str, ...], Parameter(help="GPUs of any model, e.g. 8, or of one, e.g. A100:4; may be repeated")
    ] = (),
    runs: Annotated[int | None, number(0, BIG), Parameter(help="runs at a time")] = None,
    weight: Annotated[int, number(1, WEIGHT_MAX), Parameter(help="for fair sharing (order drf)")] = 1,
    where: Where = Where(),
) -> None:
    """Set what a tenant's runs may hold at a time; what is not given is unlimited.

    "*" is every tenant that has no limits of its own. What runs already goes on.
    """
    limits: dict[str, Any] = {"weight": weight, "runs": runs, "gpu_models": {}, "by": _user()}
    if cpus:
        limits["cpu_millis"] = 0 if cpus == "0" else parse_cpus_millis(cpus, "--cpus")
    if memory:
        limits["memory_bytes"] = parse_memory(memory, "--memory")
    for text in gpus:
        model, count = _gpus(text)
        if model:
            limits["gpu_models"][model] = count
        else:
            limits["gpus"] = count
    async with connected(where) as client:
        await client.set_tenant(tenant, **limits)
    print(f"tenant {tenant}: limits are set")


def _gpus(text: str) -> tuple[str, int]:
    model, separator, count = text.rpartition(":")
    if (separator and count == "0") or text == "0":
        return model, 0
    if "=" in text:
        raise InvalidSpec(f"--gpus: {text!r} is not COUNT or MODEL:COUNT", "e.g. 8 or A100:4")
    return parse_gpus(text, "--gpus")


def _user() -> str:
    with suppress(Exception):
        return getpass.getuser()
    return ""


async def tenant_remove(tenant: str, /, *, where: Where = Where()) -> None:
    """Remove a tenant's own limits; those of "*" hold for it then."""
    async with connected(where) as client:
        await client.set_tenant(tenant, removed=True, by=_user())
    print(f"tenant {tenant}: has no limits of its own")
