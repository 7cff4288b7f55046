"""Parts of the HTTP service that need no log: tokens, the catalogue's schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eventsched.errors import SettingsError
from eventsched.events import Admitted, Concluded, Conclusion, Rejection, RunAssigned, RunEnded
from eventsched.events.catalogue import EXAMPLES
from eventsched.projections.http.app import make_app
from eventsched.projections.http.auth import Gate, read_tokens
from eventsched.projections.http.desk import Desk
from eventsched.projections.http.feed import TenantFilter
from eventsched.projections.http.routes.schemas import catalogue_schema
from eventsched.recorded import Recorded
from eventsched.spec import JobSpec
from eventsched.wire import Event


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "token"),
        ('[[token]]\ntoken = "short"\nrole = "operator"\n', "token 1: at least 16"),
        ('[[token]]\ntoken = "0123456789abcdef"\n', "tenant '' is not an id"),
        ('[[token]]\ntoken = "0123456789abcdef"\nrole = "king"\n', "king"),
        ('[[token]]\ntoken = "0123456789abcdef"\nwho = "me"\n', "who"),
        ("[[token", "tokens.toml"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_is_refused_without_showing_one(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_tokens(path)
    assert told in str(refused.value)
    assert "0123456789abcdef" not in str(refused.value)


def test_the_schema_of_the_catalogue_describes_every_example_and_refers_to_what_is_there() -> None:
    schemas = json.loads(catalogue_schema())
    for subject, event in EXAMPLES:
        parts = subject.split(".")
        names = [
            subject,
            f"{'.'.join(parts[:2])}.<node> {event.__struct_config__.tag}",
            ".".join([*parts[:2], "<tenant>", "<job>", parts[-1]]),
        ]
        assert any(name in schemas for name in names), subject
    for subject, schema in schemas.items():
        referred = {one.split('"')[0] for one in json.dumps(schema).split("#/$defs/")[1:]}
        assert referred == set(schema["$defs"]), subject
    order = schemas["ev.assign.<node> run.assigned"]["$defs"]
    assert order["RunAssigned"]["properties"]["spec"]["$ref"] == "#/$defs/JobSpec"


def test_the_documentation_is_openapi_3_1_and_every_route_has_the_one_error() -> None:
    document = make_app(Desk(), Gate([], open_on_loopback=True)).openapi_schema.to_schema()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for name, operation in operations.items():
            schema = operation["responses"]["503"]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith("/ErrorBody"), (path, name)
            assert {"summary", "tags"} <= set(operation), (path, name)
    examples = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert sorted(examples) == ["by_hand", "flat", "nested", "ours"]


def test_a_tenant_sees_its_own_events_and_of_verdicts_its_own_part() -> None:
    see = TenantFilter("t")
    stamp = {"epoch": 1}

    def shown(seq: int, subject: str, event: Event) -> Event | None:
        found = see(Recorded(seq, 0, subject, event))
        return None if found is None else found.event

    assert shown(1, "ev.job.t.a.submitted", JobSpec()) == JobSpec()
    assert shown(2, "ev.job.u.a.submitted", JobSpec()) is None
    both = tuple(Rejection(seq=seq, code="c", path="", detail="secret" * (seq == 2)) for seq in (1, 2))
    judged = shown(3, "ev.decide.admitted", Admitted(upto=2, rejected=both, **stamp))
    assert isinstance(judged, Admitted)
    assert judged.rejected == both[:1]
    assert shown(4, "ev.decide.admitted", Admitted(upto=3, **stamp)) is None
    assert shown(5, "ev.assign.n", RunAssigned(session=1, tenant="t", job="a", **stamp)) is not None
    assert shown(6, "ev.assign.n", RunAssigned(session=1, tenant="u", job="a", **stamp)) is None
    assert shown(7, "ev.run.n", RunEnded(run=5, outcome="exited")) is not None
    assert shown(8, "ev.run.n", RunEnded(run=6, outcome="exited")) is None
    assert not see.runs, "a run that has ended is forgotten"
    ended = tuple(Conclusion(tenant=one, job="b", state="expired", reason="r") for one in ("u", "t"))
    concluded = shown(9, "ev.decide.concluded", Concluded(jobs=ended, **stamp))
    assert isinstance(concluded, Concluded)
    assert concluded.jobs == ended[1:]
    assert shown(10, "ev.decide.concluded", Concluded(jobs=ended[:1], **stamp)) is None
