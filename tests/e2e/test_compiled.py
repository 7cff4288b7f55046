"""`eventsched compile`: the same answers, faster; and never an answer of other sources than those that are here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eventsched.projections.compiled import building
from eventsched.projections.compiled.finding import LIBRARY, SUFFIX

ROOT = Path(__file__).parents[2]
EVENTSCHED = Path(sys.executable).parent / "eventsched"
POLICIES = ("best-fit", "cost-aware", "fgd", "drf", "backfill", "backfill-conservative", "order=edf,preempt=1")
PLAYED = """
import sys
from eventsched.projections.cluster.digest import digest
from eventsched.projections.compiled.finding import is_used
from eventsched.projections.simulation.engine import Options, Simulation
from eventsched.projections.bench.simulating import made_up
print(is_used())
for policy in sys.argv[1:]:
    simulation = Simulation(made_up(600, 6, 20), policy, Options(seed=1))
    simulation.run()
    print(policy, digest(simulation.state))
"""

pytestmark = pytest.mark.timeout(900)


def _run(where: Path | str, *command: str | Path, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EVENTSCHED_COMPILED": str(where), **more}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("compiled")
    done = _run(folder, EVENTSCHED, "compile")
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout
    yield folder
    (folder / "mine").mkdir()
    (folder / "mine/thesis.txt").write_text("dear")
    assert _run(folder, EVENTSCHED, "compile", "--remove").returncode == 0
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_every_policy_decides_the_same(compiled: Path) -> None:
    there = _run(compiled, sys.executable, "-c", PLAYED, *POLICIES)
    here = _run("off", sys.executable, "-c", PLAYED, *POLICIES)
    assert (there.returncode, here.returncode) == (0, 0), there.stderr + here.stderr
    assert (there.stdout.splitlines()[0], here.stdout.splitlines()[0]) == ("True", "False")
    assert there.stdout.splitlines()[1:] == here.stdout.splitlines()[1:]


def test_what_was_recorded_is_decided_again_and_cached_answers_are_the_uncached_ones(
    compiled: Path, tmp_path: Path
) -> None:
    """Golden logs, kept planners against fresh ones, promises and quotas: the tests of the core, on compiled code.

    They take turns among themselves (TMPDIR): in the turns of the suite they would wait for who waits for this test.
    """
    units = ("tests/unit/test_stages.py", "tests/unit/test_preempting.py", "tests/unit/test_reviewed.py")
    chosen = ("tests/golden", "tests/properties", *units, "tests/e2e/test_policy_docs.py")
    pytest_ = ("-m", "pytest", "-q", "--no-header", "-p", "no:xdist")
    done = _run(compiled, sys.executable, *pytest_, *chosen, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_a_benchmark_says_what_it_measured(compiled: Path) -> None:
    for where, said in ((compiled, True), ("off", False)):
        done = _run(where, EVENTSCHED, "bench", "simulate", "--jobs", "50", "--times", "1")
        assert json.loads(done.stdout)["compiled"] is said


def test_other_sources_are_not_answered_for(compiled: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "eventsched", tmp_path / "eventsched", ignore=shutil.ignore_patterns("__pycache__"))
    scores = tmp_path / "eventsched/projections/scheduling/scores.py"
    for more, used in (("", "True"), ("\n", "False")):
        scores.write_text(scores.read_text() + more)
        command = (sys.executable, "-c", PLAYED, "first-fit")
        done = _run(compiled, *command, cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert done.stdout.splitlines()[0] == used, done.stderr


def test_a_library_that_does_not_load_is_left_aside(compiled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(compiled, folder)
    (library,) = folder.rglob(f"{LIBRARY.rpartition('.')[2]}{SUFFIX}")
    library.write_bytes(b"not a library")
    done = _run(folder, EVENTSCHED, "bench", "simulate", "--jobs", "50", "--times", "1")
    assert json.loads(done.stdout)["compiled"] is False
    assert "left aside" in done.stderr
    assert "eventsched compile" in done.stderr


@pytest.mark.parametrize(
    ("folder", "environment", "said"),
    [
        ("off", {}, "let EVENTSCHED_COMPILED name a folder"),
        ("{tmp}/here", {"CC": "no-such-compiler"}, "there is no C compiler no-such-compiler"),
        ("{tmp}/file/below", {}, "nothing can be kept in"),
        ("{tmp}/" + "x" * 300, {}, "nothing can be kept in"),
        ("", {"XDG_CACHE_HOME": "relative"}, "let EVENTSCHED_COMPILED name a folder"),
    ],
)
def test_what_is_missing_is_said(folder: str, environment: dict[str, str], said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = _run(folder.format(tmp=tmp_path), EVENTSCHED, "compile", **environment)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_several_that_are_made_at_once_do_not_spoil_each_other(tmp_path: Path) -> None:
    for name in ("a" * 32, "b" * 32):
        made = tmp_path / "made" / name
        made.mkdir(parents=True)
        (made / f"library{SUFFIX}").write_bytes(b"whole")
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "mine").write_text("dear")
    keys = ["a" * 32, "b" * 32] * 10
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(lambda key: building._keep(tmp_path / "made" / key, folder), keys))
    assert [path.name for path in kept] == keys
    left = [path for path in folder.iterdir() if path.is_dir()]
    assert left
    assert {path.read_bytes() for one in left for path in one.rglob(f"*{SUFFIX}")} == {b"whole"}
    assert building.remove(folder) == len(left)
    assert [path.name for path in folder.iterdir()] == ["mine"]
