"""Properties of the fold and the decisions, under any order of events Hypothesis can think of.

Capacity is never exceeded, a job has at most one live run, what has ended stays as it ended, late
and repeated reports change nothing, caching decides as no caching does, and a snapshot in the
middle makes no difference.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from eventsched import codec, subjects
from eventsched.events import (
    AbortRequested,
    HoldRequested,
    NodeCordoned,
    NodeDrained,
    NodeLost,
    NodeSuspected,
    NodeUncordoned,
    PolicySet,
    ReleaseRequested,
    RequeueRequested,
    RunEnded,
    RunStarted,
    RunStarting,
    StopOrdered,
)
from eventsched.projections.cluster.digest import decode_state, digest, encode_state
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import TERMINAL, ClusterState, Run
from eventsched.projections.scheduling.decide import Proposed, stamp
from eventsched.projections.scheduling.needs import need_of
from eventsched.projections.scheduling.order import standing
from eventsched.projections.scheduling.policies import POLICIES
from eventsched.recorded import Recorded
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger

NODES = ("n1", "n2", "n3")
JOBS = tuple(f"j{index}" for index in range(12))
node = st.sampled_from(NODES)
job = st.sampled_from(JOBS)
plain = st.builds(
    JobSpec,
    driver=st.just("fake"),
    resources=st.builds(
        Resources,
        cpu_millis=st.sampled_from((500, 1000, 3000)),
        gpus=st.sampled_from((0, 0, 1, 2)),
        gpu_model=st.just(""),
    )
    | st.builds(Resources, cpu_millis=st.just(500), gpu_millis=st.sampled_from((300, 500, 999))),
    priority=st.integers(-2, 2),
    retries=st.integers(0, 2),
    retry_backoff_ms=st.sampled_from((0, 100)),
    max_lost=st.integers(0, 3),
    on_lost=st.sampled_from(("requeue", "fail")),
    on_disconnect=st.sampled_from(("stop", "keep")),
    queue_timeout_ms=st.sampled_from((0, 0, 50)),
    array=st.sampled_from((0, 0, 0, 3)),
    anti_affinity=st.sampled_from(("", "", "", "apart")),
    node_labels=st.sampled_from(({}, {}, {"zone": "a"})),
    tolerations=st.sampled_from(((), (), ("*",))),
    spot=st.sampled_from(("allow", "allow", "never")),
    hold=st.sampled_from((False, False, True)),
    after_ok=st.sampled_from(((), (), ("j0",), ("j1", "j2"))),
    after_any=st.sampled_from(((), (), ("j3",), ("j5",))),
    estimate_ms=st.sampled_from((0, 20, 200, 2_000)),
    deadline_ms=st.sampled_from((0, 500)),
    sla=st.sampled_from(("batch", "batch", "best_effort", "latency_sensitive")),
)
specs = st.tuples(plain, st.booleans()).map(lambda one: replace(one[0], gang=one[1] and one[0].array > 0))
policies = st.builds(
    PolicySet,
    name=st.sampled_from(sorted(POLICIES)),
    params=st.sampled_from(
        (
            {"preempt": 1, "preempt_max": 2},
            {"preempt": 1, "sweep_every": 2},
            {"preempt": 1, "backfill": "easy", "backfill_looks": 3},
            {"preempt": 1, "backfill": "conservative", "reservations": 2},
            {"backfill": "conservative", "sweep_every": 3},
            {"backfill": "none"},
        )
    ),
)


class Cluster(RuleBasedStateMachine):
    """Anything may happen at any time; `Ledger` checks the invariants after every event."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(finished_keep=4)
        self.ledger.lead()
        self.final: dict[str, tuple[str, int]] = {}
        self.closed: list[int] = []

    @initialize(policy=policies, cpus=st.integers(1, 6))
    def begin(self, policy: PolicySet, cpus: int) -> None:
        self.ledger.join("n1", cpus=cpus, gpus=("A100",) * 2)
        self.ledger.put("ev.admin.policy_set", policy)
        self.ledger.settle()
        assert not self.ledger.state.anomalies

    @rule(node=node, cpus=st.integers(1, 6), gpus=st.integers(0, 2), leash=st.booleans(), data=st.data())
    def join(self, node: str, cpus: int, gpus: int, leash: bool, data: st.DataObject) -> None:
        known = self.ledger.state.nodes.get(node)
        runs = (
            tuple(data.draw(st.lists(st.sampled_from(sorted(known.runs)), unique=True))) if known and known.runs else ()
        )
        held = sum(self.ledger.run(run).cpu_millis for run in runs)
        self.ledger.join(
            node,
            cpus=max(cpus, -(-held // 1000)),
            gpus=("A100",) * max(gpus, 2 if runs else 0),
            leash=leash,
            runs=runs,
            labels={"zone": "ab"[cpus % 2]},
            taints=("batch",) if cpus == 6 else (),
            spot=gpus == 2,
        )

    @rule(job=job, spec=specs)
    def submit(self, job: str, spec: JobSpec) -> None:
        self.ledger.submit(job, spec)

    @rule(policy=st.sampled_from(("best-fit", "fgd", "packing", "cost-aware", "random")))
    def adopt(self, policy: str) -> None:
        self.ledger.put("ev.admin.policy_set", PolicySet(name=policy))

    @rule(jobs=st.lists(st.tuples(job, specs), min_size=2, max_size=6), later=st.sampled_from((0, 60)))
    def crowd(self, jobs: list[tuple[str, JobSpec]], later: int) -> None:
        """Several at once, more than fit; and what is decided on them."""
        for job_id, spec in jobs:
            self.ledger.submit(job_id, spec)
        for _ in range(3):
            self.round(1000, later)

    @rule()
    def stops_are_carried_out(self) -> None:
        for seq, run in list(self.ledger.state.runs.items()):
            if run.stop_reason and run.state != "unknown":
                self._report(seq, run.node, "stopped", 143)
        self.round(1000, 2_000)

    @rule(job=job, payload=st.sampled_from((b"{", b'{"imge":1}', b'{"driver":"fake","priority":99999}', b"[[[")))
    def submit_rubbish(self, job: str, payload: bytes) -> None:
        self.ledger.raw(f"ev.job.t.{job}.submitted", payload)

    @rule(
        job=job,
        ask=st.sampled_from(
            (
                ("abort_requested", AbortRequested),
                ("hold_requested", HoldRequested),
                ("release_requested", ReleaseRequested),
                ("requeue_requested", RequeueRequested),
            )
        ),
        member=st.sampled_from((-1, -1, 0, 1, 2, 7)),
    )
    def ask(self, job: str, ask: tuple[str, type], member: int) -> None:
        self.ledger.ask(job, ask[0], ask[1](member=member))

    @rule(job=job)
    def force_requeue(self, job: str) -> None:
        self.ledger.ask(job, "requeue_requested", RequeueRequested(force=True))

    @rule(limit=st.sampled_from((1, 2, 1000)), later=st.sampled_from((0, 60, 1_000_000)))
    def round(self, limit: int, later: int) -> None:
        now_ms = self.ledger.state.clock_ms + later
        self._check_evictions(self.ledger.decide(now_ms, limit))
        self.ledger.round(now_ms, limit)

    def _check_evictions(self, proposed: list[Proposed]) -> None:
        """Who gives way is lower, and with it gone the other one fits: nobody is stopped in vain."""
        state = self.ledger.state
        freed: dict[str, list[Run]] = {}
        for one in proposed:
            if isinstance(one.event, StopOrdered) and one.event.in_favour_of:
                run = state.runs[one.event.run]
                assert standing(state.jobs[run.key]) < standing(state.jobs[one.event.in_favour_of])
                freed.setdefault(one.event.in_favour_of, []).append(run)
        for key, runs in freed.items():
            node, need = state.nodes[runs[0].node], need_of(state.jobs[key])
            assert {run.node for run in runs} == {node.node_id}
            leaving = [run for seq in node.runs if (run := state.runs[seq]).stop_reason or run.stop_owed or run in runs]
            assert node.cpu_free_millis + sum(run.cpu_millis for run in leaving) >= need.cpu_millis
            free = len(node.capacity.gpus) - len(node.gpu_runs) + sum(len(run.gpus) for run in leaving)
            assert free >= need.gpus

    @rule(limit=st.sampled_from((1000,)), data=st.data())
    def round_overtaken(self, limit: int, data: st.DataObject) -> None:
        """Something is recorded between the decision's basis and its commit."""
        proposed = self.ledger.decide(limit=limit)
        what = data.draw(st.sampled_from(("abort", "abort_one", "hold", "rejoin")))
        if what == "rejoin":
            self.join(data.draw(node), 6, 2, True, data)
        elif what == "hold":
            self.ask(data.draw(job), ("hold_requested", HoldRequested), -1)
        else:
            self.ask(data.draw(job), ("abort_requested", AbortRequested), -1 if what == "abort" else 1)
        for one in proposed:
            self.ledger.put(one.subject, one.event)

    @precondition(lambda self: self.ledger.state.runs)
    @rule(
        data=st.data(),
        what=st.sampled_from(
            ("starting", "started", "exited", "exited", "oom", "timed_out", "stopped", "start_failed", "lost")
        ),
        code=st.sampled_from((0, 0, 1, 137)),
    )
    def report(self, data: st.DataObject, what: str, code: int) -> None:
        run = data.draw(st.sampled_from(sorted(self.ledger.state.runs)))
        self._report(run, self.ledger.run(run).node, what, code)

    @rule(data=st.data(), what=st.sampled_from(("started", "exited", "lost")))
    def report_late(self, data: st.DataObject, what: str) -> None:
        if self.closed:
            before = digest(self.ledger.state)
            self._report(data.draw(st.sampled_from(self.closed)), "n1", what, 0)
            after = self.ledger.state
            after_image = decode_state(encode_state(after))
            after_image.late_reports -= 1
            after_image.seq -= 1
            after_image.clock_ms -= 1
            assert digest(after_image) == before, "a late report changed something"

    def _report(self, run: int, node_id: str, what: str, code: int) -> None:
        match what:
            case "starting":
                event: object = RunStarting(run=run)
            case "started":
                event = RunStarted(run=run)
            case _:
                event = RunEnded(run=run, outcome=what, exit_code=code)  # type: ignore[arg-type]
        was_open = run in self.ledger.state.runs
        self.ledger.put(subjects.run(node_id), event)  # type: ignore[arg-type]
        if was_open and run not in self.ledger.state.runs:
            self.closed.append(run)

    @rule(node=node, kind=st.sampled_from((NodeLost, NodeSuspected)))
    def verdict(self, node: str, kind: type) -> None:
        known = self.ledger.state.nodes.get(node)
        if known is not None and known.session:
            state = self.ledger.state
            (one,) = stamp(state, state.clock_ms, [(subjects.assign(node), kind, {"session": known.session})])
            self.ledger.put(one.subject, one.event)

    @rule(node=node, what=st.sampled_from((NodeCordoned, NodeUncordoned, NodeDrained)), now=st.booleans())
    def administer(self, node: str, what: type, now: bool) -> None:
        names = {NodeCordoned: "node_cordoned", NodeUncordoned: "node_uncordoned", NodeDrained: "node_drained"}
        event = NodeDrained(node=node, now=now) if what is NodeDrained else what(node=node)
        self.ledger.put(subjects.admin(names[what]), event)

    @rule(policy=policies)
    def choose_a_policy(self, policy: PolicySet) -> None:
        self.ledger.put("ev.admin.policy_set", policy)
        self.ledger.round()

    @rule()
    def another_leads(self) -> None:
        self.ledger.lead("s2")

    @rule()
    def restart_from_a_snapshot(self) -> None:
        """What was saved and loaded goes on exactly like what was not."""
        copy = decode_state(encode_state(self.ledger.state))
        assert digest(copy) == digest(self.ledger.state)
        self.ledger.state = copy
        self.ledger.planner = None

    @invariant()
    def no_capacity_is_exceeded(self) -> None:
        for one in self.ledger.state.nodes.values():
            assert one.cpu_free_millis >= 0, one

    @invariant()
    def what_has_ended_stays_as_it_ended(self) -> None:
        for ended in self.ledger.state.jobs.values():
            if ended.state in TERMINAL:
                known = self.final.setdefault(f"{ended.key}#{ended.seq}", (ended.state, ended.finished_ms))
                assert known == (ended.state, ended.finished_ms)

    def teardown(self) -> None:
        """The whole log folded anew gives the same state."""
        state = ClusterState()
        for seq, at_ms, subject, payload in self.ledger.entries:
            evolve(state, Recorded(seq, at_ms, subject, codec.decode(subject, payload)))
        assert digest(state) == digest(self.ledger.state)


Cluster.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, suppress_health_check=list(HealthCheck), derandomize=True
)
TestCluster = Cluster.TestCase
