"""What deciding needs to know quickly, derived from the state: the fleet, the queues, the timers.

A planner is a cache: `Planner(state)` built afresh decides the same as one kept in step with
`sync` (a test holds them against each other). It never enters a digest or a snapshot.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from typing import NamedTuple

from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.needs import Need, need_of
from eventsched.projections.scheduling.order import Key
from eventsched.projections.scheduling.policies import choose
from eventsched.projections.scheduling.usage import Usage
from eventsched.spec import Problem, problems

Entry = tuple[Key, str]
"""A job in a queue: its order key, then its key in the state."""


class Class(NamedTuple):
    """Jobs that are alike for placement: what holds one back holds back all of them."""

    need: Need
    tenant: str
    group: Key


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
        self._adopted = state.policy
        self.policy = choose(state.policy)
        self.fleet = Fleet(state)
        self.usage = Usage(state)
        self.queues: dict[Class, ClassQueue] = {}
        self.places: dict[str, tuple[Class, Entry]] = {}
        self.delayed: list[tuple[int, str]] = []
        self.timeouts: list[tuple[int, str]] = []
        self.timed: dict[str, int] = {}
        """Waiting jobs with a queue_timeout, each with its deadline; `timeouts` holds these, and some long gone."""
        self.faults: dict[str, list[Problem]] = {}
        self.draining: dict[str, None] = {name: None for name, node in state.nodes.items() if node.draining}
        for key in state.jobs:
            self._place(state, key)

    def sync(self, state: ClusterState) -> None:
        """Follow what evolved since the last call."""
        if self._adopted != state.policy:
            self.__init__(state)  # type: ignore[misc]
            state.changes.forget_touched()
            return
        changes = state.changes
        if changes.nodes:
            self.fleet.sync(state, changes.nodes)
            self.usage.sync(state, changes.nodes)
            for name in changes.nodes:
                node = state.nodes.get(name)
                if node is not None and node.draining:
                    self.draining[name] = None
                else:
                    self.draining.pop(name, None)
        for key in changes.jobs:
            self._place(state, key)
        changes.forget_touched()

    def _place(self, state: ClusterState, key: str) -> None:
        """Put a job where it belongs now: in its class's queue, among the delayed, or nowhere."""
        old = self.places.pop(key, None)
        if old is not None:
            queue = self.queues[old[0]]
            queue.remove(old[1])
            if not queue:
                del self.queues[old[0]]
        job = state.jobs.get(key)
        if job is None or job.admitted or job.state in TERMINAL:
            self.faults.pop(key, None)
        elif not self._judge(job):
            return
        self._time(job, key)
        if job is None or not is_waiting(job):
            return
        if not may_start(job):
            return
        if job.not_before_ms > state.clock_ms:
            heapq.heappush(self.delayed, (job.not_before_ms, key))
            return
        self._enqueue(job)

    def _time(self, job: Job | None, key: str) -> None:
        """Note the deadline of a job that waits for its first run; what waits no longer may not pile up."""
        if job is None or job.attempt or not job.spec.queue_timeout_ms or not is_waiting(job):
            self.timed.pop(key, None)
        elif key not in self.timed:
            self.timed[key] = job.submitted_ms + job.spec.queue_timeout_ms
            heapq.heappush(self.timeouts, (self.timed[key], key))
        if len(self.timeouts) > 64 and len(self.timeouts) > 2 * len(self.timed):
            self.timeouts = sorted((deadline, key) for key, deadline in self.timed.items())

    def _enqueue(self, job: Job) -> None:
        order = self.policy.order
        alike = Class(need_of(job), job.tenant, order.group(job))
        entry = (order.key(job), job.key)
        self.queues.setdefault(alike, ClassQueue()).add(entry)
        self.places[job.key] = (alike, entry)

    def _judge(self, job: Job) -> bool:
        """Look at an unjudged submission once; True if it may be placed in its first round."""
        if job.fault is not None:
            return False
        if job.key not in self.faults:
            self.faults[job.key] = problems(job.spec)
        spec = job.spec
        return not (self.faults[job.key] or spec.after_ok or spec.after_any or spec.hold or spec.array)

    def wake(self, state: ClusterState, now_ms: int) -> None:
        """Queue the jobs whose backoff is over at `now_ms`."""
        while self.delayed and self.delayed[0][0] <= now_ms:
            _, key = heapq.heappop(self.delayed)
            job = state.jobs.get(key)
            if job is None or key in self.places or not is_waiting(job) or not may_start(job):
                continue
            if job.not_before_ms > now_ms:
                continue
            self._enqueue(job)

    def expired(self, state: ClusterState, now_ms: int, limit: int) -> list[Job]:
        """Jobs that have waited past their queue_timeout, oldest deadline first; keeps them listed
        until the state says they are gone."""
        found: list[Job] = []
        kept: list[tuple[int, str]] = []
        seen: dict[str, None] = {}
        while self.timeouts and self.timeouts[0][0] <= now_ms and len(found) < limit:
            deadline, key = heapq.heappop(self.timeouts)
            job = state.jobs.get(key)
            if job is None or job.attempt or not is_waiting(job):
                self.timed.pop(key, None)
                continue
            if key in seen:
                continue
            seen[key] = None
            kept.append((deadline, key))
            found.append(job)
        for item in kept:
            heapq.heappush(self.timeouts, item)
        return found

    def next_due_ms(self, state: ClusterState) -> int | None:
        """When time alone next changes something: a backoff, a queue time-out, a drain's deadline."""
        due = [heap[0][0] for heap in (self.delayed, self.timeouts) if heap]
        due += [state.nodes[name].drain_at_ms for name in self.draining if state.nodes[name].drain_at_ms]
        return min(due, default=None)


def is_waiting(job: Job) -> bool:
    """True when the job, or members of it that were never reached, have no run and have not ended."""
    if job.array is not None:
        return job.state in ("pending", "running") and job.array.next < job.spec.array
    return job.state == "pending"


def may_start(job: Job) -> bool:
    """True when nothing but time, quota and room keeps a waiting job from starting."""
    return not (job.held or job.waiting_on or job.doomed_by or job.abort_seq)
