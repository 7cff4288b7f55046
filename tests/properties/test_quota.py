"""Properties of quotas, cohorts and money, under any order of events Hypothesis can think of.

Limits are set at the start and never change, so they must hold at every moment; what is spent is
compared with a straight account of the recorded events, kept in fractions; a replay and a snapshot
in the middle come to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventsched import codec
from eventsched.events import AbortRequested, PolicySet, PriceSet, RunAssigned, TenantSet
from eventsched.projections.cluster.digest import decode_state, digest, encode_state
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.views.tenants import tenant_views
from eventsched.recorded import Recorded
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import Ledger

MEMBERS = ("a", "b", "c")
TENANTS = (*MEMBERS, "alone", "nobody")
NODES = {"n1": ("A100",) * 4 + ("H100",) * 4, "n2": ("H100",) * 4, "n3": ("A100",) * 8}
"""Room for more than all own, so that it is quotas that refuse."""
PERIOD_MS = 1_000
PRICES = PriceSet(core_micros_per_h=7_200_000, gpu_micros_per_h=1_800_001, gpu_models={"A100": 3_333_333})
amount = st.sampled_from((None, None, None, 1, 2, 3, 4))


@dataclass
class Paid:
    """One run, as the events tell it."""

    tenant: str
    rate: int
    begun_ms: int
    closed_ms: int | None = None

    def between(self, start_ms: int, end_ms: int) -> int:
        """What it cost then: each moment's sum is rounded up, so that parts add up."""
        last = end_ms if self.closed_ms is None else min(end_ms, self.closed_ms)

        def until(at_ms: int) -> int:
            return ceil(Fraction(self.rate * max(0, at_ms - self.begun_ms), 3_600_000))

        return until(max(last, self.begun_ms)) - until(min(max(start_ms, self.begun_ms), max(last, self.begun_ms)))


