"""The planner of a scheduler that does not lead: made for the first question that needs one, then kept in step.

Making one takes seconds where hundreds of thousands of jobs wait; following takes next to nothing. It
is given up when nobody has asked for a while, and when the scheduler comes to lead, with a planner of its own.
"""

from __future__ import annotations

from eventsched.errors import EventschedError
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.scheduling.policies import is_known

IDLE_S = 300.0


class StandbyPlanner:
    """At most one planner, in step with the state it was made for."""

    def __init__(self) -> None:
        self._planner: Planner | None = None
        self._asked_s = 0.0

    def planner(self, state: ClusterState, now_s: float) -> Planner:
        """A planner for this very state. Raises EventschedError when this build lacks its policy."""
        self._asked_s = now_s
        if not is_known(state.policy):
            lacks = f"this scheduler lacks the policy {state.policy.name}"
            raise EventschedError(lacks, "ask again: another may have it")
        if self._planner is None:
            self._planner = Planner(state)
            state.changes.forget_touched()
        else:
            self._planner.sync(state)
        self._planner.wake(state, state.clock_ms)
        return self._planner

    def follow(self, state: ClusterState, now_s: float) -> None:
        """The state has gone on."""
        if self._planner is not None and (now_s - self._asked_s > IDLE_S or not is_known(state.policy)):
            self._planner = None
        if self._planner is None:
            state.changes.forget_touched()
        else:
            self._planner.sync(state)

    def drop(self) -> None:
        """Another planner follows the state from now on."""
        self._planner = None
