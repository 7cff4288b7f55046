"""Tables of tenants and prices."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from eventsched.cli.tables import block, clock, plain, row
from eventsched.units import format_bytes, format_cpus, format_money, format_ms
from eventsched.views import PriceView, TenantView

_GPUS = "gpu_millis"


def tenants_table(views: Sequence[TenantView]) -> Table:
    """Tenants: held of limit, kind by kind."""
    table = plain(
        "TENANT", "WEIGHT", "RUNS", "CPUS", "MEMORY", "GPUS", "SHARE", "SPENT", "COHORT", "WAITING", "LIMITS FROM"
    )
    for view in views:
        row(
            table,
            view.tenant,
            str(view.weight),
            _of(view, "runs"),
            _of(view, "cpu_millis"),
            _of(view, "memory_bytes"),
            ", ".join([_of(view, _GPUS), *(f"{_model(kind)} {_of(view, kind)}" for kind in _models(view))]),
            f"{view.share_ppm / 10_000:.1f} %",
            _spent(view),
            view.cohort or "-",
            str(view.waiting),
            "its own" if view.own_limits else ("*" if view.limits else "-"),
        )
    return table


def tenant_block(view: TenantView) -> Table:
    """Everything about one tenant."""
    table = block()
    rows = [
        ("tenant", view.tenant),
        ("limits", "its own" if view.own_limits else ("those of *" if view.limits else "none")),
        ("weight", str(view.weight)),
        ("runs", _of(view, "runs")),
        ("cpus", _of(view, "cpu_millis")),
        ("memory", _of(view, "memory_bytes")),
        ("GPUs", _of(view, _GPUS)),
        *((f"  {_model(kind)}", _of(view, kind)) for kind in _models(view)),
        ("share", f"{view.share_ppm / 10_000:.1f} % of the cluster, by weight"),
        ("waiting", f"{view.waiting} jobs"),
        ("cohort", _cohort(view)),
        ("spent", _spent(view) + (" in this period" if view.budget_period_ms else "")),
    ]
    if view.budget_period_ms:
        rows.append(("period", f"{format_ms(view.budget_period_ms)}, the next begins {clock(view.next_period_ms)}"))
        rows.append(("before", f"{format_money(view.previous_micros)} in the period before"))
    rows.append(("ever", format_money(view.total_micros)))
    for name, value in rows:
        row(table, name, value)
    return table


def _cohort(view: TenantView) -> str:
    if not view.cohort:
        return "none: it neither lends nor borrows"
    far = "whatever is lent" if view.borrow_percent is None else f"up to {view.borrow_percent} %"
    borrowed = ", ".join(f"{_amount(kind, amount)} {_model(kind)}" for kind, amount in view.borrowed.items())
    return f"{view.cohort}: lends up to {view.lend_percent} %, borrows {far}; borrowed now: {borrowed or 'nothing'}"


def _models(view: TenantView) -> list[str]:
    return sorted(kind for kind in {**view.limits, **view.held} if kind.startswith(f"{_GPUS}:"))


def _model(kind: str) -> str:
    names = {"runs": "runs", "cpu_millis": "cpus", "memory_bytes": "of memory", _GPUS: "GPUs"}
    return names.get(kind) or kind.removeprefix(f"{_GPUS}:").upper()


def _amount(kind: str, number: int) -> str:
    if kind == "memory_bytes":
        return format_bytes(number)
    return str(number) if kind == "runs" else format_cpus(number)


def _of(view: TenantView, kind: str) -> str:
    held = _amount(kind, view.held.get(kind, 0))
    return f"{held} of {_amount(kind, view.limits[kind])}" if kind in view.limits else held


def _spent(view: TenantView) -> str:
    spent = format_money(view.spent_micros if view.budget_micros is not None else view.total_micros)
    return spent if view.budget_micros is None else f"{spent} of {format_money(view.budget_micros)}"


def prices_table(view: PriceView) -> Table:
    """The price book, an hour of each."""
    table = plain("AN HOUR OF", "COSTS")
    models = [(f"a GPU {model.upper()}", price) for model, price in view.gpu_models.items()]
    rest = "a GPU of another model" if models else "a GPU"
    rows = [("a core", view.core_micros_per_h), ("a GiB of memory", view.gib_micros_per_h), *models]
    for name, price in [*rows, (rest, view.gpu_micros_per_h)]:
        row(table, name, format_money(price))
    return table
