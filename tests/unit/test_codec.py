"""Any bytes under any subject decode to something, and the something is stable."""

from __future__ import annotations

import json

import pytest

from eventsched import codec
from eventsched.events import AbortRequested, RunAssigned
from eventsched.events.catalogue import EXAMPLES
from eventsched.recorded import Unreadable
from eventsched.spec import JobSpec
from eventsched.wire import Event

SUBMIT = "ev.job.acme.j1.submitted"


@pytest.mark.parametrize(("subject", "event"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_example_survives_the_wire(subject: str, event: Event) -> None:
    assert codec.decode(subject, codec.encode(event)) == event


def test_the_hand_typed_job_is_a_job() -> None:
    event = codec.decode(SUBMIT, b'{"image":"busybox","command":["echo","hi"]}')
    assert event == JobSpec(image="busybox", command=("echo", "hi"))


BAD_SUBMISSIONS: list[tuple[bytes, str, str]] = [
    (b"{", "undecodable", ""),
    (b"[]", "wrong_type", ""),
    (b"null", "wrong_type", ""),
    (b'"text"', "wrong_type", ""),
    (b"\xff\xfe", "undecodable", ""),
    (b'{"image":"\xff"}', "undecodable", ""),
    (b'\xef\xbb\xbf{"image":"busybox"}', "undecodable", ""),
    (b'{"image":"\\ud800"}', "undecodable", ""),
    (b'{"imge":"busybox"}', "unknown_field", "imge"),
    (b'{"image":7}', "wrong_type", "image"),
    (b'{"image":"x","command":"echo hi"}', "wrong_type", "command"),
    (b'{"command":["a",1]}', "wrong_type", "command[1]"),
    (b'{"resources":{"cpu_millis":"2"}}', "wrong_type", "resources.cpu_millis"),
    (b'{"resources":{"cpu_millis":1.5}}', "wrong_type", "resources.cpu_millis"),
    (b'{"resources":{"cpus":2}}', "unknown_field", "resources.cpus"),
    (b'{"priority":' + b"9" * 30 + b"}", "out_of_range", "priority"),
    (b'{"priority":' + b"9" * 5000 + b"}", "undecodable", ""),
    (b'{"priority":1e400}', "undecodable", ""),
    (b'{"priority":true}', "wrong_type", "priority"),
    (b'{"priority":NaN}', "undecodable", ""),
    (b'{"driver":"vm"}', "bad_value", "driver"),
    (b'{"env":{"A":1}}', "wrong_type", "env.A"),
    (b'{"volumes":[{"source":"/a"}]}', "missing_field", "volumes[0].target"),
    (b'{"fake":{"speed":1}}', "unknown_field", "fake.speed"),
    (b'{"labels":' + b"[" * 100 + b"]" * 100 + b"}", "too_deep", ""),
    (b"[" * 100_000, "too_deep", ""),
    (b'{"image":"' + b"x" * (codec.PAYLOAD_MAX + 1) + b'"}', "too_large", ""),
]


@pytest.mark.parametrize(("payload", "code", "field"), BAD_SUBMISSIONS, ids=lambda value: str(value)[:40])
def test_bad_submissions_name_their_fault(payload: bytes, code: str, field: str) -> None:
    assert codec.decode(SUBMIT, payload) == Unreadable(code=code, field=field)


def test_brackets_inside_strings_are_not_nesting() -> None:
    text = "[" * 200 + '\\"' + "{" * 200
    event = codec.decode(SUBMIT, json.dumps({"image": "x", "command": [text]}).encode())
    assert isinstance(event, JobSpec)
    assert event.command == (text,)


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        ("ev.job.acme.j1.dance", "unknown_verb"),
        ("ev.job.acme.-j1.submitted", "bad_id"),
        ("ev.job.ac me.j1.submitted", "bad_id"),
        ("ev.job.acme.a1.5.submitted", "bad_subject"),
        ("ev.job." + "x" * 65 + ".j1.submitted", "bad_id"),
        ("ev.job.acme.j1", "bad_subject"),
        ("ev.admin.revolution", "unknown_verb"),
        ("ev.node.n1.extra", "bad_subject"),
        ("ev.run._x", "bad_subject"),
        ("ev.weather", "bad_subject"),
        ("elsewhere", "bad_subject"),
        ("", "bad_subject"),
    ],
)
def test_bad_subjects(subject: str, code: str) -> None:
    assert codec.decode(subject, b"{}") == Unreadable(code=code)


def test_an_empty_payload_is_an_empty_object_for_what_people_type() -> None:
    assert codec.decode("ev.job.acme.j1.abort_requested", b"") == AbortRequested()
    assert codec.decode("ev.run.n1", b"") == Unreadable(code="undecodable")


def test_an_unknown_event_of_the_leader_says_whose_it_is() -> None:
    assert codec.decode("ev.assign.n1", b'{"type":"run.frozen","epoch":7}') == Unreadable(code="unknown_event", epoch=7)
    assert codec.decode("ev.decide.poetry", b'{"epoch":7}') == Unreadable(code="unknown_event", epoch=7)
    assert codec.decode("ev.decide.poetry", b"rhyme") == Unreadable(code="undecodable")


def test_fields_of_a_newer_version_are_read_over_in_decisions() -> None:
    payload = b'{"type":"run.assigned","epoch":1,"session":2,"tenant":"t","job":"j","colour":"red"}'
    assert isinstance(codec.decode("ev.assign.n1", payload), RunAssigned)


def test_readers_are_bounded_whatever_subjects_come() -> None:
    for index in range(codec._READERS_MAX + 50):
        codec.decode(f"ev.run.node{index}", b"{}")
    assert len(codec._READERS) <= codec._READERS_MAX
