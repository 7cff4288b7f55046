"""The story of one job: which events of the log it consists of, and how they are shown."""

from __future__ import annotations

from eventsched import codec
from eventsched.events import AbortRequested, NodeJoined, NodeLeft, NodeLost
from eventsched.projections.queries import Queries
from eventsched.query import GetRequest
from eventsched.recorded import Recorded
from eventsched.resources import Capacity, Resources
from eventsched.spec import JobSpec
from eventsched.stories import JobFilter, kind_of, line_of

from ..support import FAKE, Ledger, ready


def _story(ledger: Ledger, job_id: str) -> list[tuple[int, str]]:
    """(sequence, kind) of the events `events --job` shows."""
    wanted = JobFilter(Queries(ledger.state, None).get(GetRequest(job_id, "t"), 0))
    recorded = [Recorded(seq, at, subject, codec.decode(subject, data)) for seq, at, subject, data in ledger.entries]
    return [(one.seq, kind_of(one)) for one in recorded if wanted(one)]


def _lose(ledger: Ledger, node: str) -> int:
    session = ledger.state.nodes[node].session
    event = NodeLost(epoch=ledger.state.epoch, round=ledger.state.rounds + 1, basis=ledger.state.seq, session=session)
    return ledger.put(f"ev.assign.{node}", event)


def test_the_loss_of_its_node_is_part_of_a_jobs_story() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.submit("idle", JobSpec(driver="fake", hold=True))
    ledger.settle()
    ledger.started(ledger.job("j").run)
    lost = _lose(ledger, "n1")
    assert ledger.job("j").state == "pending"
    assert (lost, "node.lost") in _story(ledger, "j")
    assert (lost, "node.lost") not in _story(ledger, "idle")


def test_a_session_that_no_longer_has_the_run_is_part_of_it_and_later_ones_are_not() -> None:
    ledger = ready()
    ledger.submit("j", JobSpec(driver="fake", on_lost="fail"))
    ledger.settle()
    kept = ledger.join(runs=(ledger.job("j").run,))
    ledger.settle()
    joined = ledger.join()
    ledger.settle()
    assert ledger.job("j").state == "failed"
    ledger.join()
    ledger.settle()
    seen = _story(ledger, "j")
    assert [one for one in seen if one[1].startswith(("node", "session"))] == [
        (joined, "node.joined"),
        (joined + 1, "session.opened"),
    ]
    assert kept not in dict(seen), "a session that goes on with the run ends nothing"


def test_a_node_that_leaves_with_the_run_is_part_of_it() -> None:
    ledger = ready()
    ledger.submit("j")
    ledger.settle()
    left = ledger.put("ev.node.n1", NodeLeft(session=ledger.state.nodes["n1"].session))
    assert (left, "node.left") in _story(ledger, "j")
    other = NodeJoined(machine_id="other", boot_id="b", capacity=Capacity(1000))
    assert ledger.put("ev.node.n2", other) not in dict(_story(ledger, "j")), "another node is another story"


def test_a_member_has_its_own_story() -> None:
    ledger = ready()
    ledger.submit("a", JobSpec(driver="fake", array=2, resources=Resources(cpu_millis=100)))
    ledger.settle()
    runs = [run.seq for run in ledger.state.runs.values() if run.key.endswith(".0")]
    other = [run.seq for run in ledger.state.runs.values() if run.key.endswith(".1")]
    assert set(runs) <= set(dict(_story(ledger, "a.0")))
    assert not set(other) & set(dict(_story(ledger, "a.0")))
    assert set(runs) | set(other) <= set(dict(_story(ledger, "a")))


def test_a_line_cannot_speak_to_the_terminal() -> None:
    ledger = ready()
    ledger.submit("j", FAKE)
    seq = ledger.ask("j", "abort_requested", AbortRequested(reason="\x1b[2Jgone\nforged \x9b31m \u202eline"))
    entry = ledger.entries[seq - 1]
    line = line_of(Recorded(seq, entry.at_ms, entry.subject, codec.decode(entry.subject, entry.payload)))
    assert r"\x1b[2Jgone\nforged \x9b31m \u202eline" in line
    assert line.isprintable()
