"""`eventsched evaluate published`: the published tables come out, and the page shows what does."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from eventsched.projections.simulation.published import Claim

from ..e2e.terminal import Terminal

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
DOCS = ROOT / "deploy/docs"
PAGE = (DOCS / "results.md").read_text()
(COMMAND, TABLES) = re.findall(r"```sh\n(eventsched [^\n]*)\n```\n\n```text\n(.*?)```", PAGE, re.DOTALL)[0]
SECTIONS = TABLES.split("\n\n")


def _text(out: str) -> str:
    return "\n".join(line.rstrip() for line in out.splitlines()) + "\n"


@pytest.mark.timeout(600)
def test_two_seeds_of_the_default_workload_and_all_of_batsim_and_philly() -> None:
    arguments = ("evaluate", "published", "--workload", "default", "--seeds", "2")
    found = _text(Terminal(ROOT).run(*arguments, timeout=580).out).split("\n\n")  # exit 0: nothing is missed
    assert [one.partition("\n")[0] for one in found] == [
        "openb default, 2 seeds: percent of 6,212 GPUs",
        *(one.partition("\n")[0] for one in SECTIONS[2:]),
    ]
    assert found[1:3] == SECTIONS[2:4], f"the page is not what comes out: run {COMMAND} again"
    assert len(re.findall(r" met$", found[3], re.MULTILINE)) == 11


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_the_page_is_what_comes_out_of_its_command() -> None:
    found = _text(Terminal(ROOT).run(*COMMAND.split()[1:], timeout=3_500).out)
    assert found == TABLES, f"run {COMMAND} again"


def test_the_page_of_policies_says_the_same() -> None:
    rows = {line.split()[0]: line for line in SECTIONS[0].splitlines()[2:]}
    lines = (DOCS / "policies.md").read_text().splitlines()
    said = {line.split("`")[1]: line.split("|", 2)[2] for line in lines if line.startswith("| `") and "±" in line}
    assert list(said) == list(rows)
    for policy, cells in said.items():
        assert re.findall(r"[0-9.]+", cells) == re.findall(r"[0-9.]+", rows[policy]), policy


def test_what_is_missed_is_named_and_exits_with_1(tmp_path: Path) -> None:
    """On a tenth of a cluster and some of the jobs nothing comes out as published."""
    for path in [*DATA.glob("openb/*.gz"), DATA / "philly/philly-2017-10-02.csv.gz"]:
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        short = lines if "published" in path.name else lines[:60]
        target = tmp_path / path.relative_to(DATA)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(gzip.compress(b"".join(short)))
    batsim = json.loads(gzip.decompress((DATA / "batsim-medium/medium_late.json.gz").read_bytes()))
    (tmp_path / "batsim-medium").mkdir()
    batsim["jobs"] = batsim["jobs"][:20]
    (tmp_path / "batsim-medium/medium_late.json.gz").write_bytes(gzip.compress(json.dumps(batsim).encode()))
    arguments = ("evaluate", "published", "--data", str(tmp_path), "--seeds", "1", "--workers", "1")
    out = Terminal(ROOT).run(*arguments, "--workload", "default", "--workload", "cpu050", code=1, timeout=120).out
    assert re.search(
        r"^openb default, random: GPUs allocated, % +[0-9.]+ +86.60 to 88.40 +MISSED$", out, re.MULTILINE
    ), out
    found = Terminal(ROOT).run(*arguments, "--workload", "cpu050", "-o", "json", code=1, timeout=120).json
    assert list(found["openb"]) == ["cpu050"]
    assert {one["what"] for one in found["claims"] if not one["met"]} == {"openb cpu050, fgd: GPUs allocated, %"}
    shutil.rmtree(tmp_path / "philly")
    assert "philly-2017-10-02.csv.gz is not there" in Terminal(ROOT).run(*arguments, code=2).err
    assert "--workload: no 'magic'" in Terminal(ROOT).run("evaluate", "published", "--workload", "magic", code=2).err


@pytest.mark.parametrize(
    ("least", "most", "met"), [(1, None, True), (None, 1, True), (1, 1, True), (1.1, None, False), (None, 0.9, False)]
)
def test_a_claim_is_met_within_its_bounds(least: float | None, most: float | None, met: bool) -> None:
    assert Claim("it", 1.0, least, most).met is met
