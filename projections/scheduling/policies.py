"""Policies: named, versioned compositions of the pipeline's stages.

A policy's name, version and parameters stand in every round it decided. Whatever changes its
choices, a tie rule included, is a new version. To add one, add a line to `POLICIES`, or offer a
`Policy` by the entry point group `eventsched.policies`; every scheduler of a cluster needs it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points

import msgspec

from eventsched.projections.cluster.state import ClusterState, PolicyChoice
from eventsched.projections.scheduling.backfill import BACKFILLS
from eventsched.projections.scheduling.needs import PLAIN, Looks
from eventsched.projections.scheduling.order import ORDERS, Order
from eventsched.projections.scheduling.scores import SCORES, Score, weighted

ENTRY_POINTS = "eventsched.policies"
INTEGERS: dict[str, tuple[int, int, int]] = {
    "aging_ms": (60_000, 1, 2**40),
    "seed": (0, 0, 2**53),
    "sweep_every": (0, 0, 2**31),
    "reservations": (50, 1, 10_000),
    "backfill_looks": (1_000, 1, 1_000_000),
    "preempt": (0, 0, 1),
    "preempt_max": (10, 1, 10_000),
    "strict_sla": (0, 0, 1),
    "on_demand_after": (1, 0, 1_000),
}
"""Parameters that are numbers: default, smallest, largest.

strict_sla: 1 = latency_sensitive jobs never go on spot nodes. on_demand_after: jobs evicted so often
go on nodes that are not spot, if one has room; 0 = never mind.
"""
WEIGHT_MAX, TERMS_MAX = 1_000, 8


@dataclass(frozen=True, slots=True)
class Policy:
    """One composition: an order, a score, and which parameters it takes.

    `order`, `score` and `backfill` name stages; each may be chosen by a parameter of that name. `ties`
    says in words what decides between equal scores.
    """

    name: str
    version: int
    summary: str
    order: str = "priority"
    score: str = "best-fit"
    params: tuple[str, ...] = ()
    backfill: str = "none"
    ties: str = "smallest node id"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A policy with its parameters, ready to decide."""

    label: str
    order: Order
    score: Score
    aging_ms: int
    seed: int
    sweep_every: int = 0
    reservations: int = 0
    backfill_looks: int = 0
    preempt: bool = False
    preempt_max: int = 0
    looks: Looks = PLAIN
    on_demand_after: int = 0


COMPOSED = "composed"
"""The policy that is nothing but the stages written out."""
SCORE_CHARS_MAX = 200
DIGITS_MAX = 16
"""A number of more digits is out of any range."""
_LEAST = "least left over, then smallest node id"
_BUILT_IN = (
    Policy("best-fit", 1, "priority, then submission; the node with the least left over"),
    Policy("first-fit", 1, "priority, then submission; the first node that fits", score="first-fit"),
    Policy("spread", 1, "priority, then submission; the node with the most left over", score="spread"),
    Policy("dot-product", 1, "priority, then submission; Tetris turned around", score="dot-product"),
    Policy("packing", 1, "priority, then submission; fill GPUs and nodes that are begun", score="packing"),
    Policy("fgd", 1, "priority, then submission; least loss of usable GPUs", score="fgd", ties=_LEAST),
    Policy("cost-aware", 1, "priority; the weighted score of cost, SLA and resources", score="cost-aware"),
    Policy("random", 1, "priority, then submission; any node that fits", score="random", params=("seed",)),
    Policy("fifo", 1, "order of submission, whatever the priority", order="fifo"),
    Policy("quota-aging", 1, "priority + waited // aging_ms, then submitted, then id", "aging", params=("aging_ms",)),
    Policy("drf", 1, "the tenant with the smallest dominant share by weight first", order="drf"),
    Policy("srsf", 1, "the least expected runtime x GPUs first", order="srsf"),
    Policy("edf", 1, "the earliest deadline first", order="edf"),
    Policy("backfill", 1, "order of submission; none may delay the first that waits", "fifo", backfill="easy"),
    Policy(
        "backfill-conservative",
        1,
        "order of submission; none may delay any before it",
        "fifo",
        backfill="conservative",
    ),
    Policy(COMPOSED, 1, "stages written out, as in order=drf,score=spread"),
)


def _found() -> dict[str, Policy]:
    """The built-in policies, and those other packages offer; a name is never taken over."""
    found = {policy.name: policy for policy in _BUILT_IN}
    for point in entry_points(group=ENTRY_POINTS):
        policy = point.load()
        if isinstance(policy, Policy):
            found.setdefault(policy.name, policy)
    return found


POLICIES = _found()


def choose(choice: PolicyChoice) -> Chosen:
    """The policy a state has adopted; KeyError when this build does not have that version."""
    policy = POLICIES[choice.name]
    if policy.version != choice.version:
        raise KeyError(f"{choice.name}/{choice.version}")
    params = complete(policy, choice.params)
    numbers = {name: int(params.get(name, default)) for name, (default, _, _) in INTEGERS.items()}
    few = BACKFILLS[str(params["backfill"])].reservations
    score = score_of(str(params["score"]))
    return Chosen(
        f"{policy.name}/{policy.version}",
        ORDERS[str(params["order"])],
        score,
        numbers["aging_ms"],
        numbers["seed"],
        numbers["sweep_every"],
        numbers["reservations"] if few < 0 else few,
        numbers["backfill_looks"],
        numbers["preempt"] > 0,
        numbers["preempt_max"],
        score.looks._replace(strict_sla=bool(params.get("strict_sla"))),
        int(params.get("on_demand_after", 0)),
    )


