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
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from eventsched.cli.common import BIG, Where, number
from eventsched.errors import EventschedError, SettingsError
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

    async def until_told() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(one, stop.set)
        await serve(options, listener, gate, desk, stop)

    uvloop.run(until_told())


class _Workers:
    """Processes over one socket; one that dies is replaced, unless all die at once."""

    def __init__(self, options: LinkOptions, listener: socket.socket, gate: Gate, limits: Limits, count: int) -> None:
        self._arguments = options, listener, gate
        self._limits = limits
        self._fork = multiprocessing.get_context("fork")
        self._ready = self._fork.Array("b", count, lock=False)
        self._stopping = False
        self._alive: dict[int, BaseProcess] = {}

    def run(self) -> int:
        """Run until told to stop. Raises EventschedError when workers cannot live."""
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self._stop)
        for index in range(len(self._ready)):
            self._start(index)
        deaths = 0
        while self._alive:
            multiprocessing.connection.wait([process.sentinel for process in self._alive.values()])
            for index in [index for index, process in self._alive.items() if not process.is_alive()]:
                del self._alive[index]
                deaths += 1
                if self._stopping:
                    continue
                if deaths > DEATHS_MAX * len(self._ready):
                    self._stop()
                    raise EventschedError("workers keep dying", "see what they said above")
                self._start(index)
        return 0

    def _start(self, index: int) -> None:
        self._alive[index] = self._fork.Process(target=self._child, args=(index,))
        self._alive[index].start()

    def _child(self, index: int) -> None:
        die_with_parent()

        def others_ready() -> bool:
            self._ready[index] = 1
            return all(self._ready)

        _work(*self._arguments, Desk(self._limits, others_ready))

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for process in self._alive.values():
            if process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
