"""What kinds of GPU jobs this cluster gets: the distribution that fragmentation is measured against.

Folded, so that every replica has the same at the same sequence. Accepted jobs are counted by kind;
now and then (at counts of jobs, never times) the frequent kinds are adopted as the typical ones, and
old counts lose half their weight. A policy only sees what was adopted, so its scores hold still in
between.
"""

from __future__ import annotations

from eventsched.projections.cluster.state import ClusterState
from eventsched.spec import JobSpec

ADOPT_FIRST, ADOPT_EVERY = 16, 2_048
"""Adopted after so many jobs, then each time the count doubles, later after so many more."""
HALVE_AT = 16_384
TYPICAL_PERCENT, TYPICAL_MAX = 95, 256
"""The most frequent kinds that make up so much of the count, but no more than so many kinds."""
ARRAY_WEIGHT_MAX = 1_000
TOTAL = ""
"""The key under which the sum of the counts stands."""


def kind_of(spec: JobSpec) -> str:
    """`cpu_millis:gpus:gpu_millis:models` of a job; "" when it asks for no GPU."""
    asked = spec.resources
    if not asked.gpus and not asked.gpu_millis:
        return TOTAL
    return f"{asked.cpu_millis}:{asked.gpus}:{asked.gpu_millis}:{asked.gpu_model.lower()[:100]}"


def count(state: ClusterState, spec: JobSpec) -> None:
    """One more accepted job."""
    kind = kind_of(spec)
    if not kind:
        return
    demand = state.demand
    weight = min(max(1, spec.array), ARRAY_WEIGHT_MAX)
    demand[kind] = demand.get(kind, 0) + weight
    total = demand[TOTAL] = demand.get(TOTAL, 0) + weight
    adopted = state.typical.get(TOTAL, 0)
    if total >= max(ADOPT_FIRST, min(2 * adopted, adopted + ADOPT_EVERY)):
        _adopt(state)


def _adopt(state: ClusterState) -> None:
    if state.demand[TOTAL] >= HALVE_AT:
        halved = {kind: number // 2 for kind, number in state.demand.items() if kind and number > 1}
        halved[TOTAL] = sum(halved.values())
        state.demand = halved
    demand = state.demand
    total = demand[TOTAL]
    covered, typical = 0, {TOTAL: total}
    for number, kind in sorted((-number, kind) for kind, number in demand.items() if kind):
        if covered * 100 >= total * TYPICAL_PERCENT or len(typical) > TYPICAL_MAX:
            break
        typical[kind] = -number
        covered -= number
    state.typical = typical
