"""Verbs for operators: tenant list, show, set, remove; price show, set."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from eventsched.cli import money, tables
from eventsched.cli.common import BIG, Output, Where, connected, number, print_json, user
from eventsched.client import Client
from eventsched.errors import InvalidSpec, NotFound
from eventsched.tenancy import WEIGHT_MAX
from eventsched.units import (
    parse_cpus_millis,
    parse_duration_ms,
    parse_gpus,
    parse_memory,
    parse_money_micros,
    parse_percent,
)
from eventsched.views import TenantView


async def tenant_list(*, output: Output = "table", where: Where = Where()) -> None:
    """List tenants: what they may hold, what they hold and have spent, what waits."""
    async with connected(where) as client:
        views = list(await client.tenants())
    if output == "json":
        print_json(views)
    elif views:
        tables.show(money.tenants_table(views))
    else:
        print("no tenant has limits or jobs")


async def tenant_show(tenant: str, /, *, output: Output = "table", where: Where = Where()) -> None:
    """Show one tenant, with its cohort and its money."""
    async with connected(where) as client:
        view = await _find(client, tenant)
    if view is None:
        raise NotFound(f"tenant {tenant!r} has neither limits nor jobs", "`eventsched tenant list` lists those that do")
    if output == "json":
        print_json(view)
    else:
        tables.show(money.tenant_block(view))


async def _find(client: Client, tenant: str) -> TenantView | None:
    return next((view for view in await client.tenants() if view.tenant == tenant), None)


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
    cohort: Annotated[str, Parameter(help="tenants of one cohort lend each other what they do not use")] = "",
    borrow: Annotated[
        str, Parameter(help="how far beyond its limits, in percent of them; not given: whatever the cohort lends")
    ] = "",
    lend: Annotated[
        str, Parameter(help="how much of its limits the cohort may use, in percent", show_default=True)
    ] = "100",
    budget: Annotated[str, Parameter(help="money its runs may cost in a period, e.g. 250.00")] = "",
    budget_period: Annotated[str, Parameter(help="length of a period, e.g. 30d; not given: one for ever")] = "",
    output: Output = "table",
    where: Where = Where(),
) -> None:
    """Set what a tenant's runs may hold at a time, and cost; what is not given is unlimited.

    "*" is every tenant that has no limits of its own. What runs already goes on.

    eventsched tenant set acme --gpus A100:4 --gpus H100:1 --cpus 64 --runs 100
    eventsched tenant set acme --gpus 8 --cohort research --borrow 50 --lend 75
    eventsched tenant set acme --budget 250 --budget-period 30d
    """
    limits: dict[str, Any] = {"weight": weight, "runs": runs, "gpu_models": {}, "cohort": cohort, "by": user()}
    if cpus:
        limits["cpu_millis"] = 0 if cpus == "0" else parse_cpus_millis(cpus, "--cpus")
    if memory:
        limits["memory_bytes"] = parse_memory(memory, "--memory")
    for text in gpus:
        model, count = parse_gpus(text, "--gpus")
        if model:
            limits["gpu_models"][model] = count
        else:
            limits["gpus"] = count
    if not cohort and (borrow or lend != "100"):
        raise InvalidSpec(
            "--borrow and --lend need a --cohort", "name the cohort: tenants lend to those of the same one"
        )
    if borrow:
        limits["borrow_percent"] = parse_percent(borrow, "--borrow")
    limits["lend_percent"] = parse_percent(lend, "--lend")
    if budget:
        limits["budget_micros"] = parse_money_micros(budget, "--budget")
        limits["budget_period_ms"] = parse_duration_ms(budget_period, "--budget-period") if budget_period else 0
    elif budget_period:
        raise InvalidSpec("--budget-period needs a --budget", "say how much may be spent in a period")
    async with connected(where) as client:
        await client.set_tenant(tenant, **limits)
        if output == "json":
            print_json(await _find(client, tenant))
    if output != "json":
        print(f"tenant {tenant}: limits are set")


async def tenant_remove(tenant: str, /, *, where: Where = Where()) -> None:
    """Remove a tenant's own limits; those of "*" hold for it then. What it has spent stays noted."""
    async with connected(where) as client:
        await client.set_tenant(tenant, removed=True, by=user())
    print(f"tenant {tenant}: has no limits of its own")


async def price_show(*, output: Output = "table", where: Where = Where()) -> None:
    """Show the price book: what an hour of a core, a GiB of memory and a GPU costs."""
    async with connected(where) as client:
        view = await client.prices()
    if output == "json":
        print_json(view)
    else:
        tables.show(money.prices_table(view))


async def price_set(
    *,
    cpu: Annotated[str, Parameter(help="an hour of one core, e.g. 0.04")] = "0",
    memory: Annotated[str, Parameter(help="an hour of one GiB of reserved memory, e.g. 0.005")] = "0",
    gpu: Annotated[
        tuple[str, ...], Parameter(help="an hour of a GPU: of a model, e.g. A100:2.50, or of any other, e.g. 0.90")
    ] = (),
    output: Output = "table",
    where: Where = Where(),
) -> None:
    """Set the price book, in place of the one before; what is not given costs nothing.

    It holds for runs that begin from now on, on nodes that state no price of their own.

    eventsched price set --cpu 0.04 --memory 0.005 --gpu A100:2.50 --gpu 0.90
    """
    prices: dict[str, Any] = {
        "core_micros_per_h": parse_money_micros(cpu, "--cpu"),
        "gib_micros_per_h": parse_money_micros(memory, "--memory"),
        "gpu_models": {},
        "by": user(),
    }
    for text in gpu:
        model, separator, price = text.rpartition(":")
        if (separator and not model) or not (separator or text[:1].isdigit()):
            raise InvalidSpec(f"--gpu: {text!r} is not PRICE or MODEL:PRICE", "e.g. 0.90 or A100:2.50")
        if model:
            prices["gpu_models"][model] = parse_money_micros(price, "--gpu")
        else:
            prices["gpu_micros_per_h"] = parse_money_micros(price, "--gpu")
    async with connected(where) as client:
        await client.set_prices(**prices)
        view = await client.prices()
    if output == "json":
        print_json(view)
    else:
        tables.show(money.prices_table(view))
