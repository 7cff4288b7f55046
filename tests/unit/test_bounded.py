"""What must not grow: work with the square of a chain, memory with the number of jobs that ever were."""

from __future__ import annotations

import pytest

from eventsched import codec
from eventsched.ids import job_key
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.scheduling.admission import judge
from eventsched.projections.scheduling.planner import Planner
from eventsched.recorded import Recorded
from eventsched.resources import Resources
from eventsched.spec import JobSpec

from ..support import ready

DAY_MS = 86_400_000


def test_judging_a_long_chain_compares_each_key_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are counted: each parent that is looked for is compared with keys, and a search along the path
    would compare it with all of them."""
    length, compared = 20_000, 0

    class CountedKey(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            assert compared < 20 * length, "the work grows with the square of the chain"
            return str.__eq__(self, other)

    state = ready().state
    for index in range(length):  # each depends on the next one: the first verdict has to walk to the end
        payload = b'{"driver":"fake","after_ok":["j%d"]}' % (index + 1) if index < length - 1 else b'{"driver":"fake"}'
        subject = f"ev.job.t.j{index}.submitted"
        evolve(state, Recorded(state.seq + 1, 1, subject, codec.decode(subject, payload)))
    planner = Planner(state)
    monkeypatch.setattr(
        "eventsched.projections.scheduling.admission.job_key", lambda tenant, job: CountedKey(job_key(tenant, job))
    )
    verdict, accepted = judge(state, planner)
    assert verdict is not None
    assert not verdict.rejected
    assert accepted[:2] == ["t/j0", "t/j1"]
    assert compared >= length, "the keys are counted"


def test_deadlines_of_jobs_that_have_ended_do_not_pile_up() -> None:
    ledger = ready(finished_keep=3)
    large = JobSpec(driver="fake", resources=Resources(cpu_millis=64_000), queue_timeout_ms=DAY_MS)
    ledger.submit("waits", large)
    for number in range(300):
        ledger.submit(f"j{number}", JobSpec(driver="fake", queue_timeout_ms=DAY_MS))
        ledger.settle()
        ledger.ended(next(iter(ledger.state.runs)))
        ledger.settle()
    assert ledger.planner is not None
    assert len(ledger.planner.timeouts) <= 65
    ledger.settle(ledger.state.clock_ms + DAY_MS)
    assert ledger.job("waits").state == "expired"
