"""Policies: named, versioned compositions of the pipeline's stages.

A policy's name and version stand in every round it decided. Whatever changes its choices, the
tie rule included, is a new version. To add one, add a line to `POLICIES`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from eventsched.projections.cluster.state import PolicyChoice
from eventsched.projections.scheduling import order, quota, scores


@dataclass(frozen=True, slots=True)
class Policy:
    """One composition. `ties` says in words what decides between equal scores."""

    name: str
    version: int
    summary: str
    order: order.Order
    quota: quota.Quota
    score: scores.Score
    ties: str = "smallest node id"

    @property
    def label(self) -> str:
        """`name/version`, as rounds carry it."""
        return f"{self.name}/{self.version}"


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(
            "best-fit",
            1,
            "priority, then submission; the node with the least left over",
            order.by_priority,
            quota.unlimited,
            scores.best_fit,
        ),
        Policy(
            "first-fit",
            1,
            "priority, then submission; the first node that fits",
            order.by_priority,
            quota.unlimited,
            scores.first_fit,
        ),
    )
}


def policy_of(choice: PolicyChoice) -> Policy:
    """The policy a state has adopted; KeyError when this build does not have that version."""
    policy = POLICIES[choice.name]
    if policy.version != choice.version:
        raise KeyError(f"{choice.name}/{choice.version}")
    return policy


def refuse(choice: PolicyChoice) -> str:
    """Why a requested policy cannot be adopted; "" when it can."""
    if choice.name not in POLICIES:
        return f"no policy {choice.name[:64]!r}; known: {', '.join(sorted(POLICIES))}"
    if choice.params:
        return f"policy {choice.name} takes no parameters"
    return ""


def params_hash(choice: PolicyChoice) -> str:
    """A short hash of a policy's parameters; "" when it has none."""
    if not choice.params:
        return ""
    return hashlib.blake2b(msgspec.json.encode(choice.params, order="deterministic"), digest_size=4).hexdigest()
