"""Compiling: mypyc makes C of the typed sources, the C compiler makes modules of it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from eventsched.errors import EventschedError
from eventsched.projections.compiled.finding import GROUP, SUFFIX, VARIABLE
from eventsched.projections.compiled.sources import ROOT, compiled, key

SETUP = """
from mypyc.build import mypycify
from setuptools import setup
modules = mypycify({paths!r}, opt_level="1", debug_level="0", group_name={group!r})
setup(name="eventsched-compiled", ext_modules=modules)
"""
MYPY = ("--ignore-missing-imports", "--follow-imports=silent", "--config-file=", "--no-warn-unused-ignores")
"""mypyc must know the types of what is compiled; whether the rest is in order is not asked here."""
ELSEWHERE = f"{VARIABLE} names another folder"
KEPT_MAX = 2
"""Kept: the present one, and the one before for processes that have not imported all of it yet."""
NEW, LOCK = "eventsched-new", "eventsched-compile.lock"


class NotCompiled(EventschedError):
    """Something that compiling needs is missing, or it failed."""


def build(into: Path) -> Path:
    """Compile, try the result, and keep it in a folder; where it is. Raises NotCompiled, with what is missing."""
    _check_tools(into)
    sources = key()
    with tempfile.TemporaryDirectory(prefix="eventsched-compile-") as temporary:
        work = Path(temporary)
        ignored = shutil.ignore_patterns("__pycache__", f"*{SUFFIX}")
        shutil.copytree(ROOT, work / "eventsched", ignore=ignored, copy_function=shutil.copyfile)
        for folder in [work / "eventsched", *work.rglob("eventsched/**/")]:
            folder.chmod(0o700)
        _run_mypyc(work)
        made = work / "made" / sources
        for file in work.glob(f"eventsched/**/*{SUFFIX}"):
            place = made / file.relative_to(work)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, place)
        if key() != sources:
            raise NotCompiled("the sources have changed meanwhile", "compile again")
        _try(made)
        return _keep(made, into)


def remove(folder: Path) -> int:
    """Remove what `build` has kept there, and the folder if nothing else is in it; how many were removed."""
    kept = _kept(folder)
    for one in kept:
        shutil.rmtree(one)
    (folder / LOCK).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return len(kept)


def _kept(folder: Path) -> list[Path]:
    """What `build` has made in a folder, the newest first: nothing else there is ours."""
    if not folder.is_dir():
        return []
    found = [one for one in folder.iterdir() if re.fullmatch(f"[0-9a-f]{{32}}|{NEW}", one.name) and one.is_dir()]
    return sorted(found, key=lambda one: one.stat().st_mtime_ns, reverse=True)


def _check_tools(into: Path) -> None:
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise NotCompiled("mypy and setuptools are not installed", "pip install 'eventsched[compile]'")
    compiler = (os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc")).split()[0]
    if shutil.which(compiler) is None:
        raise NotCompiled(f"there is no C compiler {compiler}", "install one (apt install gcc), or name it in CC")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise NotCompiled(f"{headers} has no Python.h", "install Python's headers (apt install python3-dev)")
    try:
        into.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=into).close()
    except OSError as error:
        raise NotCompiled(f"nothing can be kept in {into}: {error.strerror}", ELSEWHERE) from error


def _run_mypyc(work: Path) -> None:
    paths = [*MYPY, *(str(Path("eventsched") / path) for path in compiled())]
    (work / "setup.py").write_text(SETUP.format(paths=paths, group=GROUP))
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotCompiled(f"compiling failed: {_last_error(done)}", "decisions go on as before, from the sources")


def _try(made: Path) -> None:
    """Import all of it: another version of a tool may make what does not even start."""
    names = [".".join(("eventsched", *path.with_suffix("").parts)) for path in compiled()]
    script = (
        f"import importlib\nfor name in {names!r}: assert importlib.import_module(name).__file__.endswith({SUFFIX!r})"
    )
    environment = {**os.environ, VARIABLE: str(made.parent)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=ROOT.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotCompiled(
            f"what was compiled does not start: {_last_error(done)}", "pip install -U 'eventsched[compile]'"
        )


def _last_error(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    telling = [line for line in lines if re.search("error", line, re.IGNORECASE)]
    return (telling or lines or [f"exit code {done.returncode}"])[-1][:500]


def _keep(made: Path, into: Path) -> Path:
    """Put it in its place, on disk for certain; of earlier ones the last stays, for who runs with it."""
    kept, new = into / made.name, into / NEW
    try:
        with (into / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(made, new)
            for file in new.rglob(f"*{SUFFIX}"):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            if kept.is_dir():
                shutil.rmtree(kept)
            new.rename(kept)
            os.utime(kept)
            for earlier in _kept(into)[KEPT_MAX:]:
                shutil.rmtree(earlier)
    except OSError as error:
        raise NotCompiled(f"it cannot be kept in {into}: {error.strerror}", ELSEWHERE) from error
    return kept
