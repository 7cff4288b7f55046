"""Gangs in a decision: who waits, whether there is room for all at once."""

from __future__ import annotations

import numpy as np

from eventsched import codec
from eventsched.projections.cluster.arrays import is_unreached, member_key
from eventsched.projections.cluster.state import ArrayState, ClusterState, Job
from eventsched.projections.scheduling.diary import Ints
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Mask
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.trial import Trial
from eventsched.spec import JobSpec, Problem

ROUND_BYTES_MAX = 4 * 1024 * 1024
"""Of specs in one round; a gang starts in one round."""


def gang_problems(spec: JobSpec) -> list[Problem]:
    """Why a gang could never be started: its assigns, each with the spec, must fit into one round."""
    if not spec.gang:
        return []
    size = len(codec.encode(spec)) * spec.array
    if size <= ROUND_BYTES_MAX:
        return []
    text = f"{spec.array} members with a spec of this size need {size} bytes in one round, {ROUND_BYTES_MAX} fit"
    return [Problem("out_of_range", "array", f"{text}: put data into files or an image")]


def gang_is_waiting(gang: Job) -> bool:
    """True when none of its members runs and they are not about to end."""
    array = gang.array
    return array is not None and gang.state in ("pending", "running") and not array.open and array.fate is None


def gang_may_start(state: ClusterState, gang: Job) -> bool:
    """True when no member is held or about to be aborted by itself."""
    if gang.array is None:
        return True
    members = (state.jobs[member_key(gang, index)] for index in gang.array.live)
    return not any(member.held or member.abort_seq for member in members)


def members_to_start(gang: Job) -> int:
    """How many members have not ended: so many start together."""
    return gang.spec.array - (sum(gang.array.ended.values()) if gang.array is not None else 0)


def waiting_members(gang: Job) -> list[int]:
    """Their indexes, in order."""
    array = gang.array or ArrayState()
    unreached = (index for index in range(array.next, gang.spec.array) if is_unreached(array, index))
    return sorted([*array.live, *unreached])


def room(trial: Trial, need: Need, mask: Mask) -> Ints:
    """For each row how many runs of this class it could hold at most."""
    fleet = trial.fleet
    count = np.where(mask, np.maximum(fleet.cpu_free, 0) // max(1, need.cpu_millis), 0)
    if need.memory_bytes:
        count = np.minimum(count, np.maximum(fleet.memory_free, 0) // need.memory_bytes)
    if need.gpus:
        sets = sum((fleet.full(name) // need.gpus for name in need.names), start=np.zeros_like(count))
        count = np.minimum(count, sets)
    if need.gpu_millis:
        count = np.minimum(count, np.maximum(fleet.gpu_millis, 0) // need.gpu_millis)
    if need.group:
        count = np.minimum(count, need.per_node)
    return count


def fits_together(trial: Trial, need: Need, count: int) -> bool:
    """False when there is surely no room for `count` runs of this class."""
    return int(room(trial, need, feasible(trial.fleet, need)).sum()) >= count


def how_many_fit(trial: Trial, need: Need, count: int) -> int:
    """How many runs of this class fit at once, `count` at most; the trial is left as it was."""
    found, mark = 0, trial.mark()
    mask = feasible(trial.fleet, need)
    while found < count and mask.any():
        trial.commit(int(np.argmax(mask)), need)
        found += 1
        mask = feasible(trial.fleet, need)
    trial.undo(mark)
    return found
