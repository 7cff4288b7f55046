"""sdist → wheel → a fresh venv → it imports, and nothing but `eventsched` was installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(400)
def test_from_sdist_to_wheel_to_a_fresh_venv(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "build", "--outdir", tmp_path, ROOT, cwd=tmp_path)  # the wheel is built from the sdist
    (sdist,) = tmp_path.glob("*.tar.gz")
    (wheel,) = tmp_path.glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert not [name for name in names if ".venv" in name or "__pycache__" in name]
    assert any(name.endswith("deploy/dev") for name in names)
    packed = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in packed} == {"eventsched", wheel.name.split("-py3")[0] + ".dist-info"}
    sources = {
        f"eventsched/{folder}{path.relative_to(ROOT / where)}"
        for where, folder in (("eventsched", ""), ("projections", "projections/"), ("agents", "agents/"))
        for path in (ROOT / where).rglob("*.py")
        if not path.is_symlink()
    }
    assert sources <= set(packed), sources - set(packed)

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[all]")
    script = (
        "import importlib, pkgutil, eventsched, eventsched.projections, eventsched.agents\n"
        "for module in pkgutil.walk_packages(eventsched.__path__, 'eventsched.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "print(eventsched.__file__)\n"
    )
    assert str(tmp_path / "venv") in _run(python, "-c", script, cwd=tmp_path)
    site = Path(_run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip())
    for stray in ("projections", "agents", "tests", "deploy"):
        assert not (site / stray).exists()
    assert _run(tmp_path / "venv/bin/eventsched", "--version", cwd=tmp_path).strip()
    assert "submit" in _run(tmp_path / "venv/bin/eventsched", "--help", cwd=tmp_path)
