"""What is compiled, and of what a compiled form must have been made to be used."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import eventsched

ROOT = Path(eventsched.__path__[0])
"""The package as it is imported: its parts stand below it, whether they are linked there or not."""
SIMULATOR = ("accounts", "chance", "engine", "fragments", "outcome")
SHAPING = ("", "events", "projections/cluster", "projections/scheduling", "projections/simulation")
"""Folders whose types compiled code relies on."""


def compiled() -> list[Path]:
    """The files that are compiled, relative to the package."""
    scheduling = sorted((ROOT / "projections/scheduling").glob("*.py"))
    return [
        *(path.relative_to(ROOT) for path in scheduling if path.stem != "__init__"),
        *(Path(f"projections/simulation/{name}.py") for name in SIMULATOR),
    ]


def key() -> str:
    """Names these very sources for this very Python."""
    found = hashlib.blake2b(f"{sys.version} {sysconfig.get_config_var('EXT_SUFFIX')}".encode(), digest_size=16)
    for path in _shaping():
        source = path.read_bytes()
        found.update(f"{path.relative_to(ROOT)} {len(source)} ".encode())
        found.update(source)
    return found.hexdigest()


def _shaping() -> Iterator[Path]:
    for folder in SHAPING:
        yield from sorted((ROOT / folder).glob("*.py"))
