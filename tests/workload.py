"""Plays a workload through the real fold and decisions, in virtual time: a log without a wire.

Deliberately small: submissions and ends are events, a round is decided at every instant at which
something happened. Policies see estimates only; the durations stay in here.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from eventsched import subjects
from eventsched.events import ClusterCreated, LeaderClaimed, NodeJoined, PolicySet, RunEnded, RunStarted
from eventsched.projections.cluster.check import check
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.scheduling.decide import decide
from eventsched.projections.scheduling.placing import Placing
from eventsched.projections.scheduling.planner import Planner
from eventsched.recorded import Recorded
from eventsched.resources import Capacity
from eventsched.spec import JobSpec
from eventsched.wire import Event


@dataclass
class Play:
    """Nodes of one core each, a policy, and jobs as (submitted_ms, job id, spec, duration_ms)."""

    nodes: int
    policy: str
    params: dict[str, int | str] = field(default_factory=dict)
    checked: bool = False

    def __post_init__(self) -> None:
        self.state = ClusterState()
        self.now_ms = 0
        self.started: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.promised: dict[str, int] = {}
        self._put("ev.admin.cluster_created", ClusterCreated(cluster_id="play", finished_keep=100_000))
        self._put(subjects.LEADER, LeaderClaimed(leader="s", nonce="s"))
        for index in range(self.nodes):
            name = f"n{index:03}"
            joined = NodeJoined(machine_id=name, boot_id="b", capacity=Capacity(1000, 0), drivers=("fake",))
            self._put(subjects.node(name), joined)
        self._put("ev.admin.policy_set", PolicySet(name=self.policy, params=self.params))
        self.planner = Planner(self.state)
        self._ends: list[tuple[int, int, str]] = []

    def run(self, jobs: list[tuple[int, str, JobSpec, int]]) -> None:
        """Play to the end."""
        durations = {job_id: duration for _, job_id, _, duration in jobs}
        arrivals = sorted(jobs, key=lambda one: (one[0], one[1]))[::-1]
        self._rounds(durations)
        while arrivals or self._ends:
            due = min([*(one[0] for one in arrivals[-1:]), *(one[0] for one in self._ends[:1])])
            self.now_ms = due
            while self._ends and self._ends[0][0] == due:
                _, run, job_id = heapq.heappop(self._ends)
                self._put(subjects.run(self.state.runs[run].node), RunEnded(run=run, outcome="exited", exit_code=0))
                self.ended[job_id] = due
            while arrivals and arrivals[-1][0] == due:
                _, job_id, spec, _ = arrivals.pop()
                self._put(subjects.job("t", job_id, "submitted"), spec)
            self._rounds(durations)

    def _rounds(self, durations: dict[str, int]) -> None:
        while proposed := decide(self.state, self.now_ms, self.planner):
            for one in proposed:
                self._put(one.subject, one.event)
        for seq, run in list(self.state.runs.items()):
            if not run.started_ms and run.state == "assigned":
                self._put(subjects.run(run.node), RunStarted(run=seq))
                job_id = run.key.partition("/")[2].partition(".")[0]
                self.started.setdefault(job_id, self.now_ms)
                heapq.heappush(self._ends, (self.now_ms + durations[job_id], seq, job_id))
        if self.checked:
            assert check(self.state) == []
            self._note_promises()

    def _note_promises(self) -> None:
        placing = Placing(self.state, self.planner, self.now_ms, {}, lambda *_: True)
        assert not list(placing.run()), "a round follows that should be empty"
        for key, reservation in placing.reserved.items():
            job_id = key.partition("/")[2]
            self.promised[job_id] = min(reservation.at_ms, self.promised.get(job_id, reservation.at_ms))

    def _put(self, subject: str, event: Event) -> None:
        evolve(self.state, Recorded(self.state.seq + 1, self.now_ms, subject, event))
