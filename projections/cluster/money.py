"""Money: prices, what a run costs, and what tenants have spent. Integers: millionths of the currency.

A run costs from its assign until it is closed, as it holds its resources so long. What an hour of it
costs is fixed at its assign: on a node that states its price, the largest share of the node's cpu,
memory or GPUs that the run holds, of that price; elsewhere the sum by the price book. Every amount is
rounded up to a whole micro. Sums stop at 2^53 and stay there.
"""

from __future__ import annotations

from eventsched.events import PriceSet
from eventsched.projections.cluster.anomalies import anomaly
from eventsched.projections.cluster.state import TERMINAL, Account, ClusterState, Node, Run
from eventsched.projections.cluster.tenants import limits_of
from eventsched.recorded import Recorded
from eventsched.tenancy import price_problems
from eventsched.wire import MAX_INT

HOUR_MS = 3_600_000
GIB = 1 << 30


def price_set(state: ClusterState, recorded: Recorded, event: PriceSet) -> None:
    """A new price book; runs that are open keep the price they began with."""
    found = price_problems(event)
    if found:
        anomaly(state, recorded, "bad_price", str(found[0]))
        return
    prices = {"core": event.core_micros_per_h, "gib": event.gib_micros_per_h, "gpu": event.gpu_micros_per_h}
    prices |= {f"gpu:{model.lower()}": event.gpu_models[model] for model in sorted(event.gpu_models)}
    state.prices = {name: price for name, price in prices.items() if price or name.startswith("gpu:")}


def rate_of(prices: dict[str, int], node: Node, run: Run) -> int:
    """What an hour of a run on that node costs."""
    if node.price_micros_per_h:
        return _share_of_node(node, run)
    return _by_the_book(prices, node, run) if prices else 0


def _share_of_node(node: Node, run: Run) -> int:
    price, capacity = node.price_micros_per_h, node.capacity
    amounts = (
        (run.cpu_millis, capacity.cpu_millis),
        (run.memory_bytes, capacity.memory_bytes),
        (run.gpu_millis or 1000 * len(run.gpus), 1000 * len(capacity.gpus)),
    )
    shares = [_ceil(price * held, total) for held, total in amounts if held > 0 and total > 0]
    return min(price, max(shares, default=0))


def _by_the_book(prices: dict[str, int], node: Node, run: Run) -> int:
    cost = _ceil(prices.get("core", 0) * run.cpu_millis, 1000) + _ceil(prices.get("gib", 0) * run.memory_bytes, GIB)
    for gpu in node.capacity.gpus if run.gpus else ():
        if gpu.uuid in run.gpus:
            cost += _ceil(_price_of_gpu(prices, gpu.model, gpu.variant) * (run.gpu_millis or 1000), 1000)
    return max(0, min(cost, MAX_INT))


def _price_of_gpu(prices: dict[str, int], model: str, variant: str) -> int:
    for name in (variant, model):
        price = prices.get(f"gpu:{name.lower()}")
        if price is not None:
            return price
    return prices.get("gpu", 0)


def _ceil(amount: int, unit: int) -> int:
    return -(-amount // unit)


def cost_between(rate: int, assigned_ms: int, from_ms: int, to_ms: int) -> int:
    """What a run costs between two moments. Parts of its time add up to exactly its whole cost."""
    return _cost_of(rate, to_ms - assigned_ms) - _cost_of(rate, from_ms - assigned_ms)


def _cost_of(rate: int, held_ms: int) -> int:
    return min(_ceil(rate * held_ms, HOUR_MS), MAX_INT) if held_ms > 0 else 0


def charge(state: ClusterState, run: Run) -> None:
    """Settle a run that is closed now: with its tenant, and with its job unless that has ended without it."""
    rate = state.rates.pop(run.seq, 0)
    if not rate:
        return
    now_ms, assigned_ms = state.clock_ms, run.assigned_ms
    cost = cost_between(rate, assigned_ms, assigned_ms, now_ms)
    tenant = run.key.partition("/")[0]
    account = state.accounts.get(tenant)
    if account is None:
        account = state.accounts[tenant] = Account()
    account.total_micros = _add(account.total_micros, cost)
    limits = limits_of(state, tenant)
    if limits is not None and limits.budget_period_ms:
        period_ms = limits.budget_period_ms
        window = now_ms // period_ms
        _turn_to(account, period_ms, window)
        start_ms = window * period_ms
        account.current_micros = _add(account.current_micros, cost_between(rate, assigned_ms, start_ms, now_ms))
        before = cost_between(rate, assigned_ms, start_ms - period_ms, start_ms)
        account.previous_micros = _add(account.previous_micros, before)
    job = state.jobs.get(run.key)
    if job is None or job.state in TERMINAL:
        return
    job.cost_micros = _add(job.cost_micros, cost)
    array = state.jobs.get(job.parent_key) if job.member >= 0 else None
    if array is not None:
        array.cost_micros = _add(array.cost_micros, cost)


def _turn_to(account: Account, period_ms: int, window: int) -> None:
    """Begin another window, or windows of another length: these begin with nothing spent."""
    if (account.period_ms, account.window) == (period_ms, window):
        return
    is_next = account.period_ms == period_ms and account.window == window - 1
    account.previous_micros = account.current_micros if is_next else 0
    account.current_micros = 0
    account.period_ms = period_ms
    account.window = window


def _add(total: int, cost: int) -> int:
    return min(total + cost, MAX_INT)


def spent_micros(account: Account | None, period_ms: int, now_ms: int) -> tuple[int, int]:
    """What closed runs have cost in the window of `now_ms`, and in the one before.

    period_ms 0: one window for ever, and none before.
    """
    if account is None:
        return 0, 0
    if not period_ms:
        return account.total_micros, 0
    if account.period_ms != period_ms:
        return 0, 0
    window = now_ms // period_ms
    if account.window == window:
        return account.current_micros, account.previous_micros
    return 0, account.current_micros if account.window == window - 1 else 0
