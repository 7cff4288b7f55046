"""Defects that a review found, each with the smallest story that showed it."""

from __future__ import annotations

import pytest

from eventsched import codec, subjects
from eventsched.events import LeaderClaimed
from eventsched.log.gather import GatheringWriter
from eventsched.log.memory import MemoryLog
from eventsched.log.port import Conflict, Outgoing
from eventsched.projections.leader.core import SchedulerCore
from eventsched.spec import JobSpec

from ..support import FAKE, ready


def test_the_largest_job_is_assigned_and_disturbs_no_other() -> None:
    """Its assign is larger than a submission may be; it was void, and its round with it, for ever."""
    ledger = ready()
    label = "x" * (codec.PAYLOAD_MAX - 200)
    ledger.submit("large", JobSpec(driver="fake", labels={"big": label}))
    ledger.submit("small")
    ledger.settle()
    assert ledger.states() == {"large": "assigned", "small": "assigned"}
    assert not ledger.state.anomalies
    sizes = [len(entry.payload) for entry in ledger.entries if entry.subject.startswith("ev.assign.")]
    assert max(sizes) > codec.PAYLOAD_MAX


def test_a_submission_is_not_larger_because_decisions_may_be() -> None:
    ledger = ready()
    ledger.raw("ev.job.t.huge.submitted", b'{"driver":"fake","name":"' + b"x" * codec.PAYLOAD_MAX + b'"}')
    ledger.settle()
    assert (ledger.job("huge").state, ledger.job("huge").reason) == ("rejected", "too_large")


@pytest.mark.parametrize("length", [60_000, 250_000])
def test_a_verdict_does_not_quote_at_length(length: int) -> None:
    ledger = ready()
    ledger.submit("bad", JobSpec(driver="fake", env={"=" + "x" * length: "1"}))
    ledger.raw("ev.job.t.odd.submitted", b'{"' + b"y" * length + b'":1}')
    ledger.submit("good")
    ledger.settle()
    assert ledger.states() == {"bad": "rejected", "odd": "rejected", "good": "assigned"}
    assert max(len(entry.payload) for entry in ledger.entries if entry.subject.startswith("ev.decide")) < 3_000


def test_junk_on_the_leader_s_subject_costs_an_election_and_not_the_cluster() -> None:
    ledger = ready()
    junk = ledger.raw(subjects.LEADER, b'{"type":"io.nats.jetstream.api.v1.account_info_response"}')
    core = SchedulerCore("s2", ledger.state, "0")
    write = core.claim("n")
    assert write is not None
    assert write.messages[0].expect == junk, "the broker's last sequence on that subject"
    ledger.put(subjects.LEADER, LeaderClaimed(leader="s2", nonce="n"))
    assert not ledger.state.leader_junk
    ledger.submit("j")
    ledger.settle()
    assert ledger.job("j").state == "assigned"


async def test_an_id_twice_at_once_is_one_conflict() -> None:
    """The server refuses a batch that names a subject twice with an expectation, and every retry of it."""
    log = MemoryLog()
    writer = GatheringWriter(log, give_up_s=5)
    ids = ("a", "j1", "b", "j1")
    futures = [
        writer.put_soon(Outgoing(f"ev.job.t.{job_id}.submitted", codec.encode(FAKE), msg_id=f"m{index}", expect=0))
        for index, job_id in enumerate(ids)
    ]
    outcomes = []
    for future in futures:
        try:
            outcomes.append(await future)
        except Conflict:
            outcomes.append(0)
    await writer.close()
    assert [bool(outcome) for outcome in outcomes] == [True, True, True, False]
