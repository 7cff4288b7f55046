"""Decides the rounds of logs again; run as a process of its own, under another hash seed or another NumPy:

`python -m tests.golden.redecide` plays simulated stories and decides each of their rounds again;
`python -m tests.golden.redecide FILE …` does so for recorded logs (lines as in `logs/*/events.jsonl`).
What it prints must be the same everywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from eventsched.log.port import Entry
from eventsched.projections.redeciding import redecide

from ..simulation.story import told
from .replay import payload_of

SEEDS = range(8)


def entries_of(path: Path) -> Iterable[Entry]:
    """A recorded log."""
    for text in path.read_text().splitlines():
        line = json.loads(text)
        yield Entry(line["seq"], line["at_ms"], line["subject"], payload_of(line))


def main(files: list[str]) -> None:
    """Print what came of each log."""
    if files:
        found = {name: redecide(entries_of(Path(name))) for name in files}
    else:
        found = {f"seed {seed}": redecide(told(seed)) for seed in SEEDS}
    print(json.dumps(msgspec.to_builtins(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
