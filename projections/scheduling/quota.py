"""Quota: may this job's tenant have more now? None = yes, else the reason code.

The first policies set no quotas; the stage stands in the pipeline so that the ones that do
are one function each.
"""

from __future__ import annotations

from collections.abc import Callable

from eventsched.projections.cluster.state import ClusterState, Job

Quota = Callable[[ClusterState, Job], str | None]


def unlimited(state: ClusterState, job: Job) -> str | None:
    """Every tenant may have everything."""
    return None
