"""The engine: discrete events in virtual time, folded by `evolve` and decided by `decide`.

At each instant: runs end, machines come and go, jobs are submitted (what is submitted in one instant
is one batch); then rounds are decided until nothing more is to be decided, as a live leader would.
Agents obey at once. The time a run takes is known here alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from eventsched import subjects
from eventsched.errors import InvalidSpec
from eventsched.events import (
    Admitted,
    LeaderClaimed,
    NodeLeaving,
    NodeLeft,
    PolicySet,
    RunAssigned,
    RunEnded,
    RunStarted,
    StopOrdered,
)
from eventsched.ids import job_key
from eventsched.projections.cluster.check import check
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState, Job, PolicyChoice
from eventsched.projections.scheduling.decide import ROUND_MAX, Proposed, decide
from eventsched.projections.scheduling.planner import Planner
from eventsched.projections.scheduling.policies import POLICIES, complete, refuse, written_out
from eventsched.projections.simulation import chance
from eventsched.projections.simulation.accounts import Accounts, BrokenLaw
from eventsched.projections.simulation.fragments import Fragments
from eventsched.projections.simulation.outcome import OpenRun, Outcome, Record
from eventsched.projections.simulation.setup import PLAIN, Setup
from eventsched.projections.simulation.workload import SimJob, SimNode, Workload
from eventsched.recorded import Recorded
from eventsched.wire import Event

START_MS = 946_684_800_000
"""Virtual time begins with the year 2000: no time in a log may be 0."""
HOUR_MS = 3_600_000
END, RETURN, HAZARD, SUBMIT = range(4)
"""What can happen, in the order in which things of one instant do."""

Sink = Callable[[Recorded], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How to play.

    seed: for chance (spot machines; policies that draw). checkpoints: a run that was stopped goes on
    where it was, instead of anew. spot_ppm_per_h: how likely a spot node is taken away within an hour,
    None = as its node says. away_ms: how long it stays away. eager: decide even where nothing can
    come of it (for tests). endless: finished jobs are forgotten and no outcome is kept. setup: how the cluster is
    set up first.
    """

    seed: int = 0
    checkpoints: bool = False
    spot_ppm_per_h: int | None = None
    away_ms: int = 600_000
    eager: bool = False
    endless: bool = False
    setup: Setup = PLAIN


def parse_policy(text: str, seed: int = 0) -> PolicyChoice:
    """A policy by name or written out (`order=drf,score=spread`); raises InvalidSpec saying what is known."""
    choice = written_out(PolicyChoice(text, 1))
    why = refuse(choice)
    if why:
        raise InvalidSpec(f"--policy {text[:80]}: {why}", "`eventsched policy list` shows what there is")
    params = dict(choice.params)
    if "seed" in complete(POLICIES[choice.name], params):
        params.setdefault("seed", seed)
    return PolicyChoice(choice.name, 1, params)


