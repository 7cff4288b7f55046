"""evolve: the only thing that changes a state.

Rules of this module and of those it calls (`jobs`, `runs`, `nodes`, `rounds`, `finishing`, …):
- Total: any recorded event is folded without raising; what contradicts the state is an anomaly.
- Deterministic: same log, same state, byte for byte. No clock but `state.clock_ms`, no floats,
  no sets, no randomness, no environment; every choice follows sequence order.
- Every released behaviour stays, behind `state.fold_version`.
- Cheap: some microseconds an event, nothing that grows with the cluster or with history.
Assertions state our own invariants; bad input never reaches them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventsched import events as e
from eventsched import subjects
from eventsched.projections.cluster import jobs, money, nodes, runs, tenants
from eventsched.projections.cluster.anomalies import anomaly
from eventsched.projections.cluster.rounds import in_round, of_current_epoch
from eventsched.projections.cluster.state import FOLD_VERSION, ClusterState, PolicyChoice
from eventsched.recorded import Recorded, Unreadable
from eventsched.spec import JobSpec


def evolve(state: ClusterState, recorded: Recorded) -> None:
    """Fold one recorded event into `state`."""
    state.seq = recorded.seq
    if state.clock_mode == "wall" and recorded.at_ms > state.clock_ms:
        state.clock_ms = recorded.at_ms
    event = recorded.event
    handler = _HANDLERS.get(type(event))
    if handler is not None and (state.cluster_id or type(event) is e.ClusterCreated):
        handler(state, recorded, event)
    else:
        anomaly(state, recorded, "not_created")


def _cluster_created(state: ClusterState, recorded: Recorded, event: e.ClusterCreated) -> None:
    if state.cluster_id:
        anomaly(state, recorded, "created_twice", event.cluster_id)
        return
    state.cluster_id = event.cluster_id or "unnamed"
    state.generation = event.generation
    state.clock_mode = event.clock_mode
    state.job_id_scope = event.job_id_scope
    state.grants_only = event.quota_default == "nothing"
    state.fold_version = event.fold_version
    state.finished_keep = max(0, event.finished_keep)
    state.digest_every = max(1, event.digest_every)
    state.suspect_after_ms = event.suspect_after_ms
    state.lost_after_ms = event.lost_after_ms
    if event.clock_mode == "manual":
        state.clock_ms = 0
    if event.fold_version > FOLD_VERSION:
        state.upgrade_needed = recorded.seq


def _clock_set(state: ClusterState, recorded: Recorded, event: e.ClockSet) -> None:
    if state.clock_mode != "manual":
        anomaly(state, recorded, "clock_not_manual")
    elif event.now_ms < state.clock_ms:
        anomaly(state, recorded, "clock_back", f"{event.now_ms} < {state.clock_ms}")
    else:
        state.clock_ms = event.now_ms
        state.tick = recorded.seq


def _ticked(state: ClusterState, recorded: Recorded, event: e.Ticked) -> None:
    if in_round(state, recorded, event) and event.clock == state.tick:
        state.tick = 0


def _leader_claimed(state: ClusterState, recorded: Recorded, event: e.LeaderClaimed) -> None:
    state.epoch = recorded.seq
    state.leader_junk.clear()
    state.leader = event.leader
    state.leader_nonce = event.nonce


def _policy_set(state: ClusterState, recorded: Recorded, event: e.PolicySet) -> None:
    state.policy_requests[recorded.seq] = PolicyChoice(event.name, 0, dict(event.params))


def _policy_judged(state: ClusterState, recorded: Recorded, event: e.PolicyJudged) -> None:
    if not in_round(state, recorded, event):
        return
    state.policy_requests.pop(event.request, None)
    if event.refused:
        anomaly(state, recorded, "policy_refused", event.refused)
    else:
        state.policy = PolicyChoice(event.name, event.version, dict(event.chosen))


def _digest_recorded(state: ClusterState, recorded: Recorded, event: e.DigestRecorded) -> None:
    of_current_epoch(state, recorded, event)


def _fold_raised(state: ClusterState, recorded: Recorded, event: e.FoldRaised) -> None:
    if not of_current_epoch(state, recorded, event):
        return
    state.fold_version = event.fold_version
    if event.fold_version > FOLD_VERSION:
        state.upgrade_needed = recorded.seq


def _unreadable(state: ClusterState, recorded: Recorded, event: Unreadable) -> None:
    if recorded.subject == subjects.LEADER:
        state.leader_junk.clear()
        state.leader_junk[recorded.seq] = None
    tokens = recorded.subject.split(".")
    if event.code == "unknown_event" and event.epoch == state.epoch:
        state.upgrade_needed = recorded.seq
    if tokens[1:2] == ["job"] and tokens[4:] == ["submitted"] and event.code not in ("bad_id", "bad_subject"):
        jobs.submitted_unreadable(state, recorded, event.code, event.field)
    else:
        anomaly(state, recorded, event.code, event.field)


_HANDLERS: dict[type, Callable[[ClusterState, Recorded, Any], None]] = {
    JobSpec: jobs.submitted,
    e.RunStarted: runs.run_started,
    e.RunEnded: runs.run_ended,
    e.RunAssigned: runs.run_assigned,
    e.RunStarting: runs.run_starting,
    e.Admitted: jobs.admitted,
    e.Concluded: jobs.concluded,
    e.StopOrdered: runs.stop_ordered,
    e.FinishOrdered: runs.finish_ordered,
    e.AbortRequested: jobs.abort_requested,
    e.HoldRequested: jobs.hold_requested,
    e.ReleaseRequested: jobs.release_requested,
    e.RequeueRequested: jobs.requeue_requested,
    e.CompleteRequested: jobs.complete_requested,
    e.Keyed: jobs.keyed,
    e.NodeJoined: nodes.joined,
    e.NodeLeaving: nodes.leaving,
    e.NodeLeft: nodes.left,
    e.NodeSuspected: nodes.suspected,
    e.NodeRecovered: nodes.recovered,
    e.NodeLost: nodes.lost,
    e.SessionOpened: nodes.session_opened,
    e.SessionRefused: nodes.session_refused,
    e.NodeCordoned: nodes.cordoned,
    e.NodeUncordoned: nodes.uncordoned,
    e.NodeDrained: nodes.drained,
    e.TimersSet: nodes.timers_set,
    e.ClusterCreated: _cluster_created,
    e.ClockSet: _clock_set,
    e.Ticked: _ticked,
    e.PolicySet: _policy_set,
    e.PolicyJudged: _policy_judged,
    e.TenantSet: tenants.tenant_set,
    e.PriceSet: money.price_set,
    e.LeaderClaimed: _leader_claimed,
    e.DigestRecorded: _digest_recorded,
    e.FoldRaised: _fold_raised,
    Unreadable: _unreadable,
}
