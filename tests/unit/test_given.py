"""What is given to commands, services and the SDK at the edge of what can be used, and what they show of it."""

from __future__ import annotations

import os
from datetime import datetime, time, timedelta
from pathlib import Path

import pytest
import structlog.testing

from eventsched.agents import spot
from eventsched.agents.lease import keep_fenced, note_fenced, read_fenced
from eventsched.agents.settings import AgentSettings
from eventsched.cli.tables import clock
from eventsched.dev.config import read_config
from eventsched.dev.health import TOKEN_FILE, dev_token
from eventsched.errors import InvalidSpec, NoServer, SettingsError
from eventsched.log.credentials import server_urls, without_secrets
from eventsched.log.link import LinkOptions, connect
from eventsched.settings import usable_data
from eventsched.tenancy import policy_event

# ---- secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("urls", "shown"),
    [
        ("nats://h:1", "nats://h:1"),
        ("nats://me:hush@h:1", "nats://h:1"),
        ("tls://hush@h:1,nats://me:hu:sh@i:2,j", "tls://h:1,nats://i:2,j"),
        ("me:hu@sh@h:1", "h:1"),
        ("nats://me:hu/sh\n@h:1", "nats://h:1"),
        ("nats://me:hu,sh@h", "…"),
    ],
)
def test_urls_are_shown_without_what_is_secret_in_them(urls: str, shown: str) -> None:
    assert without_secrets(urls) == shown
    assert "hush" not in repr(LinkOptions(url=urls, password="hush", token="hush"))


async def test_errors_do_not_show_what_is_secret() -> None:
    with pytest.raises(NoServer, match=r"nats://127\.0\.0\.1:1 ") as refused:
        await connect(LinkOptions(url="nats://me:hush@127.0.0.1:1", connect_timeout_s=1), "t")
    assert "hush" not in refused.value.message
    for text in ("http://me:hush@h:1", "nats://h:1,nats://me:hush@h:x", "nats://me:hu,sh@h"):
        with pytest.raises(SettingsError, match="one of the URLs given is no URL") as wrong:
            server_urls(text)
        assert not [part for part in ("me", "hu,", "sh@") if part in wrong.value.message.removeprefix("one of the")]
    with pytest.raises(SettingsError, match="'http://h' is no URL"):
        server_urls("http://h")


# ---- times --------------------------------------------------------------------------------------


def test_times_of_other_days_have_their_date() -> None:
    def shown(days: int, at: time) -> str:
        return clock(int(datetime.combine(datetime.now().date() + timedelta(days), at).timestamp() * 1000))

    late, early = time(23, 59, 59), time(0, 0, 1)
    assert [len(shown(0, at)) for at in (early, late)] == [8, 8]
    assert [len(shown(days, at)) for days, at in ((-1, late), (1, early), (30, early))] == [16, 16, 16]
    assert clock(2**53 - 1) == str(2**53 - 1)
    assert clock(None) == "-"


# ---- policies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2**53 + 1, -(2**60), 10**19, 1.5, None])
def test_a_parameter_that_no_event_can_carry_is_named(value: object) -> None:
    with pytest.raises(InvalidSpec, match="sweep_every"):
        policy_event("fifo", {"preempt": 1, "sweep_every": value})


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("fence_after_ms", "fits"), [(14_999, False), (15_000, True)])
def test_the_lease_outlasts_a_lost_heartbeat(tmp_path: Path, fence_after_ms: int, fits: bool) -> None:
    settings = AgentSettings(data=tmp_path, heartbeat_ms=5_000, fence_after_ms=fence_after_ms)
    if fits:
        settings.check()
    else:
        with pytest.raises(SettingsError, match="three heartbeats"):
            settings.check()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[tenants.x]\ntenant = "y"\n', "tenants.x.tenant"),
        (f"x = {'[' * 3_000}{']' * 3_000}\n", "nested"),
        ("[tenants.x]\nself = 1\n", "self"),
    ],
)
def test_a_dev_config_that_cannot_be_used_names_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "dev.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        read_config(path)


def test_a_token_is_drawn_once_and_read_as_the_service_reads_it(tmp_path: Path) -> None:
    token = dev_token(tmp_path)
    assert dev_token(tmp_path) == token
    assert os.stat(tmp_path / TOKEN_FILE).st_mode & 0o777 == 0o600
    (tmp_path / TOKEN_FILE).write_text("[[token]]\ntoken = 'one-of-my-own-choice'\n")
    assert dev_token(tmp_path) == "one-of-my-own-choice"
    for text in ("", "token = 'x'", "[[token]]\nrole = 'viewer'\n", "["):
        (tmp_path / TOKEN_FILE).write_text(text)
        with pytest.raises(SettingsError, match=TOKEN_FILE):
            dev_token(tmp_path)


def test_a_token_s_file_is_never_there_without_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dev that was killed between making the file and writing it never started again."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(Path, "write_text", killed)
        dev_token(tmp_path)
    assert dev_token(tmp_path)


@pytest.mark.parametrize("data", ["file", "file/below", "/proc/nowhere"])
def test_a_data_directory_that_cannot_be_used_is_a_wrong_setting(tmp_path: Path, data: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / data
    with pytest.raises(SettingsError, match=f"--data: {path} "), usable_data(path):
        path.mkdir(parents=True, exist_ok=True)


# ---- agents -------------------------------------------------------------------------------------


async def test_a_spot_file_that_cannot_be_looked_at_is_said_once_and_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spot, "LOOK_EVERY_S", 0.01)
    command = ("sh", "-c", f"echo >>{tmp_path}/asked; test $(wc -l <{tmp_path}/asked) -ge 3")
    with structlog.testing.capture_logs() as said:
        assert await spot.notice("x" * 300, command) == "command sh"
    assert [(line["event"], line["log_level"]) for line in said] == [("spot_file_not_seen", "error")]


def test_what_the_leash_noted_is_forgotten_with_the_runs(tmp_path: Path) -> None:
    assert read_fenced(tmp_path) == {}
    note_fenced(tmp_path, [1, 2, 3])
    note_fenced(tmp_path, [3, 4])
    assert read_fenced(tmp_path) == dict.fromkeys((1, 2, 3, 4))
    assert keep_fenced(tmp_path, [2, 4, 5]) == {2: None, 4: None}
    assert read_fenced(tmp_path) == {2: None, 4: None}
