"""Compiling: mypyc makes C of the typed sources, the C compiler makes modules of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from eventsched.errors import EventschedError
from eventsched.projections.compiled.finding import GROUP, SUFFIX
from eventsched.projections.compiled.sources import ROOT, compiled, key

SETUP = """
from mypyc.build import mypycify
from setuptools import setup
modules = mypycify({paths!r}, opt_level="1", debug_level="0", group_name={group!r})
setup(name="eventsched-compiled", ext_modules=modules)
"""
TYPES = ("--ignore-missing-imports", "--follow-imports=silent", "--config-file=", "--no-warn-unused-ignores")


class NotCompiled(EventschedError):
    """Something that compiling needs is missing, or it failed."""


def build(into: Path) -> Path:
    """Compile, and keep the result in a folder in place of all earlier ones; where it is.
    Raises NotCompiled, with what is missing."""
    _check_tools()
    with tempfile.TemporaryDirectory(prefix="eventsched-compile-") as temporary:
        work = Path(temporary)
        shutil.copytree(ROOT, work / "eventsched", ignore=shutil.ignore_patterns("__pycache__", f"*{SUFFIX}"))
        _run_mypyc(work)
        made = work / "made"
        for file in work.glob(f"eventsched/**/*{SUFFIX}"):
            place = made / file.relative_to(work)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, place)
        return _keep(made, into)


def _check_tools() -> None:
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise NotCompiled("mypy and setuptools are not installed", "pip install 'eventsched[compile]'")
    compiler = (os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc")).split()[0]
    if shutil.which(compiler) is None:
        raise NotCompiled(
            f"there is no C compiler {compiler}", "install one (Debian: apt install gcc), or name it in CC"
        )
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise NotCompiled(f"{headers} has no Python.h", "install Python's headers (apt install python3-dev)")


def _run_mypyc(work: Path) -> None:
    paths = [*TYPES, *(str(Path("eventsched") / path) for path in compiled())]
    (work / "setup.py").write_text(SETUP.format(paths=paths, group=GROUP))
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise NotCompiled(f"compiling failed:\n{said}", "decisions go on as before, from the sources")


def _keep(made: Path, into: Path) -> Path:
    kept = into / key()
    try:
        into.mkdir(parents=True, exist_ok=True)
        for earlier in into.iterdir():
            shutil.rmtree(earlier)
        shutil.copytree(made, into / "new")
        (into / "new").rename(kept)
    except OSError as error:
        raise NotCompiled(f"cannot be kept: {error}", "EVENTSCHED_COMPILED names another folder") from error
    return kept
