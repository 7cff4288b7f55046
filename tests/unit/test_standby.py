"""The planner a standby keeps for questions answers as one made for the moment would."""

from __future__ import annotations

import pytest

from eventsched.errors import EventschedError
from eventsched.events import AbortRequested, HoldRequested, PolicySet, ReleaseRequested
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState, PolicyChoice
from eventsched.projections.leader.standby import IDLE_S, StandbyPlanner
from eventsched.projections.queries import Queries
from eventsched.projections.replica import Replica
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.views.explaining import explain
from eventsched.query import GetRequest
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger, ready

LARGE = JobSpec(driver="fake", resources=Resources(cpu_millis=3_000))


class Standby:
    """Folds what the ledger records, as a scheduler that does not lead."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.state = ClusterState()
        self.kept = StandbyPlanner()
        self._replica = Replica(self.state, lambda recorded: evolve(self.state, recorded))

    def follow(self, now_s: float = 0.0) -> None:
        self._replica.fold_entries(self.ledger.entries[self.state.seq :])
        self.kept.follow(self.state, now_s)

    def check(self) -> None:
        """Every job that waits is explained as by a planner made now."""
        self.follow()
        state, planner = self.state, self.kept.planner(self.state, 0.0)
        for job in state.jobs.values():
            view = Queries(state, None).get(GetRequest(job.job_id), state.clock_ms)
            kept, fresh = (explain(state, one, view, state.clock_ms) for one in (planner, Planner(state)))
            assert kept == fresh


def test_one_that_is_kept_explains_as_one_made_now() -> None:
    ledger = ready()
    standby = Standby(ledger)
    for index in range(6):
        ledger.submit(f"j{index}", LARGE)
        standby.check()
    ledger.submit("again", JobSpec(driver="fake", priority=9, retries=3, resources=Resources(cpu_millis=1_000)))
    ledger.settle()
    standby.check()
    ledger.ended(ledger.job("again").run, exit_code=1)
    standby.check()
    ledger.now_ms += 60_000  # its backoff passes without a round
    ledger.ask("j3", "hold_requested", HoldRequested())
    standby.check()
    ledger.ask("j3", "release_requested", ReleaseRequested())
    ledger.ask("j4", "abort_requested", AbortRequested())
    ledger.join("n2", cpus=8)
    standby.check()
    ledger.put("ev.admin.policy_set", PolicySet(name="best-fit", params={"order": "fifo"}))
    ledger.settle()
    standby.check()


def test_it_is_made_once_and_given_up_when_nobody_asks() -> None:
    ledger = ready()
    standby = Standby(ledger)
    standby.follow()
    assert not standby.state.changes.nodes, "nobody plans: nothing piles up"
    made = standby.kept.planner(standby.state, 0.0)
    ledger.submit("j", LARGE)
    standby.follow(IDLE_S / 2)
    assert standby.kept.planner(standby.state, IDLE_S / 2) is made
    standby.follow(IDLE_S)
    assert standby.kept.planner(standby.state, IDLE_S) is made
    standby.follow(2 * IDLE_S + 1)
    another = standby.kept.planner(standby.state, 2 * IDLE_S + 1)
    assert another is not made
    standby.kept.drop()
    assert standby.kept.planner(standby.state, 2 * IDLE_S + 1) is not another


def test_the_order_has_a_name_though_the_policy_was_given_none() -> None:
    ledger = ready()
    ledger.submit("j", LARGE)
    ledger.submit("k", LARGE)
    ledger.settle()
    view = Queries(ledger.state, None).get(GetRequest("k"), ledger.state.clock_ms)
    place = explain(ledger.state, Planner(ledger.state), view, ledger.state.clock_ms).place
    assert place is not None
    assert place.order == "priority"


def test_a_policy_this_build_lacks_is_no_end_of_a_standby() -> None:
    ledger = ready()
    standby = Standby(ledger)
    standby.follow()
    standby.kept.planner(standby.state, 0.0)
    standby.state.policy = PolicyChoice("plugged-in", 1, {})
    standby.kept.follow(standby.state, 1.0)
    with pytest.raises(EventschedError, match="plugged-in"):
        standby.kept.planner(standby.state, 1.0)
