"""Policies as people see them."""

from __future__ import annotations

from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.scheduling.backfill import BACKFILLS
from eventsched.projections.scheduling.order import ORDERS
from eventsched.projections.scheduling.policies import POLICIES, complete
from eventsched.projections.scheduling.scores import SCORES
from eventsched.views import PolicyView


def policy_views(state: ClusterState) -> list[PolicyView]:
    """All policies of this build, by name."""
    found = []
    for name, policy in sorted(POLICIES.items()):
        current = name == state.policy.name
        params = complete(policy, state.policy.params if current else {})
        order, score = str(params["order"]), str(params["score"])
        stages = {"order": ORDERS[order].summary, "score": SCORES[score].summary}
        if params["backfill"] != "none":
            stages["backfill"] = BACKFILLS[str(params["backfill"])].summary
        found.append(
            PolicyView(
                name=name,
                version=policy.version,
                summary=policy.summary,
                ties=policy.ties,
                params=params,
                current=current,
                stages=stages,
            )
        )
    return found
