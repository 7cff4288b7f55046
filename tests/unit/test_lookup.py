"""Which job a short or shared id means to whom."""

from __future__ import annotations

import pytest

from eventsched.errors import Ambiguous, NotFound
from eventsched.projections.queries import Queries
from eventsched.query import GetRequest

from ..support import Ledger, ready


@pytest.fixture
def ledger() -> Ledger:
    made = ready()
    for tenant in ("a", "b"):
        made.submit("same", tenant=tenant)
        made.submit("same-start-1", tenant=tenant)
    made.submit("same-start-2", tenant="b")
    made.submit("foreign", tenant="b")
    made.submit("foreigner", tenant="a")
    return made


def _owner(ledger: Ledger, job_id: str, prefer: str) -> str:
    return Queries(ledger.state, None).get(GetRequest(job_id, prefer=prefer), 0).tenant


def test_the_askers_own_job_is_preferred(ledger: Ledger) -> None:
    assert [_owner(ledger, "same", tenant) for tenant in ("a", "b")] == ["a", "b"]
    assert _owner(ledger, "same-st", "a") == "a", "the one that begins so of its own, though others do, too"


def test_a_whole_id_is_meant_before_the_beginning_of_another(ledger: Ledger) -> None:
    assert _owner(ledger, "foreign", "a") == "b"
    assert _owner(ledger, "foreigner", "b") == "a"


@pytest.mark.parametrize(("job_id", "prefer"), [("same-st", "b"), ("same", "nobody"), ("same", "")])
def test_what_stays_open_is_asked_back(ledger: Ledger, job_id: str, prefer: str) -> None:
    with pytest.raises(Ambiguous):
        _owner(ledger, job_id, prefer)


def test_an_exact_question_is_about_a_whole_id(ledger: Ledger) -> None:
    queries = Queries(ledger.state, None)
    assert queries.get(GetRequest("foreign", exact=True), 0).tenant == "b"
    for job_id in ("same-st", "foreig"):
        with pytest.raises(NotFound) as raised:
            queries.get(GetRequest(job_id, exact=True), 0)
        assert not raised.value.hint
    with pytest.raises(Ambiguous):
        queries.get(GetRequest("same", exact=True), 0)
