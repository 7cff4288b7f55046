"""Every round of a log, decided again from the replayed state, comes out byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventsched.events import Admitted, PolicyJudged
from eventsched.log.port import Entry
from eventsched.projections.redeciding import redecide
from eventsched.projections.scheduling.decide import stamp

from ..simulation.story import told
from ..support import FAKE, ready
from .redecide import SEEDS

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("REDECIDE_PYTHON", sys.executable)
"""Another interpreter, to compare with another version of NumPy."""


def test_simulated_stories_decide_alike_under_other_hash_seeds() -> None:
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("0", "4242")]
    command = [PYTHON, "-m", "tests.golden.redecide"]
    processes = [subprocess.Popen(command, cwd=ROOT, env=one, stdout=subprocess.PIPE) for one in environments]
    outputs = [json.loads(process.communicate()[0]) for process in processes]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == len(SEEDS)
    for found in outputs[0].values():
        assert not found["differing"]
        assert not found["unknown"]
        assert found["rounds"] > 30
    here = redecide(told(0))
    assert here.digest == outputs[0]["seed 0"]["digest"]


def test_a_round_that_was_not_decided_so_is_noticed() -> None:
    ledger = ready()
    ledger.submit("j", FAKE)
    ledger.settle()
    honest = redecide(ledger.entries)
    assert (honest.rounds, honest.differing) == (2, [])
    forged = [
        Entry(seq, at_ms, subject, payload.replace(b'"feasible":1', b'"feasible":2'))
        for seq, at_ms, subject, payload in ledger.entries
    ]
    assert forged != ledger.entries
    assert redecide(forged).differing == [2]


@pytest.mark.parametrize("policy", ["nonsense/1", "fgd/999"])
def test_a_policy_this_build_lacks_is_counted(policy: str) -> None:
    ledger = ready()
    log = [
        Entry(seq, at_ms, subject, payload.replace(b"fgd/1", policy.encode()))
        for seq, at_ms, subject, payload in ledger.entries
    ]
    assert redecide(log).unknown == 1


def test_stages_this_build_lacks_are_no_failure() -> None:
    ledger = ready()
    chosen = {"order": "newer", "score": "best-fit", "backfill": "none", "preempt": 0, "sweep_every": 0}
    fields = {"request": 1, "name": "composed", "version": 1, "chosen": chosen}
    (judged,) = stamp(ledger.state, ledger.state.clock_ms, [("ev.decide.policy_judged", PolicyJudged, fields)])
    ledger.put(judged.subject, judged.event)
    (admitted,) = stamp(ledger.state, ledger.state.clock_ms, [("ev.decide.admitted", Admitted, {"upto": 1})])
    ledger.put(admitted.subject, admitted.event)
    assert redecide(ledger.entries).unknown == 1
