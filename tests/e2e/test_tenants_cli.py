"""Quotas, cohorts and money on the command line, as an operator types them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .terminal import Terminal

FAKE = ("--driver", "fake", "--duration", "60s", "--cpus", "0.1")


@pytest.fixture
def tidy(terminal: Terminal) -> Iterator[Terminal]:
    """Tenants, prices and jobs of a test end with it."""
    yield terminal
    for view in terminal.json("tenant", "list"):
        if view["own_limits"]:
            terminal.run("tenant", "remove", view["tenant"])
    terminal.run("price", "set")
    for view in terminal.json("jobs"):
        if view["state"] in ("pending", "assigned", "starting", "running"):
            terminal.run("abort", view["job_id"], "--tenant", view["tenant"])


def _tenant(terminal: Terminal, name: str) -> dict[str, object]:
    view: dict[str, object] = terminal.json("tenant", "show", name)
    return view


def test_a_cohort_lends_and_takes_back(tidy: Terminal) -> None:
    for name in ("lender", "borrower"):
        tidy.run("tenant", "set", name, "--runs", "1", "--cohort", "e2e", "--lend", "100%")
    first, second = (tidy.submit("--tenant", "borrower", *FAKE) for _ in range(2))
    tidy.until_state(first, "running")
    tidy.until_state(second, "running")
    third = tidy.submit("--tenant", "borrower", *FAKE)
    assert "cohort e2e has no more to lend" in tidy.until_state(third, "pending")["detail"]
    assert _tenant(tidy, "borrower")["borrowed"] == {"runs": 1}
    assert "borrowed now: 1 runs" in tidy.run("tenant", "show", "borrower").out
    owner = tidy.submit("--tenant", "lender", *FAKE)
    tidy.until_state(owner, "running")
    given_up = tidy.json("job", second)
    assert (given_up["state"], given_up["losses"]) == ("pending", 1)
    assert tidy.json("job", first)["state"] == "running"
    story = tidy.run("events", "--job", second, "--tenant", "borrower", "-o", "json").out
    assert f"reclaimed by tenant lender for job {owner}" in story


def test_money_is_spent_and_refuses(tidy: Terminal) -> None:
    book = tidy.json("price", "set", "--cpu", "36000", "--gpu", "A100:2.5", "--gpu", "0.9")
    assert book == tidy.json("price", "show")
    assert (book["core_micros_per_h"], book["gpu_micros_per_h"], book["gpu_models"]) == (
        36_000_000_000,
        900_000,
        {"a100": 2_500_000},
    )
    table = tidy.run("price", "show").out
    for line in ("a core           36000.00", "a GPU A100       2.50", "a GPU of another model  0.90"):
        assert line.split()[-1] in next(text for text in table.splitlines() if line.rsplit("  ", 1)[0].strip() in text)
    view = tidy.json("tenant", "set", "spender", "--budget", "0.5", "--budget-period", "30d", "--weight", "3")
    assert (view["budget_micros"], view["budget_period_ms"], view["weight"]) == (500_000, 2_592_000_000, 3)
    job = tidy.submit("--tenant", "spender", "--driver", "fake", "--duration", "1s", "--cpus", "1")
    assert tidy.until_state(job, "succeeded")["cost_micros"] >= 10_000_000, "a second of a core costs ten"
    assert "cost" in tidy.run("job", job).out
    late = tidy.submit("--tenant", "spender", *FAKE)
    waiting = tidy.json("job", late)
    assert (waiting["state"], waiting["reason"]) == ("pending", "budget")
    assert "of 0.50; the next period begins in" in waiting["detail"]
    view = _tenant(tidy, "spender")
    assert view["spent_micros"] == view["total_micros"]
    assert "of 0.50 in this period" in tidy.run("tenant", "show", "spender").out
    tidy.run("tenant", "set", "spender", "--budget", "100000")
    tidy.until_state(late, "running")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tenant", "set", "x", "--lend", "50"), "--cohort"),
        (("tenant", "set", "x", "--cohort", "no id!"), "cohort: 'no id!' is not an id"),
        (("tenant", "set", "*", "--cohort", "lab"), "cohort: name each tenant"),
        (("tenant", "set", "x", "--cohort", "c", "--lend", "101"), "lend_percent: 101 is not between 0 and 100"),
        (
            ("tenant", "set", "x", "--cohort", "c", "--borrow", "half"),
            "--borrow: 'half' is not a whole number of percent",
        ),
        (("tenant", "set", "x", "--budget", "much"), "--budget: 'much' is no amount from 0"),
        (("tenant", "set", "x", "--budget-period", "1d"), "--budget-period needs a --budget"),
        (
            ("tenant", "set", "x", "--budget", "1", "--budget-period", "month"),
            "--budget-period: 'month' is not a duration",
        ),
        (("tenant", "set", "x", "--weight", "0"), "weight: 0 is not between 1 and 1000"),
        (("price", "set", "--cpu", "-1"), "--cpu"),
        (("price", "set", "--gpu", "A100=2"), "--gpu"),
        (("price", "set", "--gpu", "A100"), "--gpu: 'A100' is not PRICE or MODEL:PRICE"),
        (("price", "set", "--memory", "0.0000001"), "--memory"),
    ],
)
def test_what_is_wrong_is_named(terminal: Terminal, arguments: tuple[str, ...], says: str) -> None:
    done = terminal.run(*arguments, code=2)
    assert says in done.err
    assert "hint:" in done.err
