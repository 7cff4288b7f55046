"""What deciding needs to know quickly, derived from the state: the fleet, the queues, the timers.

A planner is a cache: `Planner(state)` built afresh decides the same as one kept in step with
`sync` (a test holds them against each other). It never enters a digest or a snapshot.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job, Node, Run
from eventsched.projections.scheduling.filters import needs_with_room
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.gang import gang_is_waiting, gang_may_start, gang_problems, members_to_start
from eventsched.projections.scheduling.needs import Need, group_of, need_of
from eventsched.projections.scheduling.order import Key, standing
from eventsched.projections.scheduling.policies import choose
from eventsched.projections.scheduling.ranking import Rankings
from eventsched.projections.scheduling.usage import Usage
from eventsched.spec import Problem, problems

Entry = tuple[Key, str]
"""A job in a queue: its order key, then its key in the state."""


class Class(NamedTuple):
    """Jobs that are alike for placement: what holds one back holds back all of them.

    gang: how many must start together, 0 = one will do. standing: who gives way for them, where anybody does.
    """

    need: Need
    tenant: str
    group: Key
    gang: int = 0
    standing: Key = ()


class ClassQueue:
    """Waiting jobs of one class in order; taking from the front is cheap, as that is the rule."""

    __slots__ = ("items", "start")

    def __init__(self) -> None:
        self.items: list[Entry] = []
        self.start = 0

    def __len__(self) -> int:
        return len(self.items) - self.start

    def add(self, entry: Entry) -> None:
        """Insert in order."""
        if not self.items or entry > self.items[-1]:
            self.items.append(entry)
        else:
            insort(self.items, entry, lo=self.start)

    def remove(self, entry: Entry) -> None:
        """Take out an entry that is in the queue."""
        if self.items[self.start] != entry:
            index = bisect_left(self.items, entry, lo=self.start)
            assert self.items[index] == entry
            del self.items[index]
            return
        self.start += 1
        if self.start > 64 and self.start * 2 > len(self.items):
            del self.items[: self.start]
            self.start = 0


class Planner:
    """Caches for `decide`; `sync` brings them up to the state's sequence and forgets what
    was touched, so one state has one planner in step (throw-away ones may be built beside it)."""

    def __init__(self, state: ClusterState) -> None:
        self._begin(state)

    def _begin(self, state: ClusterState) -> None:
        self._adopted = state.policy
        self.policy = choose(state.policy)
        self.fleet = Fleet(state)
        self.rankings = Rankings(self.fleet, self.policy.score)
        self.usage = Usage(state)
        self.queues: dict[Class, ClassQueue] = {}
        self.open: dict[Class, ClassQueue] = {}
        self._parked: dict[Need, dict[Class, None]] = {}
        self.places: dict[str, tuple[Class, Entry]] = {}
        self.delayed: list[tuple[int, str]] = []
        self._early: list[tuple[int, str]] = []
        """Queued, with their times, before the state's clock had come to it."""
        self.timeouts: list[tuple[int, str]] = []
        self.timed: dict[str, int] = {}
        """Waiting jobs with a queue_timeout, each with its deadline; `timeouts` holds these, and some long gone."""
        self.renewal_ms = 0
        self.faults: dict[str, list[Problem]] = {}
        self.promised: dict[str, None] = {}
        self.by_age = ClassQueue()
        self._ages: dict[str, Entry] = {}
        self.draining: dict[str, None] = {name: None for name, node in state.nodes.items() if node.draining}
        for key, job in state.jobs.items():
            if _unit_key(state, key) == key or job.parent_key not in state.jobs:
                self._place(state, key)

    def sync(self, state: ClusterState) -> None:
        """Follow what evolved since the last call."""
        if self._adopted is not state.policy and self._adopted != state.policy:
            self._begin(state)
            state.changes.forget_touched()
            return
        changes = state.changes
        gained = self.fleet.sync(state, changes.nodes)
        self._reopen(None if changes.tenants else gained)
        if changes.nodes:
            self.usage.sync(state, changes.nodes)
            for name in changes.nodes:
                node = state.nodes.get(name)
                if node is not None and node.draining:
                    self.draining[name] = None
                else:
                    self.draining.pop(name, None)
        for key in dict.fromkeys(_unit_key(state, key) for key in changes.jobs):
            self._place(state, key)
        changes.forget_touched()

    def _place(self, state: ClusterState, key: str) -> None:
        """Put a job where it belongs now: in its class's queue, among the delayed, or nowhere."""
        old = self.places.pop(key, None)
        if old is not None:
            self._dequeue(*old)
        job = state.jobs.get(key)
        if job is not None and group_of(job):
            self.fleet.watch_groups(state)
        if job is None or job.admitted or job.state in TERMINAL:
            self.faults.pop(key, None)
        elif not self._judge(job):
            return
        self._time(job, key)
        if job is None or not is_waiting(job):
            return
        if not may_start(state, job):
            return
        if job.not_before_ms > state.clock_ms:
            heapq.heappush(self.delayed, (job.not_before_ms, key))
            return
        self._enqueue(job)

    def _time(self, job: Job | None, key: str) -> None:
        """Note the deadline of a job that waits for its first run; what waits no longer may not pile up."""
        if job is None or job.attempt or not job.spec.queue_timeout_ms or not is_waiting(job):
            self.timed.pop(key, None)
        else:
            deadline = job.submitted_ms + job.spec.queue_timeout_ms
            if self.timed.get(key) != deadline:
                self.timed[key] = deadline
                heapq.heappush(self.timeouts, (deadline, key))
        if len(self.timeouts) > 64 and len(self.timeouts) > 2 * len(self.timed):
            self.timeouts = sorted((deadline, key) for key, deadline in self.timed.items())

    def _enqueue(self, job: Job) -> None:
        policy = self.policy
        gang = members_to_start(job) if job.spec.gang else 0
        claim = standing(job) if policy.preempt else ()
        alike = Class(need_of(job, policy.looks), job.tenant, policy.order.group(job), gang, claim)
        entry = (policy.order.key(job), job.key)
        queue = self.queues.get(alike)
        if queue is None:
            queue = self.queues[alike] = ClassQueue()
            if alike.need in self._parked:
                self._parked[alike.need][alike] = None
            else:
                self.open[alike] = queue
        queue.add(entry)
        self.places[job.key] = (alike, entry)
        if job.promised:
            self.promised[job.key] = None
        if policy.sweep_every:
            self._ages[job.key] = ((job.seq, job.member), job.key)
            self.by_age.add(self._ages[job.key])

    def _dequeue(self, alike: Class, entry: Entry) -> None:
        queue = self.queues[alike]
        queue.remove(entry)
        if not queue:
            self._drop(alike)
        self.promised.pop(entry[1], None)
        if self.policy.sweep_every:
            self.by_age.remove(self._ages.pop(entry[1]))

    # ---- classes without room -----------------------------------------------------------------

    def park(self, alike: Class) -> None:
        """No node has room for this class: it is not looked at until one may have."""
        if self.open.pop(alike, None) is not None:
            self._parked.setdefault(alike.need, {})[alike] = None

    def _drop(self, alike: Class) -> None:
        del self.queues[alike]
        if self.open.pop(alike, None) is None:
            parked = self._parked[alike.need]
            del parked[alike]
            if not parked:
                del self._parked[alike.need]

    def _reopen(self, gained: list[int] | None) -> None:
        """Look again at the classes that might fit on a row that gained room; None = on any."""
        if gained is None:
            needs = list(self._parked)
        elif gained and self._parked:
            needs = needs_with_room(self.fleet, self._parked, np.array(gained, dtype=np.int64))
        else:
            return
        for need in needs:
            for alike in self._parked.pop(need):
                self.open[alike] = self.queues[alike]

    def _judge(self, job: Job) -> bool:
        """Look at an unjudged submission once; True if it may be placed in its first round."""
        if job.fault is not None:
            return False
        if job.key not in self.faults:
            self.faults[job.key] = problems(job.spec) or gang_problems(job.spec)
        spec = job.spec
        return not (spec.hold or spec.after_ok or spec.after_any or self.faults[job.key])

    def wake(self, state: ClusterState, now_ms: int) -> None:
        """Queue the jobs whose backoff is over at `now_ms`, and no others: an event that was recorded before the
        last round but folded after it takes the time of a round back."""
        now_ms = max(now_ms, state.clock_ms)
        early, self._early = self._early, []
        for due_ms, key in early:
            if due_ms > now_ms:
                self._place(state, key)
            elif due_ms > state.clock_ms:
                self._early.append((due_ms, key))
        while self.delayed and self.delayed[0][0] <= now_ms:
            _, key = heapq.heappop(self.delayed)
            job = state.jobs.get(key)
            if job is None or key in self.places or not is_waiting(job) or not may_start(state, job):
                continue
            if job.not_before_ms > now_ms:
                continue
            if job.not_before_ms > state.clock_ms:
                self._early.append((job.not_before_ms, key))
            self._enqueue(job)

    def expired(self, state: ClusterState, now_ms: int, limit: int) -> list[Job]:
        """Jobs that have waited past their queue_timeout, oldest deadline first; keeps them listed
        until the state says they are gone."""
        found: list[Job] = []
        kept: list[tuple[int, str]] = []
        seen: dict[str, None] = {}
        while self.timeouts and self.timeouts[0][0] <= now_ms and len(found) < limit:
            deadline, key = heapq.heappop(self.timeouts)
            if self.timed.get(key) != deadline or key in seen:  # of an earlier job of that name, or listed twice
                continue
            seen[key] = None
            kept.append((deadline, key))
            found.append(state.jobs[key])
        for item in kept:
            heapq.heappush(self.timeouts, item)
        return found

    def next_due_ms(self, state: ClusterState) -> int | None:
        """When time alone next changes something: a backoff, a queue time-out, a drain's deadline, or money
        that comes again for jobs the last round refused for want of it."""
        if not (self.delayed or self.timeouts or self.draining or self.renewal_ms):
            return None
        due = [heap[0][0] for heap in (self.delayed, self.timeouts) if heap]
        due += [node.drain_at_ms for name in self.draining if _must_still_stop(state, node := state.nodes[name])]
        if self.renewal_ms:
            due.append(self.renewal_ms)
        return min(due, default=None)


def _must_still_stop(state: ClusterState, node: Node) -> bool:
    """True when a drain's deadline will stop, or has still to stop, a run of this node."""
    return bool(node.drain_at_ms) and any(may_be_stopped(state.runs[seq]) for seq in node.runs)


def may_be_stopped(run: Run) -> bool:
    """True for a run nobody has told to stop, on a node that can be told."""
    return not run.stop_owed and not run.stop_reason and run.state != "unknown"


def is_waiting(job: Job) -> bool:
    """True when the job, or members of it that were never reached, have no run and have not ended."""
    if job.array is not None and job.spec.gang:
        return gang_is_waiting(job)
    if job.array is not None:
        return job.state in ("pending", "running") and job.array.next < job.spec.array
    return job.state == "pending"


def may_start(state: ClusterState, job: Job) -> bool:
    """True when nothing but time, quota and room keeps a waiting job from starting."""
    if job.held or job.waiting_on or job.doomed_by or job.abort_seq:
        return False
    return not job.spec.gang or gang_may_start(state, job)


def _unit_key(state: ClusterState, key: str) -> str:
    """The key under which a job is queued: a gang waits as one."""
    job = state.jobs.get(key)
    return job.parent_key if job is not None and job.member >= 0 and job.spec.gang else key
