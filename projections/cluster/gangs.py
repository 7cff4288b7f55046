"""Gangs: arrays whose members start together, and stand or fall together.

The leader assigns all waiting members in one round. What then happens to one happens to all: when
a member is put back, the others are stopped and go back as well, and the gang starts again when
the last of their runs is closed; when a member fails for good, the gang has failed. Retries,
losses and evictions are counted once a mishap, on the array. Members that had succeeded by then
are not run again.
"""

from __future__ import annotations

from eventsched.projections.cluster.arrays import live_members
from eventsched.projections.cluster.finishing import end_unreached, finish
from eventsched.projections.cluster.state import TERMINAL, ArrayState, ClusterState, Job, Run


def unit_of(state: ClusterState, job: Job) -> Job:
    """What stands or falls with a job: the array of a gang's member, else the job itself."""
    if job.member >= 0 and job.spec.gang:
        return state.jobs.get(job.parent_key, job)
    return job


def owe_stop(state: ClusterState, run: Run, reason: str) -> None:
    """The run must stop; the leader orders it, unless it has been told already."""
    if not run.stop_owed and not run.stop_reason:
        run.stop_owed = reason
        state.stops_owed[run.seq] = None


def attached(state: ClusterState, gang: Job, run: Run, round_: int) -> None:
    """A member has got a run; if another of its round did not, it must not go on alone."""
    array = _array(gang)
    if not array.open:
        gang.attempt += 1
        gang.not_before_ms = 0
    array.open += 1
    if array.void_round == round_:
        restart(state, gang)
        owe_stop(state, run, "gang")


def void(state: ClusterState, gang: Job, round_: int) -> None:
    """A member's assign came to nothing, as its node was gone: those of the same round are called back."""
    if gang.state in TERMINAL or gang.array is None:
        return
    gang.array.void_round = round_
    restart(state, gang)
    _closed(state, gang)


def is_doomed(gang: Job) -> bool:
    """True when a member has failed for good: the others only end."""
    return gang.array is not None and gang.array.fate is not None


def is_restarting(gang: Job) -> bool:
    """True while the runs of a gang that was disturbed are being stopped."""
    return gang.array is not None and gang.array.restarting


def detached(state: ClusterState, gang: Job, member: Job) -> None:
    """A member's run is closed, and the member settled: what that means for the others."""
    _array(gang).open -= 1
    if member.state == "pending":
        restart(state, gang)
    member_ended(state, gang, member)
    _closed(state, gang)


def member_ended(state: ClusterState, gang: Job, member: Job) -> None:
    """If the member ended without success, so does the gang."""
    if member.state in TERMINAL and member.state != "succeeded" and not gang.abort_seq:
        text = f"member {member.member} {member.state}" + (f": {member.reason}" if member.reason else "")
        end(state, gang, "failed", "gang_failed", text)


def restart(state: ClusterState, gang: Job) -> None:
    """All runs of the gang are to be stopped; what is stopped waits for the rest."""
    array = _array(gang)
    if gang.state in TERMINAL or array.restarting or array.fate is not None:
        return
    array.restarting = True
    _stop_all(state, gang, "gang")


def end(state: ClusterState, gang: Job, final: str, reason: str, detail: str) -> None:
    """The gang ends so: what waits at once, what runs when its run is closed."""
    array = _array(gang)
    if gang.state in TERMINAL or array.fate is not None:
        return
    array.fate = (final, reason, detail)
    _stop_all(state, gang, reason)
    for member in live_members(state, gang):
        if member.run not in state.runs:
            finish(state, member, *array.fate)
    if gang.state not in TERMINAL:
        end_unreached(state, gang, *array.fate)


def _array(gang: Job) -> ArrayState:
    assert gang.array is not None
    return gang.array


def _stop_all(state: ClusterState, gang: Job, reason: str) -> None:
    for member in live_members(state, gang):
        run = state.runs.get(member.run)
        if run is not None:
            owe_stop(state, run, reason)


def _closed(state: ClusterState, gang: Job) -> None:
    """With its last run closed a gang that was disturbed waits to start again."""
    array = _array(gang)
    if array.open or gang.state in TERMINAL:
        return
    if array.restarting:
        array.restarting = False
        gang.state = "pending"
    state.changes.jobs[gang.key] = None
