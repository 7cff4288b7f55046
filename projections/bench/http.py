"""bench http: submissions and reads a second over HTTP, from keep-alive connections, with wrk as the load."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
from cyclopts import Parameter

from eventsched.bench import BenchCluster
from eventsched.cli.common import number, print_json
from eventsched.client import Client
from eventsched.errors import EventschedError, SettingsError
from eventsched.nats_server import free_port
from eventsched.telemetry import configure_logging

SUBMIT_LUA = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"image":"busybox","command":["echo","hi"]}'
"""
PAUSE_LUA = "function delay() return %d end\n"
UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
FOLLOWERS = 100
WARM_UP_S = 2
FIXED_PAUSE_MS = 60
"""Of each of 64 connections, between two jobs: about a thousand jobs a second."""
ROWS = 100_000


async def http(
    *,
    seconds: Annotated[int, number(1, 600), Parameter(help="of each measurement")] = 8,
    workers: Annotated[int, number(1, 64), Parameter(help="processes of the service")] = 1,
) -> None:
    """Submit and read over HTTP as fast as it goes; the load generator has a core of its own."""
    configure_logging(level="error")
    if shutil.which("wrk") is None:
        raise SettingsError("wrk is not installed", "it is in most distributions: apt-get install wrk")
    async with BenchCluster() as cluster:
        load = _Load(cluster, seconds)
        cluster.spawn("scheduler", "scheduler", "--name", "bench")
        api = cluster.spawn("api", "api", "--port", str(load.port), "--workers", str(workers), role="operator")
        client = await cluster.client(0)
        try:
            await load.ready()
            load.pin_apart()
            print_json(await _measure(load, client, cluster.processes["scheduler"].pid, workers))
        finally:
            await client.close()
        if api.poll() is not None:
            raise EventschedError("the service ended", f"see {cluster.directory}/api.log")


async def _measure(load: _Load, client: Client, scheduler: int, workers: int) -> dict[str, Any]:
    submit = load.script("submit", SUBMIT_LUA)
    await load.run(64, submit, seconds=WARM_UP_S)
    found: dict[str, Any] = {}
    for connections in (64, 16):
        full = await load.run(connections, submit)
        pause_ms = max(1, round(1.5 * 1000 * connections / full["per_s"]))
        half = await load.run(connections, load.script(f"half-{connections}", SUBMIT_LUA + PAUSE_LUA % pause_ms))
        found |= {
            f"submits_per_s_{connections}": full["per_s"],
            f"submit_p99_ms_{connections}": full["p99_ms"],
            f"half_load_per_s_{connections}": half["per_s"],
            f"half_load_p99_ms_{connections}": half["p99_ms"],
        }
    job = await client.submit(image="busybox", hold=True)
    reads = await load.run(64, path=f"/jobs/{job.job_id}?min_seq={job.seq}")
    found |= {"reads_per_s_64": reads["per_s"], "read_p99_ms_64": reads["p99_ms"]}
    found |= await _with_followers(load, scheduler)
    found |= await _ingest(load.port)
    return found | {
        "workers": workers,
        "load_generator": await load.generator(),
        "pinned": load.pinned,
        "cores": os.cpu_count(),
        "machine_load": round(os.getloadavg()[0], 1),
    }


async def _with_followers(load: _Load, scheduler: int) -> dict[str, Any]:
    """The leader's CPU for a job under one fixed load: alone, with followers, and alone again."""
    fixed = load.script("fixed", SUBMIT_LUA + PAUSE_LUA % FIXED_PAUSE_MS)
    before_us = await _leader_us(load, scheduler, fixed)
    followers = [asyncio.ensure_future(_follow(load.port)) for _ in range(FOLLOWERS)]
    await asyncio.sleep(WARM_UP_S)
    followed_us = await _leader_us(load, scheduler, fixed)
    for one in followers:
        one.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    after_us = await _leader_us(load, scheduler, fixed)
    return {
        "leader_us_per_job": [before_us, after_us],
        f"leader_us_per_job_{FOLLOWERS}_followers": followed_us,
    }