class Tenants(RuleBasedStateMachine):
    """Three tenants of a cohort, one for itself, one that was granted nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(finished_keep=4, quota_default="nothing")
        self.ledger.lead()
        for node, gpus in NODES.items():
            self.ledger.join(node, cpus=32, gpus=gpus)
        self.ledger.put("ev.admin.price_set", PRICES)
        self.limits: dict[str, TenantSet] = {}
        self.paid: dict[int, Paid] = {}
        self.jobs = 0

    @initialize(
        data=st.data(),
        policy=st.sampled_from(("best-fit", "quota-aging", "drf")),
        shape=st.sampled_from(("models", "models", "runs", "gpus", "mixed")),
    )
    def grant(self, data: st.DataObject, policy: str, shape: str) -> None:
        self.ledger.put("ev.admin.policy_set", PolicySet(name=policy))
        for tenant in (*MEMBERS, "alone"):
            event = TenantSet(
                tenant=tenant,
                cohort="" if tenant == "alone" else "lab",
                borrow_percent=data.draw(st.sampled_from((None, None, None, 0, 50, 300))),
                lend_percent=data.draw(st.sampled_from((100, 100, 100, 0, 50))),
                **self._limits(data, shape),
            )
            self.limits[tenant] = event
            self.ledger.put("ev.admin.tenant_set", event)
        self.ledger.settle()
        assert not self.ledger.state.anomalies

    def _limits(self, data: st.DataObject, shape: str) -> dict[str, object]:
        if shape == "models":
            return {"gpu_models": {"A100": data.draw(st.integers(0, 4)), "H100": 2}}
        if shape != "mixed":
            return {"gpu_models": {"A100": 6}, shape: data.draw(st.integers(0, 4))}
        return {
            "gpu_models": data.draw(st.dictionaries(st.sampled_from(("A100", "H100")), st.integers(0, 4))),
            "gpus": data.draw(amount),
            "runs": data.draw(amount),
            "cpu_millis": data.draw(st.sampled_from((None, 2_500, 5_000))),
            "budget_micros": data.draw(st.sampled_from((None, 0, 300, 5_000))),
            "budget_period_ms": data.draw(st.sampled_from((0, PERIOD_MS))),
        }

    @rule(
        tenant=st.sampled_from((*TENANTS, *MEMBERS, *MEMBERS)),
        many=st.integers(1, 4),
        gpus=st.sampled_from((0, 1, 1, 2)),
        model=st.sampled_from(("A100", "H100", "")),
        cpus=st.sampled_from((500, 1_000, 2_000)),
        array=st.sampled_from((0, 0, 3)),
        priority=st.integers(0, 2),
    )
    def submit(self, tenant: str, many: int, gpus: int, model: str, cpus: int, array: int, priority: int) -> None:
        asked = Resources(cpu_millis=cpus, gpus=gpus, gpu_model=model if gpus else "")
        spec = JobSpec(driver="fake", resources=asked, array=array, priority=priority)
        for _ in range(many):
            self.jobs += 1
            self.ledger.submit(f"j{self.jobs}", spec, tenant)

    @rule(passed_ms=st.sampled_from((0, 1, 90, 700, 1_000, 2_500)), limit=st.sampled_from((1, 1_000, 1_000, 1_000)))
    def round(self, passed_ms: int, limit: int) -> None:
        self.ledger.now_ms += passed_ms
        now_ms = max(self.ledger.state.clock_ms, self.ledger.now_ms)
        proposed = self.ledger.decide(now_ms, limit)
        for one in proposed:
            if isinstance(one.event, RunAssigned):
                self._may_spend(one.event.tenant, now_ms)
        self._record([(one.subject, one.event) for one in proposed])

    def _record(self, events: list[tuple[str, object]]) -> None:
        for subject, event in events:
            before = dict(self.ledger.state.runs)
            seq = self.ledger.put(subject, event)  # type: ignore[arg-type]
            if isinstance(event, RunAssigned) and seq in self.ledger.state.runs:
                self.paid[seq] = self._begun(subject, event)
            for closed in before:
                if closed not in self.ledger.state.runs:
                    self.paid[closed].closed_ms = self.ledger.state.clock_ms

    def _begun(self, subject: str, event: RunAssigned) -> Paid:
        node = subject.rpartition(".")[2]
        rate = Fraction(PRICES.core_micros_per_h * event.cpu_millis, 1000)
        for uuid in event.gpus:
            model = NODES[node][int(uuid.rpartition("gpu")[2])]
            rate += PRICES.gpu_models.get(model, PRICES.gpu_micros_per_h)
        assert rate.denominator == 1
        return Paid(event.tenant, int(rate), self.ledger.state.clock_ms)

    def _may_spend(self, tenant: str, now_ms: int) -> None:
        event = self.limits[tenant]
        if event.budget_micros is not None:
            start_ms = now_ms // PERIOD_MS * PERIOD_MS if event.budget_period_ms else 0
            assert self._spent(tenant, start_ms, now_ms) < event.budget_micros

    def _spent(self, tenant: str, start_ms: int, end_ms: int) -> int:
        return sum(paid.between(start_ms, end_ms) for paid in self.paid.values() if paid.tenant == tenant)

    @precondition(lambda self: self.ledger.state.runs)
    @rule(data=st.data(), how=st.sampled_from(("exited", "exited", "stopped", "lost", "oom")))
    def end(self, data: st.DataObject, how: str) -> None:
        seq = data.draw(st.sampled_from(sorted(self.ledger.state.runs)))
        self.ledger.now_ms += 17
        self.ledger.ended(seq, how, 0 if how == "exited" else 137)
        self.paid[seq].closed_ms = self.ledger.state.clock_ms

    @precondition(lambda self: any(run.stop_reason for run in self.ledger.state.runs.values()))
    @rule()
    def stop(self) -> None:
        for seq in [seq for seq, run in self.ledger.state.runs.items() if run.stop_reason]:
            self.ledger.ended(seq, "stopped", 143)
            self.paid[seq].closed_ms = self.ledger.state.clock_ms

    @rule(data=st.data())
    def abort_between_a_decision_and_its_record(self, data: st.DataObject) -> None:
        """Its run then opens all the same, and costs."""
        proposed = self.ledger.decide(max(self.ledger.state.clock_ms, self.ledger.now_ms))
        waiting = [job for job in self.ledger.state.jobs.values() if job.state == "pending" and job.member < 0]
        if waiting:
            job = data.draw(st.sampled_from(waiting))
            self.ledger.ask(job.job_id, "abort_requested", AbortRequested(), job.tenant)
        self._record([(one.subject, one.event) for one in proposed])

    @rule()
    def restart_from_a_snapshot(self) -> None:
        self.ledger.state = decode_state(encode_state(self.ledger.state))
        self.ledger.planner = None

    # ---- what must hold at all times ------------------------------------------------------------

    def _held(self, tenant: str) -> dict[str, int]:
        held = {"runs": 0, "cpu_millis": 0, "gpus": 0, "A100": 0, "H100": 0}
        for run in self.ledger.state.runs.values():
            if run.key.startswith(f"{tenant}/"):
                held["runs"] += 1
                held["cpu_millis"] += run.cpu_millis
                for uuid in run.gpus:
                    held["gpus"] += 1
                    held[NODES[run.node][int(uuid.rpartition("gpu")[2])]] += 1
        return held

    def _owned(self, tenant: str, kind: str) -> int | None:
        event = self.limits[tenant]
        if kind in ("A100", "H100"):
            return event.gpu_models.get(kind, 0 if event.gpus is None else None)
        if kind == "gpus":
            return 0 if event.gpus is None and not event.gpu_models else event.gpus
        return getattr(event, kind)  # type: ignore[no-any-return]

    @invariant()
    def nobody_holds_more_than_it_may(self) -> None:
        assert self._held("nobody")["runs"] == 0
        if not self.limits:
            return
        alone = self._held("alone")
        for kind, amount_held in alone.items():
            owned = self._owned("alone", kind)
            assert owned is None or amount_held <= owned, kind
        held = {member: self._held(member) for member in MEMBERS}
        for kind in alone:
            drawn, pool = 0, 0
            for member in MEMBERS:
                owned = self._owned(member, kind)
                if owned is None:
                    continue
                event = self.limits[member]
                scale = 1 if kind in ("runs", "cpu_millis") else 1000  # percents are of thousandths of GPUs
                lent = Fraction(owned * scale * event.lend_percent // 100, scale)
                pool += lent
                drawn += max(0, held[member][kind] - (owned - lent))
                if event.borrow_percent is not None:
                    assert held[member][kind] * 100 <= owned * (100 + event.borrow_percent)
            assert drawn <= pool, f"{kind}: {drawn} drawn from a pool of {pool}"

    @invariant()
    def spent_is_what_a_straight_account_says(self) -> None:
        state, now_ms = self.ledger.state, self.ledger.state.clock_ms
        for view in tenant_views(state, now_ms):
            assert view.total_micros == self._spent(view.tenant, 0, now_ms)
            if view.budget_period_ms:
                start_ms = now_ms // PERIOD_MS * PERIOD_MS
                assert view.spent_micros == self._spent(view.tenant, start_ms, now_ms)
                assert view.previous_micros == self._spent(view.tenant, start_ms - PERIOD_MS, start_ms)

    def teardown(self) -> None:
        """The whole log folded anew gives the same state: accounts, rates and all."""
        state = ClusterState()
        for seq, at_ms, subject, payload in self.ledger.entries:
            evolve(state, Recorded(seq, at_ms, subject, codec.decode(subject, payload)))
        assert state.accounts == self.ledger.state.accounts
        assert digest(state) == digest(self.ledger.state)


Tenants.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, suppress_health_check=list(HealthCheck), derandomize=True
)
TestTenants = Tenants.TestCase
