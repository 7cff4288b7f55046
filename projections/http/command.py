"""The command api: the HTTP service, in one process or several over one socket."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import time
from collections import deque
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from eventsched.cli.common import BIG, Where, number
from eventsched.earlier import tell_replaced
from eventsched.errors import EventschedError, SettingsError
from eventsched.garbage import collect_rarely
from eventsched.log.link import LinkOptions
from eventsched.nats_server import die_with_parent
from eventsched.projections.http.auth import Gate, read_tokens
from eventsched.projections.http.desk import Desk, Limits
from eventsched.projections.http.server import bind, serve
from eventsched.settings import link_options
from eventsched.telemetry import configure_logging

DEFAULT_PORT = 8000
WORKERS_MAX = 64
DEATHS_MAX = 5
DEATHS_WITHIN_S = 60.0
_TOLD = (signal.SIGINT, signal.SIGTERM)


def api(
    *,
    host: Annotated[str, Parameter(env_var="SCHEDULER_API_HOST", help="address to listen on")] = "127.0.0.1",
    port: Annotated[
        int, number(0, 65_535), Parameter(env_var="SCHEDULER_API_PORT", help="port to listen on; 0 = any")
    ] = DEFAULT_PORT,
    tokens: Annotated[
        Path | None, Parameter(help="file of bearer tokens; needed unless only this machine can connect")
    ] = None,
    trust_loopback: Annotated[
        bool, Parameter(negative=(), help="with --tokens: a request of this machine needs none")
    ] = False,
    workers: Annotated[int, number(1, WORKERS_MAX), Parameter(help="processes that share the port")] = 1,
    pending_limit: Annotated[
        int, number(1, BIG), Parameter(help="submissions are refused (429) while so many jobs are live")
    ] = 1_000_000,
    listen_fd: Annotated[int, Parameter(show=False)] = -1,
    log_json: Annotated[bool, Parameter(negative=())] = False,
    log_level: str = "info",
    where: Where = Where(),
) -> int:
    """Serve HTTP: jobs, nodes, events; for people, programs and clients of earlier schedulers. See /schema."""
    configure_logging(json=log_json, level=log_level)
    tell_replaced()
    local = _is_loopback(host)
    if tokens is None and not local:
        raise SettingsError(
            f"--host {host}: other machines can reach it, and there are no tokens",
            "write a file of tokens and give it with --tokens; or listen on 127.0.0.1",
        )
    gate = Gate(read_tokens(tokens) if tokens else [], open_on_loopback=local and (tokens is None or trust_loopback))
    limits = Limits(pending=pending_limit)
    options = link_options(where.nats)
    listener = _inherited(listen_fd) if listen_fd >= 0 else bind(host, port)
    shown, number_ = listener.getsockname()[:2]
    print(f"eventsched api listens on http://{f'[{shown}]' if ':' in shown else shown}:{number_}", flush=True)
    if workers == 1:
        _work(options, listener, gate, Desk(limits))
        return 0
    return _Workers(options, listener, gate, limits, workers).run()


def _inherited(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise SettingsError(f"--listen-fd {descriptor}: {error.strerror}", "it is of a socket that listens") from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _work(options: LinkOptions, listener: socket.socket, gate: Gate, desk: Desk) -> None:
    import uvloop

    collect_rarely()

    async def until_told() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for one in _TOLD:
            loop.add_signal_handler(one, stop.set)
        await serve(options, listener, gate, desk, stop)

    uvloop.run(until_told())


class Deaths:
    """Counts deaths of late: workers that keep dying are no use, those that die now and then are replaced."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._at_s: deque[float] = deque()

    def too_many(self, now_s: float) -> bool:
        """True when with the one of this moment more have died within a minute than should."""
        self._at_s.append(now_s)
        while now_s - self._at_s[0] > DEATHS_WITHIN_S:
            self._at_s.popleft()
        return len(self._at_s) > self._most


class _Workers:
    """Processes over one socket; one that dies is replaced, unless they keep dying."""

    def __init__(self, options: LinkOptions, listener: socket.socket, gate: Gate, limits: Limits, count: int) -> None:
        self._arguments = options, listener, gate
        self._limits = limits
        self._fork = multiprocessing.get_context("fork")
        self._ready = self._fork.Array("b", count, lock=False)
        self._deaths = Deaths(DEATHS_MAX * count)
        self._pid = os.getpid()
        self._told = self._fork.Array("b", 1, lock=False)
        self._alive: dict[int, BaseProcess] = {}

    def run(self) -> int:
        """Run until told to stop. Raises EventschedError when workers cannot live."""
        for one in _TOLD:
            signal.signal(one, self._stop)
        for index in range(len(self._ready)):
            self._start(index)
        while self._alive:
            multiprocessing.connection.wait([process.sentinel for process in self._alive.values()])
            for index in [index for index, process in self._alive.items() if not process.is_alive()]:
                del self._alive[index]
                if not self._told[0] and self._deaths.too_many(time.monotonic()):
                    self._stop()
                    raise EventschedError("workers keep dying", "see what they said above")
                self._start(index)
        return 0

    def _start(self, index: int) -> None:
        if self._told[0]:
            return
        self._ready[index] = 0
        process = self._fork.Process(target=self._child, args=(index,))
        process.start()
        self._alive[index] = process
        if self._told[0]:  # told so while it was being made, when it was not known yet
            self._stop()

    def _child(self, index: int) -> None:
        for one in _TOLD:
            signal.signal(one, signal.SIG_DFL)
        if self._told[0]:  # Python forgets a signal that comes to a fork before it is one
            os._exit(0)
        die_with_parent()

        def others_ready() -> bool:
            self._ready[index] = 1
            return all(self._ready)

        _work(*self._arguments, Desk(self._limits, others_ready))

    def _stop(self, *_: object) -> None:
        if os.getpid() != self._pid:  # a child that has not yet put off its parent's handlers
            os._exit(0)
        self._told[0] = 1
        for process in self._alive.values():
            if process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