async def _leader_us(load: _Load, scheduler: int, script: Path) -> float:
    """CPU time of the leader for each job submitted, in microseconds."""
    before = sum(psutil.Process(scheduler).cpu_times()[:2])
    done = await load.run(64, script)
    used: float = sum(psutil.Process(scheduler).cpu_times()[:2]) - before
    return round(used * 1e6 / int(done["requests"]), 1)


async def _ingest(port: int) -> dict[str, Any]:
    """Seconds until every row of an upload has its fate. Raises if any was refused."""
    body = b"".join(b'{"image":"busybox","command":["echo","hi"],"job_id":"row-%d"}\n' % row for row in range(ROWS))
    head = f"POST /ingest HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        end = b""
        while part := await reader.read(1 << 20):
            end = (end + part)[-100:]
    finally:
        writer.close()
    if b'"accepted_count":%d' % ROWS not in end:
        raise EventschedError(f"an upload of {ROWS} rows ended with {end.decode(errors='replace')}")
    return {"ingest_rows": ROWS, "ingest_s": round(time.monotonic() - began, 2)}


async def _follow(port: int) -> None:
    """Follow all events until cancelled, and read whatever comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /events?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while await reader.read(1 << 20):
            pass
    finally:
        writer.close()


class _Load:
    """Runs of wrk against one port."""

    def __init__(self, cluster: BenchCluster, seconds: int) -> None:
        self.port = free_port()
        self.pinned = "no: one core"
        self._cluster = cluster
        self._seconds = seconds
        self._core: list[str] = []

    async def generator(self) -> str:
        """Which tool makes the load."""
        asked = await asyncio.create_subprocess_exec("wrk", "-v", stdout=asyncio.subprocess.PIPE)
        return " ".join((await asked.communicate())[0].decode().split()[:2])

    def script(self, name: str, text: str) -> Path:
        """A script for wrk."""
        path = self._cluster.directory / f"{name}.lua"
        path.write_text(text)
        return path

    async def ready(self) -> None:
        """Wait until the service has folded the log."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                line = await reader.readline()
                writer.close()
                if b" 200 " in line:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.1)
        raise EventschedError("the service did not get ready", f"see {self._cluster.directory}/api.log")

    def pin_apart(self) -> None:
        """The load generator on the last core, with NATS and the scheduler; the service on the others."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2 or shutil.which("taskset") is None:
            return
        api = psutil.Process(self._cluster.processes["api"].pid)
        for process in (api, *api.children()):
            process.cpu_affinity(cores[:-1])
        self._core = ["taskset", "-c", str(cores[-1])]
        self.pinned = f"service on cores {cores[0]}-{cores[-2]}, wrk on core {cores[-1]}, the rest anywhere"

    async def run(
        self, connections: int, script: Path | None = None, *, path: str = "/jobs", seconds: int = 0
    ) -> dict[str, Any]:
        """One run: answers a second, p99, and how many there were. Raises if any was an error."""
        command = [*self._core, "wrk", "-t1", f"-c{connections}", f"-d{seconds or self._seconds}", "--latency"]
        command += ["-s", str(script)] if script else []
        process = await asyncio.create_subprocess_exec(
            *command, f"http://127.0.0.1:{self.port}{path}", stdout=asyncio.subprocess.PIPE
        )
        text = (await process.communicate())[0].decode()
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
        p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", text)
        count = re.search(r"(\d+) requests in", text)
        if wrong or not (rate and p99 and count):
            raise EventschedError(f"wrk says: {text.strip()[-300:]}")
        p99_ms = round(float(p99[1]) * UNITS_MS[p99[2]], 2)
        return {"per_s": round(float(rate[1]), 1), "p99_ms": p99_ms, "requests": int(count[1])}
