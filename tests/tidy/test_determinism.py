"""The determinism rules, read off the source: what a replay must not depend on may not be there.

Imports are import-linter's business (pyproject.toml); this is about what needs none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = [
    *sorted((ROOT / "projections/cluster").glob("*.py")),
    *sorted((ROOT / "projections/scheduling").glob("*.py")),
    ROOT / "projections/leader/core.py",
    ROOT / "projections/leader/observe.py",
    ROOT / "agents/core.py",
    ROOT / "agents/effects.py",
    *sorted(path for path in (ROOT / "eventsched/events").glob("*.py") if path.name != "page.py"),
    *(ROOT / "eventsched" / f"{name}.py" for name in ("codec", "diagnosis", "ids", "recorded", "resources", "spec")),
    *(ROOT / "eventsched" / f"{name}.py" for name in ("reasons", "subjects", "wire")),
]
CLOCKS = {"time", "monotonic", "perf_counter", "time_ns", "now", "utcnow", "today"}
CALLS = {"float", "set", "frozenset", "hash", "id", "open", "input", "eval", "exec", "globals", "locals"}
FLOAT_ARRAYS = {"float16", "float32", "float64", "mean", "true_divide", "random", "sqrt", "unique"}


def offences(source: str) -> Iterator[str]:
    """What may not stand in the pure core, each as `line: what`."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Constant(value=float()):
                yield f"{line}: a float"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield f"{line}: a true division"
            case ast.Set() | ast.SetComp():
                yield f"{line}: a set; use a dict, which keeps its order"
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield f"{line}: {name}()"
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCKS:
                yield f"{line}: a clock ({name})"
            case ast.Attribute(attr=name) if name in FLOAT_ARRAYS:
                yield f"{line}: {name} is not for integers"
            case ast.Global() | ast.Nonlocal():
                yield f"{line}: hidden state"
            case ast.AsyncFunctionDef() | ast.Await():
                yield f"{line}: waiting"


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_pure_core_is_deterministic(path: Path) -> None:
    assert list(offences(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 0.5",
        "x = a / b",
        "x /= 2",
        "x = {1, 2}",
        "x = {a for a in b}",
        "x = set(a)",
        "x = hash('a')",
        "x = float('1')",
        "import time\nx = time.time()",
        "x = datetime.now()",
        "import numpy as np\nx = np.zeros(3, np.float64)",
        "async def f(): ...",
    ],
)
def test_each_offence_is_caught(source: str) -> None:
    assert list(offences(source))


def test_the_mutator_is_only_one() -> None:
    """Outside the fold nothing assigns to the state: whoever holds one reads it."""
    guilty = []
    for path in sorted((ROOT / "projections").rglob("*.py")):
        if path.parent.name == "cluster":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AugAssign)
                else []
            )
            for target in targets:
                text = ast.unparse(target)
                if text.startswith(("state.", "self.state.")) or ".state.jobs" in text or ".state.nodes" in text:
                    guilty.append(f"{path.relative_to(ROOT)}:{node.lineno} {text}")
    assert guilty == []