def is_known(choice: PolicyChoice) -> bool:
    """True when this build has that version of the policy, and all it is composed of."""
    try:
        choose(choice)
    except (KeyError, ValueError):
        return False
    return True


def looks_of(state: ClusterState) -> Looks:
    """What the policy of a state looks at in a job; nothing special, when this build does not have it."""
    return choose(state.policy).looks if is_known(state.policy) else PLAIN


def score_of(text: str) -> Score:
    """A score by name, or a weighted sum of several, as in `fgd:3,spread:1`; KeyError or ValueError if it is none."""
    if text in SCORES:
        return SCORES[text]
    parts: dict[str, tuple[Score, int]] = {}
    for term in text.split(","):
        name, _, weight = term.strip().partition(":")
        if name in parts:
            raise ValueError(f"{name} stands twice")
        if weight and not (weight.isascii() and weight.isdigit() and 1 <= int(weight) <= WEIGHT_MAX):
            raise ValueError(f"the weight of {name} is an integer from 1 to {WEIGHT_MAX}")
        parts[name] = SCORES[name], int(weight or 1)
    if len(parts) > TERMS_MAX:
        raise ValueError(f"at most {TERMS_MAX} terms")
    return weighted(parts)


def written_out(choice: PolicyChoice) -> PolicyChoice:
    """A composition written as one text, `order=drf,score=fgd:3,spread:1`, as a policy with parameters.

    A part without "=" belongs to the one before it. Any other choice is returned as it is.
    """
    if "=" not in choice.name:
        return choice
    parts: list[str] = []
    for part in choice.name.split(","):
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += "," + part
    params: dict[str, int | str] = {}
    for part in parts:
        name, _, value = (word.strip() for word in part.partition("="))
        is_number = value.isascii() and value.isdigit() and len(value) <= DIGITS_MAX
        params[name] = int(value) if is_number else value
    return PolicyChoice(COMPOSED, choice.version, params | choice.params)


def complete(policy: Policy, given: dict[str, int | str]) -> dict[str, int | str]:
    """All parameters of a policy, in order of name: as given, or their defaults."""
    defaults: dict[str, int | str] = {
        "order": policy.order,
        "score": policy.score,
        "backfill": policy.backfill,
        "preempt": 0,
        "sweep_every": 0,
    }
    defaults |= {name: INTEGERS[name][0] for name in _numbers(policy, {**defaults, **given})}
    return {name: given.get(name, default) for name, default in sorted(defaults.items())}


def _numbers(policy: Policy, params: dict[str, int | str]) -> list[str]:
    """The numbers that matter for a choice of stages."""
    wanted = dict.fromkeys(policy.params)
    if params["order"] == "aging":
        wanted["aging_ms"] = None
    score = str(params["score"])
    if "random" in score:
        wanted["seed"] = None
    if params["backfill"] != "none":
        wanted["backfill_looks"] = None
    if params["backfill"] == "conservative":
        wanted["reservations"] = None
    if params["preempt"]:
        wanted["preempt_max"] = None
    if "cost" in score:
        wanted["on_demand_after"] = None
    if "strict_sla" in params:
        wanted["strict_sla"] = None
    return list(wanted)


def refuse(choice: PolicyChoice) -> str:
    """Why a requested policy cannot be adopted; "" when it can."""
    policy = POLICIES.get(choice.name)
    if policy is None:
        return f"no policy {choice.name[:64]!r}; known: {', '.join(sorted(POLICIES))}"
    for name, stages in (("order", ORDERS), ("backfill", BACKFILLS)):
        value = choice.params.get(name)
        if value is not None and value not in stages:
            return f"no {name} {str(value)[:64]!r}; known: {', '.join(stages)}"
    score = choice.params.get("score")
    if score is not None:
        if len(str(score)) > SCORE_CHARS_MAX:
            return f"score: at most {SCORE_CHARS_MAX} characters"
        try:
            score_of(str(score))
        except KeyError as error:
            return f"no score {str(error.args[0])[:64]!r}; known: {', '.join(SCORES)}; sums are written fgd:3,spread:1"
        except ValueError as error:
            return f"score {str(score)[:64]!r}: {error}"
    known = complete(policy, choice.params)
    for name, value in choice.params.items():
        if name not in known:
            return f"policy {choice.name} takes no parameter {name[:64]!r}; it takes: {', '.join(known)}"
        if name in INTEGERS:
            _, least, most = INTEGERS[name]
            if not isinstance(value, int) or not least <= value <= most:
                return f"parameter {name} is an integer from {least} to {most}"
    return ""


def params_hash(choice: PolicyChoice) -> str:
    """A short hash of a policy's parameters; "" when it has none."""
    return _hash_of(tuple(choice.params.items())) if choice.params else ""


@lru_cache(64)
def _hash_of(params: tuple[tuple[str, int | str], ...]) -> str:
    encoded = msgspec.json.encode(dict(params), order="deterministic")
    return hashlib.blake2b(encoded, digest_size=4).hexdigest()
