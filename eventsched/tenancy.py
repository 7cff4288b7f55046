"""What operators may set, and to what: limits of tenants, prices, parameters of policies.

The values of limits and prices have one rule for clients, who are told at once, and for the fold,
which takes no others. What a policy's parameters may be the policy itself says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from eventsched.errors import InvalidSpec
from eventsched.events import PolicySet, PriceSet, TenantSet
from eventsched.ids import ID_RULE, is_id
from eventsched.spec import DAY_MS, Problem
from eventsched.wire import MAX_INT

E = TypeVar("E", TenantSet, PriceSet, PolicySet)

EVERYBODY = "*"
"""The tenant whose limits hold for every tenant that has none of its own."""
WEIGHT_MAX = 1_000
PERCENT_MAX = 10_000
PERIOD_MAX_MS = 3_650 * DAY_MS
MODELS_MAX = 100


def tenant_problems(event: TenantSet) -> list[Problem]:
    """Everything wrong with what is to be set; [] when it is acceptable."""
    found: list[Problem] = []
    if event.tenant != EVERYBODY and not is_id(event.tenant):
        found.append(Problem("bad_value", "tenant", f"{event.tenant[:64]!r} is not an id ({ID_RULE})"))
    amounts = [
        ("cpu_millis", event.cpu_millis),
        ("memory_bytes", event.memory_bytes),
        ("gpus", event.gpus),
        ("runs", event.runs),
        ("budget_micros", event.budget_micros),
    ]
    found += _outside(amounts, 0, MAX_INT)
    found += _models(event.gpu_models)
    found += _outside([("weight", event.weight)], 1, WEIGHT_MAX)
    found += _outside([("borrow_percent", event.borrow_percent)], 0, PERCENT_MAX)
    found += _outside([("lend_percent", event.lend_percent)], 0, 100)
    found += _outside([("budget_period_ms", event.budget_period_ms)], 0, PERIOD_MAX_MS)
    if event.cohort and not is_id(event.cohort):
        found.append(Problem("bad_value", "cohort", f"{event.cohort[:64]!r} is not an id ({ID_RULE})"))
    elif event.cohort and event.tenant == EVERYBODY:
        found.append(Problem("bad_value", "cohort", "name each tenant of a cohort: '*' is any number of them"))
    return found


def price_problems(event: PriceSet) -> list[Problem]:
    """Everything wrong with a price book; [] when it is acceptable."""
    prices = [
        ("core_micros_per_h", event.core_micros_per_h),
        ("gib_micros_per_h", event.gib_micros_per_h),
        ("gpu_micros_per_h", event.gpu_micros_per_h),
    ]
    return _outside(prices, 0, MAX_INT) + _models(event.gpu_models)


def _models(amounts: dict[str, int]) -> list[Problem]:
    if len(amounts) > MODELS_MAX:
        return [Problem("out_of_range", "gpu_models", f"{len(amounts)} models; at most {MODELS_MAX}")]
    return _outside([(f"gpu_models.{model[:64]}", amount) for model, amount in sorted(amounts.items())], 0, MAX_INT)


def _outside(values: Iterable[tuple[str, int | None]], least: int, most: int) -> list[Problem]:
    return [
        Problem("out_of_range", name, f"{value} is not between {least} and {most}")
        for name, value in values
        if value is not None and not least <= value <= most
    ]


def tenant_event(**fields: Any) -> TenantSet:
    """The event of these fields; raises InvalidSpec, naming the field."""
    event = _converted(fields, TenantSet)
    _refuse(tenant_problems(event))
    return event


def price_event(**fields: Any) -> PriceSet:
    """The event of these fields; raises InvalidSpec, naming the field."""
    event = _converted(fields, PriceSet)
    _refuse(price_problems(event))
    return event


def policy_event(name: str, params: dict[str, Any]) -> PolicySet:
    """The event that asks for a policy; raises InvalidSpec, naming the field."""
    for param, value in params.items():
        if not isinstance(value, str) and not (isinstance(value, int) and abs(value) <= MAX_INT):
            raise InvalidSpec(f"{param}: {value!r} is neither a text nor a whole number up to {MAX_INT}")
    return _converted({"name": name, "params": params}, PolicySet)


def _converted(fields: dict[str, Any], kind: type[E]) -> E:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise InvalidSpec(str(error), f"{kind.__name__} has: {', '.join(kind.__struct_fields__)}") from error


def _refuse(found: list[Problem]) -> None:
    if found:
        raise InvalidSpec("; ".join(str(problem) for problem in found[:5]), "nothing was changed")