class Simulation:
    """One workload under one policy. `run` plays to the end; `step` one instant."""

    def __init__(self, workload: Workload, policy: str, options: Options = Options(), sink: Sink | None = None) -> None:
        self.state = ClusterState()
        self.now_ms = START_MS
        self.options = options
        self.accounts = Accounts(START_MS, Fragments(workload.jobs))
        self.records: dict[str, Record] = {}
        self._sink = sink
        self._policy = parse_policy(policy, options.seed)
        self._agenda: list[tuple[int, int, int, object]] = []
        self._serial = 0
        self._waiting_for = 0
        self._nodes = {node.node_id: node for node in workload.nodes}
        self._open: dict[int, OpenRun] = {}
        self._left_ms: dict[str, dict[int, int]] = {}
        self._dependent = False
        self.submitted = 0
        self._create(workload.nodes, len(workload.jobs))
        self.add(workload.jobs)

    def _create(self, nodes: Iterable[SimNode], jobs: int) -> None:
        keep = 1_000 if self.options.endless else max(10_000, 2 * jobs)
        self._put(subjects.admin("cluster_created"), self.options.setup.created(keep))
        self._put(subjects.LEADER, LeaderClaimed(leader="simulator", nonce="simulator"))
        self._put(subjects.admin("policy_set"), PolicySet(name=self._policy.name, params=self._policy.params))
        for subject, event in self.options.setup.events():
            self._put(subject, event)
        for node in nodes:
            self._join(node)
        self.planner = Planner(self.state)
        self._rounds()

    def add(self, jobs: Iterable[SimJob], after_ms: int = 0) -> None:
        """Put submissions on the agenda, `after_ms` later than their own times say."""
        for job in sorted(jobs, key=lambda job: job.submit_ms):
            self._plan(START_MS + after_ms + job.submit_ms, SUBMIT, job)

    # ---- time -----------------------------------------------------------------------------------

    def run(self, progress: Callable[[int], None] | None = None) -> Outcome:
        """Play to the end: until nothing that can still happen would start or end a job."""
        ended = 0
        while self.step():
            if progress is not None and self.state.finished_total - ended >= 500:
                ended = self.state.finished_total
                progress(ended)
        return self.finish()

    def step(self) -> bool:
        """Play the next instant; False when there is none."""
        due = self.planner.next_due_ms(self.state)
        if due is not None and due <= self.now_ms:
            self._rounds(force=True)
            due = self.planner.next_due_ms(self.state)
        more = self._waiting_for or (due is not None and self._agenda)  # what spot nodes meet is no end in itself
        at_ms = self._agenda[0][0] if more else None
        if due is not None and due > self.now_ms and (at_ms is None or due < at_ms):
            self._advance(due)
            self._rounds(force=True)
            return True
        if at_ms is None:
            return False
        self._advance(at_ms)
        agenda = self._agenda
        while agenda and agenda[0][0] == at_ms:
            _, kind, _, what = heapq.heappop(agenda)
            self._waiting_for -= kind != HAZARD
            self._happen(kind, what)
        self._rounds()
        self._dependent = False
        return True

    def _advance(self, now_ms: int) -> None:
        self.accounts.advance(now_ms)
        self.now_ms = now_ms

    def _plan(self, at_ms: int, kind: int, what: object) -> None:
        self._serial += 1
        self._waiting_for += kind != HAZARD
        heapq.heappush(self._agenda, (at_ms, kind, self._serial, what))

    def _happen(self, kind: int, what: object) -> None:
        if kind == END:
            assert isinstance(what, OpenRun)
            if what.seq in self._open:
                outcome, code = ("timed_out", None) if what.over_time else ("exited", 0)
                self._end(what, outcome, code)
        elif kind == SUBMIT:
            assert isinstance(what, SimJob)
            self._submit(what)
        elif kind == RETURN:
            assert isinstance(what, SimNode)
            self._join(what)
        else:
            assert isinstance(what, tuple)
            self._hazard(*what)

    # ---- jobs -----------------------------------------------------------------------------------

    def _submit(self, job: SimJob) -> None:
        key = job_key(job.tenant, job.job_id)
        self.records[key] = Record(job, self.now_ms, crowd_ms=-self.accounts.jobs_time)
        self.accounts.entered(job.tenant)
        self.submitted += 1
        self._dependent |= bool(job.spec.after_ok or job.spec.after_any)  # not looked at in its first round
        self._put(subjects.job(job.tenant, job.job_id, "submitted"), job.spec)
        if key not in self.state.jobs:
            self.records[key].refused(self.now_ms)
            self.accounts.left(job.tenant, 0)

    def _rounds(self, force: bool = False) -> None:
        """Decide until there is nothing more to decide at this instant."""
        while force or self.options.eager or not self._quiet():
            proposed = decide(self.state, self.now_ms, self.planner)
            if not proposed:
                break
            for act, run in [order for one in proposed if (order := self._fold(one))]:
                act(run)
            self._note_ends()
            if not force and not self.options.eager and self._nothing_new(proposed):
                break
        self._note_ends()

    def _quiet(self) -> bool:
        """True when a round would be empty, judged from the outside."""
        state, planner = self.state, self.planner
        if state.unjudged or state.answers_owed or state.policy_requests or state.stops_owed or state.doomed:
            return False
        if state.changes.jobs:  # nodes alone change nothing while nobody waits
            planner.sync(state)
        return not (planner.queues or planner.delayed or planner.timeouts)

    def _nothing_new(self, proposed: list[Proposed]) -> bool:
        """True when a round only placed what fits: what did not fit in it does not fit in the next.

        Unless others may give way: what was placed just now is among them only from the next round on.
        """
        if len(proposed) == ROUND_MAX or self.state.unjudged or self._dependent or self.planner.policy.preempt:
            return False
        kinds = dict.fromkeys([type(one.event) for one in proposed])
        kinds.pop(RunAssigned, None)
        return not kinds or (len(kinds) == 1 and type(proposed[0].event) is Admitted)

    def _fold(self, one: Proposed) -> tuple[Callable[[OpenRun], None], OpenRun] | None:
        """Fold one message of a round; what its agent does then."""
        seq = self._put(one.subject, one.event)
        event = one.event
        if type(event) is RunAssigned:
            run = self.state.runs.get(seq)
            if run is None:
                return None
            record = self.records[job_key(event.tenant, event.job)]
            opened = OpenRun(seq, run.node, record, event.member, self.now_ms, _held(event))
            self._open[seq] = opened
            self.accounts.jobs_running += record.opens()
            self.accounts.look(self.state.nodes[run.node])
            return self._start, opened
        if type(event) is StopOrdered:
            stopped = self._open.get(event.run)
            if stopped is not None:
                return self._stop, stopped
        return None

    def _start(self, run: OpenRun) -> None:
        if run.seq not in self._open:
            return
        self._put(subjects.run(run.node), RunStarted(run=run.seq))
        record = run.record
        record.runs_on(run.node, self.now_ms)
        left = self._left_ms.get(record.key, {}).get(run.member)
        takes = record.job.takes_ms(run.member, self._nodes[run.node].gpu_model) if left is None else left
        limit = record.job.spec.max_runtime_ms
        run.over_time = bool(limit) and takes > limit
        run.takes_ms = takes
        self._plan(self.now_ms + (limit if run.over_time else takes), END, run)

    def _stop(self, run: OpenRun) -> None:
        if run.seq in self._open:
            self._end(run, "stopped", 143)

    def _end(self, run: OpenRun, outcome: str, exit_code: int | None) -> None:
        del self._open[run.seq]
        ran_ms = self.now_ms - run.since_ms
        useful = outcome == "exited"
        if outcome == "stopped":
            run.record.stopped += 1
            if self.options.checkpoints:
                useful = True
                self._left_ms.setdefault(run.record.key, {})[run.member] = max(0, run.takes_ms - ran_ms)
        run.record.ran_ms += ran_ms
        self.accounts.jobs_running -= run.record.closes()
        self.accounts.closed(run.record.job.tenant, run.held, run.since_ms, useful)
        ended = RunEnded(run=run.seq, outcome=outcome, exit_code=exit_code)  # type: ignore[arg-type]
        self._put(subjects.run(run.node), ended)
        self.accounts.look(self.state.nodes[run.node])

    def _note_ends(self) -> None:
        """Settle the jobs that ended; members count with their array."""
        ended = self.state.changes.ended
        if not ended:
            return
        for job in ended:
            if job.member < 0:
                self._settle(job)
        ended.clear()

    def _settle(self, job: Job) -> None:
        record = self.records[job.key]
        record.ended(job)
        self._left_ms.pop(job.key, None)
        record.crowd_ms += self.accounts.jobs_time
        self.accounts.left(job.tenant, job.finished_ms - job.submitted_ms)
        if self.options.endless:
            del self.records[job.key]

    # ---- machines -------------------------------------------------------------------------------

    def _join(self, node: SimNode) -> None:
        self._put(subjects.node(node.node_id), node.joined)
        self.accounts.look(self.state.nodes[node.node_id])
        if self._hazard_of(node):
            hour = (self.now_ms - START_MS) // HOUR_MS
            self._meet(node, self.state.nodes[node.node_id].session, hour)

    def _hazard_of(self, node: SimNode) -> int:
        rate = self.options.spot_ppm_per_h
        return (node.joined.hazard_ppm_per_h if rate is None else rate) if node.joined.spot else 0

    def _meet(self, node: SimNode, session: int, hour: int) -> None:
        """Look at one hour of a spot node's life: it is taken away in it, or the next one is looked at."""
        question = (self.options.seed, node.node_id, hour)
        if chance.happens(question[0], self._hazard_of(node), "spot", *question[1:]):
            at_ms = START_MS + hour * HOUR_MS + chance.below(HOUR_MS, question[0], "when", *question[1:])
            if at_ms > self.now_ms:
                self._plan(at_ms, HAZARD, (node, session, hour, True))
                return
        self._plan(START_MS + (hour + 1) * HOUR_MS, HAZARD, (node, session, hour + 1, False))

    def _hazard(self, node: SimNode, session: int, hour: int, taken: bool) -> None:
        now = self.state.nodes.get(node.node_id)
        if now is None or now.session != session:
            return
        if not taken:
            self._meet(node, session, hour)
            return
        self._put(subjects.node(node.node_id), NodeLeaving(session=session, reason="spot"))
        for seq in list(now.runs):
            self._stop(self._open[seq])
        self._put(subjects.node(node.node_id), NodeLeft(session=session))
        self.accounts.look(now)
        self._plan(self.now_ms + self.options.away_ms, RETURN, node)

    # ---- the log --------------------------------------------------------------------------------

    def _put(self, subject: str, event: Event) -> int:
        """Record and fold an event; its sequence."""
        seq = self.state.seq + 1
        recorded = Recorded(seq, self.now_ms, subject, event)
        evolve(self.state, recorded)
        if self._sink is not None:
            self._sink(recorded)
        return seq

    # ---- the end --------------------------------------------------------------------------------

    def finish(self) -> Outcome:
        """Close the books and check them. Raises BrokenLaw when they do not add up."""
        self._note_ends()
        for run in self._open.values():
            self.accounts.closed(run.record.job.tenant, run.held, run.since_ms, useful=False)
        self.accounts.end(record.submitted_ms for record in self.records.values() if record.is_open)
        self.accounts.check()
        broken = check(self.state)
        if broken:
            raise BrokenLaw(f"the state is broken: {broken[0]}", "this is a bug: please report it with the workload")
        label = f"{self.state.policy.name}/{self.state.policy.version}"
        records, nodes = list(self.records.values()), list(self._nodes.values())
        return Outcome(label, START_MS, self.now_ms, records, nodes, self.accounts, self.state)


def _held(order: RunAssigned) -> tuple[int, int, int]:
    return order.cpu_millis, order.memory_bytes, order.gpu_millis or 1000 * len(order.gpus)
