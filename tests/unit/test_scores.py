"""Scores, each held against a straight rendering of its definition."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from eventsched.events import PolicySet, RunAssigned
from eventsched.projections.cluster import demand
from eventsched.projections.cluster.digest import decode_state, digest, encode_state
from eventsched.projections.cluster.state import ClusterState, PolicyChoice
from eventsched.projections.scheduling.fgd import BUCKET, fgd_points, kinds_of
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import Need, estimate_of
from eventsched.projections.scheduling.policies import score_of, written_out
from eventsched.projections.scheduling.scores import SCORES
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger

GIB = 1 << 30


def _spec(cpus: int = 1, memory: int = 0, gpus: int = 0, millis: int = 0, model: str = "", **fields: object) -> JobSpec:
    asked = Resources(cpu_millis=cpus * 1000, memory_bytes=memory, gpus=gpus, gpu_millis=millis, gpu_model=model)
    return JobSpec(driver="fake", resources=asked, **fields)  # type: ignore[arg-type]


def _cluster(policy: str, **params: int | str) -> Ledger:
    ledger = Ledger()
    ledger.lead()
    ledger.put("ev.admin.policy_set", PolicySet(name=policy, params=params))
    ledger.settle()
    assert not ledger.state.anomalies, ledger.state.recent_anomalies
    return ledger


def _assigned(ledger: Ledger) -> RunAssigned:
    (one,) = [one.event for one in ledger.round() if isinstance(one.event, RunAssigned)]
    return one


# ---- what is typical --------------------------------------------------------------------------


def test_demand_is_counted_halved_and_adopted_at_counts_of_jobs() -> None:
    state = ClusterState()
    kinds = [_spec(gpus=1), _spec(cpus=4, millis=500, model="A100|T4"), _spec(cpus=2, gpus=8)]
    demand.count(state, _spec())
    assert not state.demand, "a job without GPUs says nothing about them"
    for index in range(demand.ADOPT_FIRST - 1):
        demand.count(state, kinds[index % 2])
    assert not state.typical
    demand.count(state, kinds[0])
    assert state.typical == {"": 16, "1000:1:0:": 9, "4000:0:500:a100|t4": 7}
    adopted = state.typical
    for _ in range(15):
        demand.count(state, kinds[1])
    assert state.typical is adopted, "holds still until the count has doubled"
    demand.count(state, kinds[1])
    assert list(state.typical) == ["", "4000:0:500:a100|t4", "1000:1:0:"]
    for _ in range(40):
        demand.count(state, _spec(gpus=1, array=1_000))
    assert state.demand[""] < demand.HALVE_AT + 1_000
    assert state.demand[""] == sum(number for kind, number in state.demand.items() if kind)
    assert list(state.typical) == ["", "1000:1:0:"], "the frequent kinds that make up 95 %"
    assert kinds_of({"": 1, "4000:0:500:a100|t4": 7}) == [(4000, 0, 500, ("a100", "t4"), 7)]


def test_what_is_typical_is_part_of_a_snapshot() -> None:
    ledger = _cluster("fgd")
    for index in range(20):
        ledger.submit(f"j{index}", _spec(millis=100))
    ledger.settle()
    assert ledger.state.typical
    assert digest(decode_state(encode_state(ledger.state))) == digest(ledger.state)


# ---- fragmentation ----------------------------------------------------------------------------


def _fragments(levels: list[int], cpu: int, model: str, kinds: list[tuple[int, int, int, tuple[str, ...], int]]) -> int:
    """As published, times the number of typical jobs: idle parts that each kind could not use."""
    total = 0
    for cpu_asked, gpus, millis, models, number in kinds:
        each = millis or WHOLE
        fits = cpu >= cpu_asked and (not models or model in models)
        fits = fits and sum(level >= each for level in levels) >= (gpus or 1)
        total += number * (sum(level for level in levels if level < each) if fits else sum(levels))
    return total


def test_fgd_grows_fragmentation_as_published() -> None:
    dice = random.Random(5)
    typical = {
        "": 99,
        "2000:0:250:": 30,
        "8000:1:0:": 40,
        "4000:0:500:a100|t4": 9,
        "9000:0:810:h100": 7,
        "64000:8:0:": 13,
    }
    kinds = [tuple(one) for one in kinds_of(typical)]
    number = sum(kind[-1] for kind in kinds)
    for _ in range(60):
        ledger = Ledger()
        model, count = dice.choice(("A100", "H100", "T4")), dice.choice((1, 2, 4, 8))
        ledger.join("n0", cpus=96, gpus=(model,) * count)
        fleet = Fleet(ledger.state)
        fleet.typical = typical
        levels = [dice.choice((0, 1000, 1000, 460, 250, 750, 90)) for _ in range(count)]
        cpu = dice.randrange(1_000, 96_000)
        fleet._set_levels(0, levels)
        fleet.cpu_free[0] = cpu
        before = _fragments(levels, cpu, model.lower(), kinds)  # type: ignore[arg-type]
        asked = dice.choice(((1000, 0, 0), (4000, 0, 250), (4000, 0, 90), (8000, 1, 0), (8000, 2, 0)))
        need = Need("fake", asked[0], 0, asked[1], asked[2], ())
        candidates = []
        for index, level in enumerate(levels):
            if need.gpu_millis and level >= need.gpu_millis:
                candidates.append([*levels[:index], level - need.gpu_millis, *levels[index + 1 :]])
        if need.gpus and levels.count(WHOLE) >= need.gpus:
            left, after = need.gpus, []
            for level in levels:
                after.append(0 if level == WHOLE and left else level)
                left -= level == WHOLE and left > 0
            candidates.append(after)
        if not need.gpus and not need.gpu_millis:
            candidates.append(levels)
        if not candidates or cpu < need.cpu_millis:
            continue
        growth = min(
            _fragments(after, cpu - need.cpu_millis, model.lower(), kinds) - before  # type: ignore[arg-type]
            for after in candidates
        )
        (points,) = fgd_points(fleet, need, np.array([0], dtype=np.int64)).tolist()
        assert points == -(growth // (number * BUCKET)), (levels, cpu, model, need)


def test_fgd_without_anything_typical_takes_the_least_left_over() -> None:
    ledger = _cluster("fgd")
    ledger.join("n1", cpus=8)
    ledger.join("n2", cpus=2)
    ledger.submit("j", _spec())
    one = _assigned(ledger)
    assert (ledger.job("j").node, one.score, one.feasible) == ("n2", 0, 2)


# ---- money ------------------------------------------------------------------------------------


def test_the_cost_aware_score_ranks_as_its_formula_in_floats() -> None:
    """0.2 cost + 0.3 priority + 0.2 SLA + 0.2 reschedule + 0.1 resource, computed from scratch."""
    dice = random.Random(11)
    for _ in range(40):
        ledger = _cluster("cost-aware")
        nodes = {}
        for index in range(12):
            cpus, memory, gpus = dice.choice((8, 16, 64)), dice.choice((32, 128, 256)), dice.choice((0, 1, 2, 8))
            price, spot = dice.randrange(10, 500), dice.random() < 0.5
            nodes[f"n{index:02}"] = [cpus, memory, gpus, price, spot, cpus, memory, gpus]
            ledger.join(
                f"n{index:02}",
                cpus=cpus,
                memory=memory * GIB,
                gpus=("A100",) * gpus,
                spot=spot,
                price_micros_per_h=price * 10_000 * 60,
            )
        ledger.settle()
        for number in range(10):
            cpus, memory, gpus = dice.randrange(1, 9), dice.randrange(1, 33), dice.choice((0, 0, 1))
            priority, sla = dice.randrange(1, 11), dice.choice(("batch", "latency_sensitive"))
            cap = dice.choice((None, 2.5, 4.0))
            scores = {}
            for name, (c, m, g, price, spot, c_all, m_all, g_all) in nodes.items():
                if c >= cpus and m >= memory and g >= gpus and (cap is None or price / 100 <= cap):
                    fit = {("latency_sensitive", True): -1.0, ("batch", True): 0.5}.get((sla, spot), 0.0)  # type: ignore[arg-type]
                    resource = (c + m + g) / (c_all + m_all + g_all)
                    scores[name] = 0.2 * (1 - price / 100 / 5) + 0.3 * priority / 10 + 0.2 * fit + 0.1 * resource
            spec = _spec(
                cpus,
                memory * GIB,
                gpus,
                priority=priority,
                sla=sla,
                max_price_micros_per_h=None if cap is None else int(cap * 60_000_000),
            )
            ledger.submit(f"j{number}", spec)
            ledger.settle()
            if not scores:
                assert ledger.job(f"j{number}").state == "pending"
                continue
            best = max(scores, key=lambda name: (round(scores[name], 11), [-ord(letter) for letter in name]))
            assert ledger.job(f"j{number}").node == best, scores
            nodes[best][0] -= cpus
            nodes[best][1] -= memory
            nodes[best][2] -= gpus


def test_the_cost_aware_score_shows_its_terms_in_millionths() -> None:
    ledger = _cluster("cost-aware")
    ledger.join("n1", cpus=4, memory=8 << 30, price_micros_per_h=60_000_000)
    ledger.join("n2", cpus=4, memory=8 << 30, price_micros_per_h=120_000_000, spot=True)
    ledger.settle()
    ledger.submit("j", _spec(priority=5))
    one = _assigned(ledger)
    terms = {"cost": 120_000, "priority": 150_000, "sla": 100_000, "reschedule": 0, "resource": 100_000}
    assert (ledger.job("j").node, one.terms, one.score) == ("n2", terms, 470_000)
    assert (one.runner_up, one.runner_up_score) == ("n1", 160_000 + 150_000 + 100_000)


@pytest.mark.parametrize(("estimate_ms", "node"), [(60_000, "spot"), (48 * 3_600_000, "stays")])
def test_expected_cost_weighs_the_price_against_the_work_that_may_be_lost(estimate_ms: int, node: str) -> None:
    ledger = _cluster("best-fit", score="expected-cost")
    ledger.join("spot", spot=True, price_micros_per_h=800_000, hazard_ppm_per_h=100_000)
    ledger.join("stays", price_micros_per_h=1_000_000)
    ledger.settle()
    ledger.submit("j", _spec(estimate_ms=estimate_ms))
    _assigned(ledger)
    assert ledger.job("j").node == node


def test_extreme_prices_and_hazards_overflow_nothing() -> None:
    ledger = _cluster("best-fit", score="expected-cost")
    most = 2**53
    ledger.join("n1", spot=True, price_micros_per_h=most, hazard_ppm_per_h=most)
    ledger.join("n2", spot=True, price_micros_per_h=2**33, hazard_ppm_per_h=10)
    ledger.settle()
    ledger.submit("j", _spec(estimate_ms=3_650 * 86_400_000, cpus=1))
    assert _assigned(ledger).score < 0
    assert ledger.job("j").node == "n2"


def test_estimates_count_in_steps_so_that_classes_are_few() -> None:
    seconds = [estimate_of(JobSpec(estimate_ms=1_000 * one)) for one in range(1, 5_000)]
    assert all(Fraction(one, index) > Fraction(7, 8) for index, one in enumerate(seconds, 1))
    assert len(dict.fromkeys(seconds)) < 100
    assert estimate_of(JobSpec()) == 3_584, "an hour, when nobody says"
    assert estimate_of(JobSpec(max_runtime_ms=8_000)) == 8


# ---- sums and packing -------------------------------------------------------------------------


def test_a_sum_of_scores_and_its_terms() -> None:
    ledger = _cluster("best-fit", score="best-fit:1,spread:3")
    ledger.join("n1", cpus=2)
    ledger.join("n2", cpus=8)
    ledger.settle()
    ledger.submit("j", _spec())
    one = _assigned(ledger)
    assert ledger.job("j").node == "n2"
    assert one.score == sum(one.terms.values())
    assert one.terms["spread"] == -3 * one.terms["best-fit"]


def test_packing_fills_what_is_begun() -> None:
    ledger = _cluster("packing")
    ledger.join("a-empty", cpus=64, gpus=("T4",) * 4)
    ledger.join("b-shared", cpus=64, gpus=("T4",) * 4)
    ledger.join("c-none", cpus=64)
    ledger.settle()
    ledger.submit("first", _spec(millis=300, node_labels={}, model="T4"))
    ledger.settle()
    begun = ledger.job("first").node
    for name, spec in (("share", _spec(millis=700)), ("whole", _spec(gpus=2)), ("cpu", _spec())):
        ledger.submit(name, spec)
    ledger.settle()
    assert [ledger.job(name).node for name in ("share", "whole", "cpu")] == [begun, begun, "c-none"]
    assert ledger.run(ledger.job("share").run).gpus == ledger.run(ledger.job("first").run).gpus


def test_a_composition_written_as_one_text() -> None:
    assert written_out(PolicyChoice("fgd")) == PolicyChoice("fgd")
    written = written_out(PolicyChoice("order=drf,score=fgd:3,spread:1,seed=7"))
    assert written.params == {"order": "drf", "score": "fgd:3,spread:1", "seed": 7}
    for text, kind in (("fgd:x", ValueError), ("fgd:0", ValueError), ("fgd,fgd", ValueError), ("nix:1", KeyError)):
        with pytest.raises(kind):
            score_of(text)
    assert score_of("fgd:3,random:1").points is not None, "a sum with a drawn part is drawn each time"
    assert score_of("fgd") is SCORES["fgd"]
