"""The streams: what they must be, how they are made, and what is refused.

    EV    the log; immutable, unlimited, one total order
    HB    heartbeats; kept 7 days within a byte limit, never folded
    LOGS  job output; bounded
    SNAP  snapshots (an object store bucket); disposable
    LEASE a key with a time to live: a hint when to claim the lead

A stream that exists is compared, not updated: whoever changed it had a reason, and some
differences endanger the promises.
"""

from __future__ import annotations

from typing import Any

import msgspec
import nats.errors

from eventsched.errors import NoServer, StreamMismatch
from eventsched.log.link import Link
from eventsched.subjects import EV_ALL, HB_ALL, LOGS_ALL, admin

EV, HB, LOGS = "EV", "HB", "LOGS"
SNAP_BUCKET = "SNAP"
LEASE_BUCKET = "LEASE"
CREATED_SUBJECT = admin("cluster_created")
API_LEVEL_MIN = 4
NANOS = 1_000_000_000
DAY = 86_400 * NANOS

_EXISTS = {10058, 10065}
_NOT_FOUND = 10059


def ev_config(replicas: int) -> dict[str, Any]:
    """EV as it is created: file storage, no compression (on R3 it lost whole logs), no limits."""
    return {
        "name": EV,
        "description": "eventsched: the log; immutable",
        "subjects": [EV_ALL],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "compression": "none",
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "deny_delete": True,
        "deny_purge": True,
        "allow_atomic": True,
        "allow_direct": True,
        "duplicate_window": 600 * NANOS,
    }


def hb_config(replicas: int) -> dict[str, Any]:
    """HB: every heartbeat is a message, kept for a week within 512 MiB."""
    return {
        "name": HB,
        "description": "eventsched: heartbeats",
        "subjects": [HB_ALL],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": replicas,
        "max_age": 7 * DAY,
        "max_bytes": 512 * 1024 * 1024,
        "allow_direct": True,
        "duplicate_window": 60 * NANOS,
    }


def logs_config(replicas: int) -> dict[str, Any]:
    """LOGS: output of runs, the oldest goes when a week or 4 GiB are over."""
    return {
        "name": LOGS,
        "description": "eventsched: output of runs",
        "subjects": [LOGS_ALL],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": replicas,
        "max_age": 7 * DAY,
        "max_bytes": 4 * 1024 * 1024 * 1024,
        "allow_direct": True,
        "duplicate_window": 600 * NANOS,
    }


class _Reply(msgspec.Struct):
    error: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    api: dict[str, Any] | None = None


async def api(link: Link, verb: str, body: Any = None) -> _Reply:
    """One call of JetStream's JSON API; NoServer when the server has no JetStream, or is away."""
    payload = b"" if body is None else msgspec.json.encode(body)
    try:
        raw = await link.request(f"$JS.API.{verb}", payload)
    except TimeoutError as error:
        raise NoServer(f"JetStream at {link.url} does not answer", "check the server's log") from error
    except nats.errors.NoRespondersError as error:
        raise NoServer(f"the NATS server at {link.url} runs without JetStream", "start it with JetStream on") from error
    except nats.errors.Error as error:  # the connection is away: nats-py gives up at once
        raise NoServer(
            f"the NATS server at {link.url} cannot be reached at present", "try again in a moment"
        ) from error
    return msgspec.json.decode(raw, type=_Reply)


async def ensure_streams(link: Link, replicas: int, created: bytes) -> None:
    """Make the streams that are missing, write the log's first event, verify what exists.

    created: the payload of `cluster.created`, used if the log is new. Until it stands there EV
    accepts no other subject, so nothing can come before it.
    """
    info = await api(link, "INFO")
    level = (info.api or {}).get("level", 0)
    if level < API_LEVEL_MIN:
        raise NoServer(f"the NATS server at {link.url} is too old (API level {level})", "use nats-server 2.15 or newer")
    config = ev_config(replicas)
    found = await api(link, f"STREAM.INFO.{EV}")
    if found.error and found.error.get("err_code") == _NOT_FOUND:
        await _create(link, {**config, "subjects": [CREATED_SUBJECT]})
        found = await api(link, f"STREAM.INFO.{EV}")
    if found.config is None:
        raise NoServer(f"stream {EV} at {link.url} does not answer: {found.error}")
    if found.config.get("subjects") == [CREATED_SUBJECT]:
        await _write_created(link, created)
        opened = await api(link, f"STREAM.UPDATE.{EV}", config)
        if opened.error:
            raise StreamMismatch(f"stream {EV} cannot be opened: {opened.error.get('description')}")
    await verify_ev(link)
    for other in (hb_config(replicas), logs_config(replicas)):
        missing = await api(link, f"STREAM.INFO.{other['name']}")
        if missing.error and missing.error.get("err_code") == _NOT_FOUND:
            await _create(link, other)


