"""Old logs fold to what they always folded to, whatever the hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventsched import codec
from eventsched.events.catalogue import EXAMPLES
from eventsched.projections.cluster.digest import digest

from .make import STORIES
from .replay import fold, stories, summary

ROOT = Path(__file__).parents[2]
WIRE = Path(__file__).with_name("wire.jsonl")


@pytest.mark.parametrize("story", stories(), ids=lambda path: path.name)
def test_a_golden_log_folds_to_what_it_always_did(story: Path) -> None:
    state = fold(story)
    expected = json.loads((story / "expect.json").read_text())
    assert summary(state) == {name: value for name, value in expected.items() if name != "digest"}
    assert digest(state) == expected["digest"]


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_hash_seed_makes_no_difference(hash_seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden.replay"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {path.name: json.loads((path / "expect.json").read_text())["digest"] for path in stories()}
    assert json.loads(done.stdout) == expected


def test_every_story_is_there() -> None:
    assert {path.name for path in stories()} == set(STORIES)


def test_the_wire_format_is_what_it_always_was() -> None:
    """One line an example: subject and payload, byte for byte. Lines are only ever added."""
    lines = [json.dumps([subject, codec.encode(event).decode()]) for subject, event in EXAMPLES]
    assert WIRE.read_text().splitlines() == lines
