"""The fold's own lock on decisions: epoch and round numbers."""

from __future__ import annotations

import msgspec

from eventsched.events import FoldRaised

from ..support import ready


def test_a_decision_of_another_epoch_is_void() -> None:
    ledger = ready()
    ledger.submit("j")
    (assign,) = ledger.decide()
    ledger.lead("s2")
    ledger.put(assign.subject, assign.event)
    assert ledger.job("j").state == "pending"
    assert ledger.state.anomalies == {"stale_epoch": 1}


def test_a_round_counts_once() -> None:
    ledger = ready()
    ledger.submit("j")
    (assign,) = ledger.round()
    ledger.put(assign.subject, assign.event)
    assert ledger.state.anomalies == {"bad_round": 1}
    assert len(ledger.state.runs) == 1


def test_a_round_on_a_basis_before_the_last_round_is_void() -> None:
    ledger = ready()
    ledger.submit("j")
    (assign,) = ledger.decide()
    ledger.put(assign.subject, msgspec.structs.replace(assign.event, basis=1))
    assert ledger.state.anomalies == {"bad_round": 1}


def test_members_of_a_round_come_in_order() -> None:
    ledger = ready()
    for name in "abc":
        ledger.submit(name)
    first, second, third = ledger.decide()
    ledger.put(first.subject, first.event)
    ledger.put(third.subject, third.event)
    ledger.put(second.subject, second.event)
    assert ledger.state.anomalies == {"bad_round": 1}
    assert len(ledger.state.runs) == 2


def test_an_unknown_decision_of_the_present_leader_asks_for_an_upgrade() -> None:
    ledger = ready()
    ledger.raw("ev.decide.poetry", b'{"epoch":1}')
    assert not ledger.state.upgrade_needed
    seq = ledger.raw("ev.decide.poetry", b'{"epoch":%d}' % ledger.state.epoch)
    assert ledger.state.upgrade_needed == seq


def test_a_raised_fold_asks_for_an_upgrade() -> None:
    ledger = ready()
    seq = ledger.put("ev.decide.fold_raised", FoldRaised(epoch=ledger.state.epoch, fold_version=99))
    assert (ledger.state.fold_version, ledger.state.upgrade_needed) == (99, seq)


def test_time_never_goes_back() -> None:
    ledger = ready()
    clock = ledger.state.clock_ms
    ledger.now_ms -= 10_000
    ledger.submit("j")
    assert ledger.state.clock_ms == clock
    assert ledger.job("j").submitted_ms == clock
