"""The worked example of the policies page is a package that works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from eventsched.projections.compiled.finding import OFF, VARIABLE

PAGE = (Path(__file__).parents[2] / "deploy/docs/policies.md").read_text()


def test_a_policy_of_another_package_is_found_and_decides(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (entry,) = re.findall(r"```toml\n.*?\n(\[project.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mypolicies.py").write_text(code)
    metadata = tmp_path / "mypolicies-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mypolicies\nVersion: 1\n")
    group = re.sub(r'\[project\.entry-points\."(.*?)"\]', r"[\1]", entry).replace('"', "")
    (metadata / "entry_points.txt").write_text(group)
    script = (
        "from tests.support import asking\n"
        "from tests.unit.test_policies import _cluster\n"
        "ledger = _cluster(4, 4, 4, policy='last-name')\n"
        "ledger.submit('j', asking())\n"
        "ledger.settle()\n"
        "print(ledger.job('j').node, ledger.state.policy.name, ledger.state.policy.params)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", VARIABLE: os.environ.get(VARIABLE, OFF)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("n2 last-name"), done.stdout


def test_the_table_of_policies_is_complete() -> None:
    from eventsched.projections.scheduling.policies import POLICIES

    assert set(re.findall(r"^\| `([a-z-]+)`", PAGE, re.MULTILINE)) == set(POLICIES)
