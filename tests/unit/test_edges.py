"""What people type at the edges: ids, units, settings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from eventsched import ids, new_ids, units
from eventsched.errors import EventschedError, InvalidSpec
from eventsched.log.matching import matches
from eventsched.settings import link_options
from eventsched.visible import visible, visible_json


@pytest.mark.parametrize("text", ["a", "A1", "job-1", "x" * 64, "0_0"])
def test_ids(text: str) -> None:
    assert ids.is_id(text)


@pytest.mark.parametrize("text", ["", "-a", "_a", "a.b", "a b", "x" * 65, "é", "a/b", "a\n"])
def test_not_ids(text: str) -> None:
    assert not ids.is_id(text)


def test_members_of_arrays() -> None:
    assert ids.split_member("a.5") == ("a", 5)
    for text in ("a", "a.", "a.05", "a.5.6", ".5", "a.-1"):
        assert ids.split_member(text) is None


def test_host_names_become_ids() -> None:
    assert ids.id_from_host_name("gpu-1.example.org") == "gpu-1-example-org"
    assert ids.is_id(ids.id_from_host_name("...")), "always an id"


def test_new_ids_are_ids_and_differ() -> None:
    made = [new_ids.new_job_id("my job!") for _ in range(1000)] + [new_ids.new_job_id() for _ in range(1000)]
    assert all(ids.is_id(one) for one in made)
    assert len(dict.fromkeys(made)) == 2000
    assert made[0].startswith("my-job-")


def test_ulids_sort_by_time() -> None:
    made = [new_ids.new_ulid()[:10] for _ in range(50)]
    assert made == sorted(made)


def test_memory() -> None:
    assert units.parse_memory("512M") == 512 * 1024**2
    assert units.parse_memory("1.5GiB") == 1536 * 1024**2
    for text in ("512", "4X", "", "-1G", "M"):
        with pytest.raises(InvalidSpec, match="memory"):
            units.parse_memory(text)


def test_durations() -> None:
    assert units.parse_duration_ms("1h30m") == 5_400_000
    assert units.parse_duration_ms("250ms") == 250
    assert units.parse_duration_ms("1.5s") == 1_500
    for text in ("10", "", "1x", "h", "1h 30m", "-1s", "3651d", "99999999999999999999d", "\u0661s"):
        with pytest.raises(InvalidSpec, match="duration"):
            units.parse_duration_ms(text)


def test_cpus_and_gpus() -> None:
    assert units.parse_cpus_millis("0.5") == 500
    for text in ("0", "-1", "abc", "0.0001", "nan", "inf", "1e9", "1e999999999", "\u0662"):
        with pytest.raises(InvalidSpec, match="cpus"):
            units.parse_cpus_millis(text)
    assert units.parse_gpus("A100:2") == ("A100", 2)
    assert units.parse_gpus("3") == ("", 3)
    assert units.parse_gpus("H100") == ("H100", 1)
    for text in ("A100:", ":2", "A100:x", "-1", "1.5", "A100:-1", "²", "", "-A100:1"):
        with pytest.raises(InvalidSpec, match="gpus"):
            units.parse_gpus(text)


@pytest.mark.parametrize(
    ("job_id", "drawn"),
    [
        ("train10", -1),
        ("train-12345678", -1),
        ("train-7k3m9x2p", 6),
        ("a-b-7k3m9x2p", 4),
        ("-7k3m9x2p", -1),
        ("01m810jeag9p5fae0dvy11perq", 0),
        ("zzzzzzzzzzzzzzzzzzzzzzzzzz", -1),
    ],
)
def test_which_ids_were_made_and_where_their_drawn_part_begins(job_id: str, drawn: int) -> None:
    assert new_ids.drawn_from(job_id) == drawn


def test_every_made_id_is_recognised() -> None:
    for name in ("", "x", "my job!", "ends-", "a" * 80, "___"):
        for _ in range(50):
            made = new_ids.new_job_id(name)
            drawn = new_ids.drawn_from(made)
            assert drawn >= 0 or made[-8:].isdigit()
            assert len(made) - drawn in (8, 26) or drawn < 0


def test_hidden_characters_are_shown() -> None:
    assert visible("a\tb\n\x1b[0m\x7f\x9b\u202e\u200d\udcff é 漢") == (r"a\tb\n\x1b[0m\x7f\x9b\u202e\u200d\udcff é 漢")
    shown = visible_json(json.dumps({"a\x9b": "\u202e\n"}, ensure_ascii=False, indent=1))
    assert json.loads(shown) == {"a\x9b": "\u202e\n"}
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_formats() -> None:
    assert units.format_bytes(1536 * 1024**2) == "1.5G"
    assert units.format_bytes(0) == "-"
    assert units.format_cpus(1500) == "1.5"
    assert [units.format_ms(ms) for ms in (5, 1_500, 65_000, 3_660_000, 90_000_000)] == [
        "5ms",
        "1.5s",
        "1m05s",
        "1h01m",
        "1d01h",
    ]


def test_the_server_is_found_by_url_then_environment_then_dev_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert link_options(None, {}).url == "nats://127.0.0.1:4222"
    (tmp_path / ".eventsched").mkdir()
    state = {"pid": os.getpid(), "nats": "nats://127.0.0.1:5555"}
    (tmp_path / ".eventsched" / "dev.json").write_text(json.dumps(state))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert link_options(None, {}).url == "nats://127.0.0.1:5555", "also from a directory below"
    assert link_options(None, {"EVENTSCHED_NATS": "nats://e:1"}).url == "nats://e:1"
    assert link_options("nats://u:1", {"EVENTSCHED_NATS": "nats://e:1"}).url == "nats://u:1"
    (tmp_path / ".eventsched" / "dev.json").write_text(json.dumps({**state, "pid": 2**22 + 1}))
    assert link_options(None, {}).url == "nats://127.0.0.1:4222", "a dead dev is none"
    (tmp_path / ".eventsched" / "dev.json").write_text("{")
    assert link_options(None, {}).url == "nats://127.0.0.1:4222"


def test_credentials_come_from_the_environment() -> None:
    options = link_options("nats://x:1", {"EVENTSCHED_NATS_USER": "u", "EVENTSCHED_NATS_PASSWORD": "p"})
    assert (options.user, options.password) == ("u", "p")


def test_errors_carry_a_hint() -> None:
    error = EventschedError("what", "how")
    assert (str(error), error.hint) == ("what", "how")


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("ev.>", "ev.a", True),
        ("ev.>", "ev", False),
        ("ev.*.x", "ev.a.x", True),
        ("ev.*.x", "ev.a.b.x", False),
        ("ev.a", "ev.a", True),
        ("ev.a", "ev.a.b", False),
    ],
)
def test_subject_wildcards(pattern: str, subject: str, fits: bool) -> None:
    assert matches(pattern, subject) is fits
