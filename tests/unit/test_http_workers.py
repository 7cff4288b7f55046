"""How the processes of the HTTP service end: when they are told to, and when they are given up."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from eventsched.client import Client
from eventsched.log.link import LinkOptions
from eventsched.projections.http.auth import Gate
from eventsched.projections.http.command import DEATHS_WITHIN_S, Deaths
from eventsched.projections.http.desk import Desk
from eventsched.projections.http.server import bind, serve


def test_workers_that_keep_dying_are_given_up_and_those_that_die_now_and_then_are_not() -> None:
    keep_dying = Deaths(2)
    assert [keep_dying.too_many(float(at_s)) for at_s in range(4)] == [False, False, True, True]
    now_and_then = Deaths(2)
    assert not any(now_and_then.too_many(at * DEATHS_WITHIN_S * 0.4) for at in range(0, 1_000, 2))


async def test_it_stops_while_it_connects_though_its_first_cancellation_is_swallowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connecting = asyncio.Event()

    async def connect(**_: object) -> Client:
        connecting.set()
        with contextlib.suppress(asyncio.CancelledError):  # as asyncio.wait_for may on Python 3.11
            await asyncio.Event().wait()
        await asyncio.Event().wait()
        raise AssertionError("never")

    monkeypatch.setattr(Client, "connect", connect)
    stop, listener = asyncio.Event(), bind("127.0.0.1", 0)
    options = LinkOptions("nats://127.0.0.1:9")
    serving = asyncio.ensure_future(serve(options, listener, Gate([], open_on_loopback=True), Desk(), stop))
    await asyncio.wait_for(connecting.wait(), 10)
    stop.set()
    await asyncio.wait_for(serving, 10)
