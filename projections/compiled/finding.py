"""Imports use the compiled form, if there is one made of exactly the sources that are here.

It is kept in the user's cache, EVENTSCHED_COMPILED names another folder, and `off` leaves it aside.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from eventsched.projections.compiled.sources import key

VARIABLE = "EVENTSCHED_COMPILED"
OFF = "off"
SUFFIX = EXTENSION_SUFFIXES[0]
GROUP = "eventsched.projections.compiled.all"
"""All modules are one library of this name, so that they call each other as C functions; nothing is installed
outside the package's name."""
LIBRARY = f"{GROUP}__mypyc"


class Finder(MetaPathFinder):
    """Finds the modules that are in a folder of compiled ones, each at the place its name says."""

    def __init__(self, folder: Path) -> None:
        files = folder.rglob(f"*{SUFFIX}")
        self.files = {".".join(file.relative_to(folder).parts).removesuffix(SUFFIX): file for file in files}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of that name, if it is here (it may have been removed since)."""
        file = self.files.get(fullname)
        if file is None or not (fullname == LIBRARY or self._loads()) or not file.exists():
            return None
        return spec_from_file_location(fullname, file)

    def _loads(self) -> bool:
        """Whether the library behind all modules can be loaded on this machine; if not, the sources are used."""
        if LIBRARY not in sys.modules:
            try:
                import_module(LIBRARY)
            except ImportError as error:
                self.files.clear()
                said = f"the compiled form is left aside: {error}; `eventsched compile` makes it anew"
                print(said, file=sys.stderr)
        return bool(self.files)


def kept_in() -> Path | None:
    """The folder with compiled forms, one for each state of the sources; None = they are left aside."""
    named = os.environ.get(VARIABLE)
    if named == OFF:
        return None
    if named:
        return Path(named).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return cache / "eventsched" / "compiled" if cache.is_absolute() else None


def use() -> None:
    """From now on, import what is compiled."""
    folder = kept_in()
    if folder is not None and os.path.isdir(folder):  # False as well where this user may not look
        made = folder / key()
        if os.path.isdir(made) and made.stat().st_uid in (0, os.geteuid()):  # nobody else's code
            sys.meta_path.insert(0, Finder(made))


def is_used() -> bool:
    """Whether this process decides in compiled form."""
    return LIBRARY in sys.modules
