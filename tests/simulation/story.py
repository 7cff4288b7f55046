"""One simulated story: a cluster, a workload, a time of troubles, and then peace.

In the end every acknowledged job must have ended, nothing may have run twice at a time, and all
replicas, and a replay from the first event, must agree byte for byte.
"""

from __future__ import annotations

from eventsched import codec, subjects
from eventsched.events import (
    AbortRequested,
    ClusterCreated,
    HoldRequested,
    NodeCordoned,
    NodeDrained,
    NodeUncordoned,
    PolicySet,
    ReleaseRequested,
    RequeueRequested,
)
from eventsched.log.port import AppendError, Entry, Outgoing
from eventsched.projections.cluster import rounds
from eventsched.projections.cluster.check import check
from eventsched.projections.cluster.digest import digest
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import TERMINAL, ClusterState
from eventsched.projections.scheduling.policies import POLICIES
from eventsched.recorded import Recorded
from eventsched.resources import Resources
from eventsched.spec import FakeRun, JobSpec

from .machines import Machine
from .schedulers import SimScheduler
from .world import Faults, Sabotage, World

TROUBLE_MS = 25_000
PEACE_MS = 240_000
SCHEDULERS, MACHINES = 2, 5
TROUBLES = ("kill s", "pause s", "cut s", "kill a", "pause a", "cut a", "leave a", "drain", "garbage")


