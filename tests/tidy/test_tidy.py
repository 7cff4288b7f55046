"""Habits of the house, checked: sizes, lint, types, layers."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX, FUNCTION_LINES_MAX = 400, 70
SOURCES = sorted(
    path
    for folder in ("eventsched", "projections", "agents", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if not {"projections", "agents"} & set(path.relative_to(ROOT).parts[1:])
)
BIN = Path(sys.executable).parent


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 150


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES_MAX
    tree = ast.parse(text)
    assert not text.strip() or ast.get_docstring(tree), "a module begins with what lives in it"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, f"{node.name} is too long"


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports",)],
    ids=lambda command: " ".join(command),
)
def test_tools_are_content(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_of_the_contract_is_in_the_layering() -> None:
    """A new module of `eventsched` must not slip past import-linter."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = set(next(one for one in contracts if one["name"] == "the contract imports neither")["source_modules"])
    ours = {
        f"eventsched.{path.stem}"
        for path in (ROOT / "eventsched").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.name.startswith("__")
    }
    assert ours - {"eventsched.projections", "eventsched.agents"} == listed


def test_nothing_points_out_of_the_project() -> None:
    """No path of a machine, no folder beside the project, no unfinished business in what is committed."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("no git checkout")
    forbidden = ["/" + "work/", "../" + "shared", "TO" + "DO", "FIX" + "ME"]
    for name in listed:
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and path.suffix in (".py", ".md", ".toml", ".sh", ".conf", ""):
            text = path.read_text(errors="replace")
            assert not [word for word in forbidden if word in text], name
