"""The migration pages, typed by a stranger: each command in order, each output as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .pages import ROOT, Shell, fits, steps

PAGES = sorted((ROOT / "deploy/docs/migrating").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_migration_page_does_what_it_shows(tmp_path: Path, page: Path) -> None:
    typed = steps(page.read_text())
    assert len(typed) >= 4
    with Shell(tmp_path) as shell:
        for step in typed:
            shell.run(step)


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\(deploy/docs/migrating/([a-z-]+)\.md\)", (ROOT / "README.md").read_text()))
    assert linked == {page.stem for page in PAGES}


def test_what_is_shown_must_be_what_is_printed() -> None:
    assert fits("a … c\n…\nend\n", "a b c\n1\n2\nend")
    assert fits("…\nend\n", "end\n")
    assert fits("", "")
    for shown, printed in (
        ("a … c\n", "a b d\n"),
        ("a\n", "a\nb\n"),
        ("", "b\n"),
        ("a\nb\n", "a\n"),
        ("a.c\n", "abc\n"),
        ("a …\n", "a b\nc\n"),
    ):
        assert not fits(shown, printed), (shown, printed)


def test_a_command_that_fails_and_one_that_prints_something_else_are_found(tmp_path: Path) -> None:
    page = "```console\n$ false\n$ echo $?\n1\n$ echo b\na\n$ false\n```\n"
    failing, code, other, unnoticed = steps(page)
    with Shell(tmp_path) as shell:
        shell.run(failing)
        shell.run(code)
        with pytest.raises(AssertionError, match="printed:\nb"):
            shell.run(other)
        with pytest.raises(AssertionError, match="exit code 1"):
            shell.run(unnoticed)
