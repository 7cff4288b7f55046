"""Verbs for operators: policy list, show, set."""

from __future__ import annotations

import re

from eventsched.cli import tables
from eventsched.cli.common import Output, Where, connected, pairs, print_json
from eventsched.errors import NotFound
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