async def _create(link: Link, config: dict[str, Any]) -> None:
    reply = await api(link, f"STREAM.CREATE.{config['name']}", config)
    if reply.error and reply.error.get("err_code") not in _EXISTS:
        raise StreamMismatch(
            f"stream {config['name']} cannot be made at {link.url}: {reply.error.get('description')}",
            "the scheduler's user needs $JS.API.STREAM.> and room in the store",
        )


async def _write_created(link: Link, created: bytes) -> None:
    """Lose the race quietly: whoever wrote the first event, it is there."""
    raw = await link.request(CREATED_SUBJECT, created, headers={"Nats-Expected-Last-Sequence": "0"})
    reply = msgspec.json.decode(raw, type=_Reply)
    if reply.error and reply.error.get("err_code") != 10071:
        raise StreamMismatch(f"the log's first event cannot be written: {reply.error.get('description')}")


_MUST_BE: tuple[tuple[str, Any, str], ...] = (
    ("storage", "file", "events must survive a restart"),
    ("retention", "limits", "events must stay after they are read"),
    ("discard", "new", "a full store must refuse, not forget"),
    ("deny_delete", True, "events must not be deleted"),
    ("deny_purge", True, "events must not be purged"),
    ("allow_atomic", True, "rounds are atomic batches"),
    ("allow_direct", True, "readers look events up directly"),
)
_NO_LIMIT = ("max_msgs", "max_bytes", "max_msgs_per_subject", "max_age")
_MUST_BE_ABSENT = ("allow_msg_ttl", "allow_rollup_hdrs", "subject_transform", "mirror", "sources", "sealed")


async def verify_ev(link: Link) -> dict[str, Any]:
    """EV's configuration; StreamMismatch naming every difference that endangers the promises."""
    found = await api(link, f"STREAM.INFO.{EV}")
    if found.config is None:
        raise NoServer(
            f"the NATS server at {link.url} has no eventsched log (no stream {EV})",
            "start a scheduler there, or name another server with --nats or EVENTSCHED_NATS",
        )
    if found.config.get("subjects") == [CREATED_SUBJECT]:
        raise NoServer(f"the log at {link.url} is just being made by a scheduler", "try again in a moment")
    wrong = differences(found.config)
    if wrong:
        raise StreamMismatch(
            f"stream {EV} at {link.url} endangers the log: {'; '.join(wrong)}",
            "restore its configuration, or point eventsched at another NATS account",
        )
    return found.config


def differences(config: dict[str, Any]) -> list[str]:
    """What about an EV configuration endangers the promises, in words."""
    wrong = [
        f"{name} is {config.get(name)!r}, must be {value!r}: {why}"
        for name, value, why in _MUST_BE
        if config.get(name, False if value is True else None) != value
    ]
    wrong += [
        f"{name} is {config[name]}: the log must not be trimmed" for name in _NO_LIMIT if config.get(name, -1) > 0
    ]
    wrong += [f"{name} is set: it changes or loses events" for name in _MUST_BE_ABSENT if config.get(name)]
    if config.get("subjects") != [EV_ALL]:
        wrong.append(f"subjects are {config.get('subjects')}, must be ['{EV_ALL}']")
    if config.get("compression", "none") != "none" and config.get("num_replicas", 1) > 1:
        wrong.append("compression with replicas: killing single servers has lost the whole log")
    if config.get("duplicate_window", 0) < 120 * NANOS:
        wrong.append(f"duplicate_window is {config.get('duplicate_window')} ns, must be at least two minutes")
    return wrong
