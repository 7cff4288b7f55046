"""How the history searches: always by an index, whatever is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eventsched.projections.history import History


def _page(fields: dict[str, Any], history: History) -> object:
    asked = {"before_seq": 10, "tenant": "", "states": [], "node": "", "since_ms": 0, "limit": 100, **fields}
    return history.page(**asked)


PAGES: list[dict[str, Any]] = [
    {**tenant, **states, **node, **since}
    for tenant in ({}, {"tenant": "t"})
    for states in ({}, {"states": ["failed"]}, {"states": ["failed", "aborted"]})
    for node in ({}, {"node": "n1"})
    for since in ({}, {"since_ms": 5})
]
QUESTIONS: list[Callable[[History], object]] = [
    *(partial(_page, fields) for fields in PAGES),
    lambda history: history.find("j"),
    lambda history: history.find("j", "t"),
    lambda history: history.ids_starting("j"),
    lambda history: history.ids_starting("j", "t"),
    lambda history: history.member("t/a", 5, 3),
    lambda history: list(history.members("t/a", 5)),
    lambda history: list(history.members("t/a", 5, 2, ["failed", "aborted"], "n1")),
    lambda history: list(history.member_indexes("t/a", 5, 2)),
    lambda history: history.member_counts("t/a", 5),
]


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_no_question_reads_the_whole_table(tmp_path: Path, number: int) -> None:
    """Nor sorts what it finds; only the ends of one array's members are counted by way of a table."""
    history = History(tmp_path / "history.sqlite", "log.1")
    asked: list[str] = []
    history._db.set_trace_callback(asked.append)
    QUESTIONS[number](history)
    history._db.set_trace_callback(None)
    assert asked
    for statement in asked:
        plan = [row[3] for row in history._db.execute("EXPLAIN QUERY PLAN " + statement)]
        assert any(step.startswith("SEARCH jobs USING") for step in plan), (statement, plan)
        assert not [step for step in plan if step.startswith("SCAN jobs")], (statement, plan)
        if "GROUP BY" not in statement:
            assert not [step for step in plan if "TEMP B-TREE" in step], (statement, plan)
    history.close()