class Story:
    """A run of the world for one seed."""

    def __init__(self, seed: int, sabotage: Sabotage | None = None) -> None:
        self.world = World(seed, Faults(), sabotage)
        self.acknowledged: dict[str, None] = {}
        self.final: dict[str, str] = {}
        created = ClusterCreated(
            cluster_id="sim", suspect_after_ms=1_200, lost_after_ms=4_000, digest_every=97, finished_keep=1_000
        )
        self.world.log.append([Outgoing("ev.admin.cluster_created", codec.encode(created))], self.world.now_ms)
        self.world.machines = []  # type: ignore[attr-defined]
        self.schedulers = [SimScheduler(self.world, f"s{index}") for index in range(SCHEDULERS)]
        for index in range(MACHINES):
            self.world.machines.append(Machine(self.world, f"n{index}", 3))  # type: ignore[attr-defined]
        self.machines: list[Machine] = self.world.machines  # type: ignore[attr-defined]

    def play(self) -> None:
        """Trouble, peace, and the final checks. Raises AssertionError that names the seed."""
        self._plan_jobs()
        self._plan_policies()
        self._plan_troubles()
        start = self.world.now_ms
        self.world.run_until(start + TROUBLE_MS)
        self._make_peace()
        finished = self.world.run_until(self.world.now_ms + PEACE_MS, self._all_over)
        self._check(finished)

    # ---- the workload ---------------------------------------------------------------------------

    def _plan_jobs(self) -> None:
        world = self.world
        for index in range(40):
            when = world.now_ms + world.random.randrange(500, TROUBLE_MS - 3_000)
            job_id = f"j{index}"
            parents = (f"j{world.random.randrange(index)}",) if index and world.random.random() < 0.15 else ()
            fails = world.random.random() < 0.15
            members = world.random.choice((0,) * 5 + (4, 5))
            spec = JobSpec(
                driver="fake",
                resources=Resources(cpu_millis=world.random.choice((500, 1000, 2000))),
                fake=FakeRun(
                    duration_ms=world.random.choice((0, 50, 400, 2_000, 5_000)),
                    exit_code=1 if fails else 0,
                    fail_attempts=world.random.choice((0, 1)),
                ),
                retries=world.random.choice((0, 2)),
                retry_backoff_ms=200,
                max_lost=100,
                priority=world.random.choice((0, 0, 5)),
                sla=world.random.choice(("batch", "batch", "best_effort", "latency_sensitive")),
                estimate_ms=world.random.choice((0, 400, 2_000, 5_000)),
                deadline_ms=world.random.choice((0, 5_000)),
                max_runtime_ms=world.random.choice((0, 0, 0, 1_000)),
                queue_timeout_ms=world.random.choice((0,) * 9 + (1_500,)),
                after_any=parents,
                array=members,
                gang=members > 0 and world.random.random() < 0.7,
                stop_grace_ms=100,
            )
            world.at(when, lambda job_id=job_id, spec=spec: self._submit(job_id, spec))
            if world.random.random() < 0.15:
                world.at(
                    when + world.random.randrange(0, 4_000), lambda job_id=job_id: self._say(job_id, AbortRequested())
                )
            if world.random.random() < 0.1:
                world.at(
                    when + world.random.randrange(0, 500), lambda job_id=job_id: self._say(job_id, HoldRequested())
                )
            if world.random.random() < 0.1:
                later = when + world.random.randrange(0, 4_000)
                world.at(later, lambda job_id=job_id: self._say(job_id, RequeueRequested()))

    def _plan_policies(self) -> None:
        """Another policy now and then, mostly one that preempts."""
        world, pick = self.world, self.world.random
        for _ in range(3):
            params = {"preempt": pick.choice((0, 1, 1)), "sweep_every": pick.choice((0, 7))}
            event = PolicySet(name=pick.choice(sorted(POLICIES)), params=params)
            when = world.now_ms + pick.randrange(100, TROUBLE_MS)
            world.at(when, lambda event=event: self._put("ev.admin.policy_set", codec.encode(event)))

    def _submit(self, job_id: str, spec: JobSpec) -> None:
        message = Outgoing(subjects.job("t", job_id, "submitted"), codec.encode(spec), msg_id=job_id, expect=0)

        def done(result: int | AppendError) -> None:
            if isinstance(result, int):
                self.acknowledged[job_id] = None
            elif self.world.log.last_on(message.subject) is None:
                self.world.after(100, lambda: self._submit(job_id, spec))
            else:
                self.acknowledged[job_id] = None

        self.world.append([message], None, lambda: True, done)

    def _say(self, job_id: str, event: AbortRequested | HoldRequested | ReleaseRequested | RequeueRequested) -> None:
        verbs = {
            AbortRequested: "abort_requested",
            HoldRequested: "hold_requested",
            ReleaseRequested: "release_requested",
            RequeueRequested: "requeue_requested",
        }
        self._put(subjects.job("t", job_id, verbs[type(event)]), codec.encode(event))

    def _put(self, subject: str, payload: bytes) -> None:
        self.world.append([Outgoing(subject, payload)], None, lambda: True, lambda _: None)

    # ---- troubles -------------------------------------------------------------------------------

    def _plan_troubles(self) -> None:
        world, pick = self.world, self.world.random
        for _ in range(14):
            when = world.now_ms + pick.randrange(1_000, TROUBLE_MS - 1_000)
            scheduler, machine = pick.choice(self.schedulers), pick.choice(self.machines)
            long = pick.randrange(300, 9_000)
            trouble = pick.choice(TROUBLES)
            world.at(when, lambda t=trouble, s=scheduler, m=machine, n=long: self._trouble(t, s, m, n))

    def _trouble(self, kind: str, scheduler: SimScheduler, machine: Machine, long_ms: int) -> None:
        now = self.world.now_ms
        match kind:
            case "kill s" if not scheduler.dead:
                scheduler.crash()
            case "pause s":
                scheduler.paused_until = now + long_ms
            case "cut s":
                scheduler.cut_until = now + long_ms
            case "kill a":
                machine.kill_agent()
            case "pause a" if machine.agent is not None:
                machine.agent.paused_until = now + long_ms
            case "leave a" if machine.agent is not None:
                machine.agent.leave(spot_notice_ms=300 if long_ms % 2 else 0)
            case "cut a":
                machine.cut_until = now + long_ms
            case "drain":
                self._put("ev.admin.node_drained", codec.encode(NodeDrained(node=machine.node, now=long_ms % 2 == 0)))
                uncordon = codec.encode(NodeUncordoned(node=machine.node))
                self.world.after(long_ms, lambda: self._put("ev.admin.node_uncordoned", uncordon))
                self._put("ev.admin.node_cordoned", codec.encode(NodeCordoned(node="nobody")))
            case "garbage":
                for subject, payload in (
                    ("ev.job.t.j1.submitted", b"{"),
                    ("ev.job.t.bad.submitted", b'{"imge":"x"}'),
                    ("ev.run.n1", b'{"type":"run.ended","run":99999,"outcome":"exited"}'),
                    ("ev.decide.admitted", b'{"epoch":1,"upto":999999}'),
                    ("ev.job.t.j2.dance", b"{}"),
                ):
                    self._put(subject, payload)

    def _make_peace(self) -> None:
        world = self.world
        world.calm = True
        for scheduler in self.schedulers:
            scheduler.cut_until = scheduler.paused_until = 0
            if scheduler.dead:
                scheduler.revive()
        for machine in self.machines:
            machine.cut_until = 0
            if machine.agent is not None:
                machine.agent.paused_until = 0
            self._put("ev.admin.node_uncordoned", codec.encode(NodeUncordoned(node=machine.node)))
        for job_id in list(self.acknowledged):
            self._say(job_id, ReleaseRequested())

    # ---- the end --------------------------------------------------------------------------------

    def _all_over(self) -> bool:
        state = self.schedulers[0].state
        same = all(scheduler.state.seq == self.world.log.last_seq for scheduler in self.schedulers)
        return (
            same and not state.runs and not state.unjudged and all(job.state in TERMINAL for job in state.jobs.values())
        )

    def _check(self, finished: bool) -> None:
        seed = f"seed {self.world.seed}"
        replayed = self._replay()
        stuck = [f"{job.key} {job.state} {job.reason}" for job in replayed.jobs.values() if job.state not in TERMINAL]
        assert finished, f"{seed}: stuck: {stuck or 'replicas behind'}"
        for scheduler in self.schedulers:
            assert digest(scheduler.state) == digest(replayed), f"{seed}: {scheduler.name} differs from a replay"
        for job_id in self.acknowledged:
            assert f"t/{job_id}" in replayed.jobs, f"{seed}: acknowledged {job_id} is lost"
        assert "bad_round" not in replayed.anomalies, f"{seed}: a round the fold calls void passed the fence"
        self._check_truth(replayed, seed)

    def _replay(self) -> ClusterState:
        """From the first event; on the way, what has ended must never end otherwise."""
        state = ClusterState()
        for entry in self.world.log.entries:
            recorded = Recorded(entry.seq, entry.at_ms, entry.subject, codec.decode(entry.subject, entry.payload))
            evolve(state, recorded)
            for job in state.changes.ended:
                before = self.final.setdefault(job.key, job.state)
                assert before == job.state, f"seed {self.world.seed}: {job.key} ended {before}, then {job.state}"
            state.changes.ended.clear()
            if entry.seq % 50 == 0 or entry.seq == state.round_end:
                broken = check(state)
                assert not broken, f"seed {self.world.seed} at {entry.seq}: {broken}"
        assert not check(state), f"seed {self.world.seed}: {check(state)}"
        return state

    def _check_truth(self, state: ClusterState, seed: str) -> None:
        """What the log says of a success really happened on a machine."""
        ran = {run: job for machine in self.machines for run, job, _, _ in machine.history}
        for job in state.jobs.values():
            if job.state == "succeeded" and job.array is None:
                assert ran.get(job.run) == job.key, f"{seed}: {job.key} succeeded by run {job.run}, which never ran"


def break_fence(monkeypatch: object) -> None:
    """The fold's own lock: with it in place a broken fence of the broker does no harm."""
    setattr_ = monkeypatch.setattr  # type: ignore[attr-defined]
    setattr_(rounds, "of_current_epoch", lambda *_: True)


def told(seed: int) -> list[Entry]:
    """The log of a story."""
    story = Story(seed)
    story.play()
    return story.world.log.entries
