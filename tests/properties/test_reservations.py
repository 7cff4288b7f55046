"""Crowded GPU clusters under backfill with preemption, and tenants that lend and borrow: whatever comes
in whatever order, a round is decided, and a kept planner decides as a fresh one (`Ledger.decide`)."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from eventsched.events import NodeCordoned, NodeUncordoned, PolicySet, TenantSet
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import FAKE, Ledger

HOUR_MS = 3_600_000
TENANTS = ("a", "b", "c")


def _policy(chance: random.Random) -> PolicySet:
    params: dict[str, int | str] = {
        "order": chance.choice(("fifo", "priority", "drf")),
        "score": chance.choice(("best-fit", "fgd")),
        "backfill": chance.choice(("conservative", "easy", "none")),
        "preempt": chance.choice((0, 1, 1)),
    }
    return PolicySet(name="composed", params=params)


def _job(chance: random.Random) -> JobSpec:
    shares = chance.random() < 0.3
    resources = Resources(
        cpu_millis=chance.choice((1000, 2000)),
        gpus=0 if shares else chance.randint(0, 2),
        gpu_millis=chance.choice((300, 500)) if shares else 0,
    )
    return replace(
        FAKE,
        resources=resources,
        priority=chance.choice((0, 0, 5, 9)),
        estimate_ms=chance.choice((0, 1, 2, 5)) * HOUR_MS,
        sla=chance.choice(("best_effort", "batch", "latency_sensitive")),
        node_labels=chance.choice(({}, {}, {}, {"zone": "n0"})),
        max_lost=50,
    )


def _limits(chance: random.Random) -> TenantSet:
    cpus = chance.choice((0, 2000, 8000))
    return TenantSet(tenant=chance.choice(TENANTS), cpu_millis=cpus, cohort=chance.choice(("", "c", "c")))


def _runs_end(ledger: Ledger, chance: random.Random) -> None:
    for run in list(ledger.state.runs.values()):
        if run.stop_reason and chance.random() < 0.7:
            ledger.ended(run.seq, "stopped", None)
        elif chance.random() < 0.15:
            ledger.ended(run.seq)


@pytest.mark.parametrize("seed", range(24))
def test_a_round_is_always_decided_and_always_alike(seed: int) -> None:
    chance = random.Random(seed)
    ledger = Ledger()
    ledger.lead()
    nodes = [f"n{index}" for index in range(chance.randint(1, 3))]
    for name in nodes:
        ledger.join(name, cpus=chance.choice((4, 8)), gpus=("A",) * chance.randint(1, 3), labels={"zone": name})
    ledger.put("ev.admin.policy_set", _policy(chance))
    ledger.settle()
    for step in range(12):
        for index in range(chance.randint(1, 4)):
            ledger.submit(f"j{step}-{index}", _job(chance), tenant=chance.choice(TENANTS))
        if chance.random() < 0.3:
            ledger.put("ev.admin.tenant_set", _limits(chance))
        if chance.random() < 0.3:
            kind, verb = chance.choice(((NodeCordoned, "node_cordoned"), (NodeUncordoned, "node_uncordoned")))
            ledger.put(f"ev.admin.{verb}", kind(node=chance.choice(nodes)))
        if chance.random() < 0.1:
            ledger.join(nodes[0], cpus=64, gpus=("A",) * chance.choice((0, 4)), labels={"zone": nodes[0]})
        ledger.now_ms += chance.choice((1000, HOUR_MS // 2, HOUR_MS))
        _runs_end(ledger, chance)
        for _ in range(3):
            ledger.round()
    assert ledger.state.rounds > 12
