"""The command dev."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from eventsched.cli.common import number
from eventsched.client import Client
from eventsched.dev.cluster import DevCluster, DevOptions
from eventsched.dev.config import DevConfig, apply_config, read_config
from eventsched.dev.demo import run_demo
from eventsched.dev.engine import docker_answers
from eventsched.dev.health import DEFAULT_PORT, bind
from eventsched.errors import EventschedError
from eventsched.ids import id_from_host_name
from eventsched.resources import Resources
from eventsched.settings import DATA_DIR, find_dev
from eventsched.telemetry import configure_logging
from eventsched.units import format_bytes, format_cpus, parse_cpus_millis, parse_gpus, parse_memory
from eventsched.views import NodeView

AGENTS_MAX = 64
PORT_MAX = 65_535
DEFAULT_CPU_MILLIS = Resources().cpu_millis


async def dev(
    *,
    demo: Annotated[bool, Parameter(negative=(), help="submit a small workload and show it")] = False,
    exit_when_idle: Annotated[
        bool, Parameter(negative=(), help="end when the demo's jobs have ended; 0 if as they should")
    ] = False,
    data: Annotated[Path, Parameter(help="where everything lies")] = Path(DATA_DIR),
    ephemeral: Annotated[
        bool, Parameter(negative=(), help="a temporary directory instead, removed at the end")
    ] = False,
    driver: Annotated[
        Literal["docker", "process", "fake", "manual"] | None,
        Parameter(help="what agents run jobs with; docker if an engine answers, else process"),
    ] = None,
    agents: Annotated[
        int, number(1, AGENTS_MAX), Parameter(help="so many agents; they split the machine unless capacities are given")
    ] = 1,
    cpus: Annotated[str, Parameter(help="cores each agent offers")] = "",
    memory: Annotated[str, Parameter(help="memory each agent offers, e.g. 4G")] = "",
    gpus: Annotated[str, Parameter(help="emulated GPUs of each agent, e.g. A100:4")] = "",
    clock: Annotated[
        Literal["wall", "manual"] | None, Parameter(help="of a new cluster; manual: POST /schedule moves it")
    ] = None,
    config: Annotated[Path | None, Parameter(help="a file of such settings, with tenants' limits (TOML)")] = None,
    nats_port: Annotated[int, number(0, PORT_MAX), Parameter(help="port of NATS; 4222 if it is free, else any")] = 0,
    http_port: Annotated[int, number(0, PORT_MAX), Parameter(help="port of HTTP; 0 = any")] = DEFAULT_PORT,
) -> int:
    """Run a whole cluster here: NATS, a scheduler, an agent. Ctrl-C stops it; starting again goes on."""
    began = time.monotonic()
    settings = read_config(config)
    cpus, memory, gpus = cpus or settings.cpus, memory or settings.memory, gpus or settings.gpus
    _check_capacity(cpus, memory, gpus)
    configure_logging(level="error")
    chosen = driver or settings.driver or _driver_here()
    options = DevOptions(
        data=data.resolve(),
        ephemeral=ephemeral,
        driver=chosen,
        agents=agents,
        nats_port=nats_port,
        cpus=cpus,
        memory=memory,
        gpus=gpus,
        clock=clock or settings.clock,
        scheduler_arguments=("--job-id-scope", settings.job_id_scope, "--quota-default", settings.quota_default),
    )
    cluster = DevCluster(options)
    await cluster.claim()
    try:
        listener = bind(http_port)
    except EventschedError:
        cluster.release()
        raise
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(one, stop.set)
    try:
        code = await _until(stop, _work(cluster, settings, began, listener, demo or exit_when_idle, exit_when_idle))
    finally:
        with contextlib.suppress(BrokenPipeError):  # `dev | head`
            print("stopping …", flush=True)
        await cluster.stop()
        listener.close()
    print("stopped" if ephemeral else f"stopped; the log stays in {_short(cluster.data)}")
    return 0 if code is None else code


def _check_capacity(cpus: str, memory: str, gpus: str) -> None:
    """Raise InvalidSpec naming the option, rather than let an agent's log tell."""
    if cpus:
        parse_cpus_millis(cpus, "--cpus")
    if memory:
        parse_memory(memory, "--memory")
    if gpus and gpus.lower() != "none":
        for one in gpus.split(","):
            parse_gpus(one, "--gpus")


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, int]) -> int | None:
    """The result of `work`, or None when somebody asked to stop first."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        return task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return None


async def _work(
    cluster: DevCluster,
    settings: DevConfig,
    began: float,
    listener: socket.socket,
    demo: bool,
    exit_when_idle: bool,
) -> int:
    driver = cluster.options.driver
    await cluster.start(id_from_host_name(socket.gethostname()), listener)
    http = f"http://127.0.0.1:{listener.getsockname()[1]}"
    cluster.write_state(http)
    watching = asyncio.ensure_future(cluster.watch())
    try:
        async with await Client.connect(options=cluster.nats.options("operator")) as client:
            await apply_config(client, settings)
            _greet(cluster, list(await client.nodes()), http, driver, time.monotonic() - began)
            if demo:
                showing = asyncio.ensure_future(run_demo(client, driver))
                await asyncio.wait((showing, watching), return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    showing.cancel()
                    watching.result()
                code = showing.result()
                if exit_when_idle:
                    return code
        await watching
    finally:
        watching.cancel()
    return 0


def _driver_here() -> str:
    """Docker when its socket answers, else process."""
    if docker_answers():
        return "docker"
    print("no container engine answers: jobs run as plain processes (driver process)")
    return "process"


def _greet(cluster: DevCluster, nodes: list[NodeView], http: str, driver: str, seconds: float) -> None:
    """What runs, where, and what to try next."""
    started = Path(sys.argv[0]).absolute()
    command = f"{sys.executable} -m eventsched" if started.name == "__main__.py" else _short(started)
    if shutil.which("eventsched"):
        command = "eventsched"
    what = {"docker": "busybox -- echo hello", "process": "--driver process -- echo hello"}
    offers = ", ".join(
        f"{view.node} ({format_cpus(view.capacity['cpu_millis'])} cpus, {format_bytes(view.capacity['memory_bytes'])}"
        + "".join(f", {count} {model}" for model, count in view.capacity["gpus"].items())
        + ")"
        for view in nodes
        if view.state == "ready"
    )
    print(f"eventsched dev is up ({seconds:.1f} s)")
    print(f"  log        {cluster.nats.url}, stored in {_short(cluster.data)}")
    print("  scheduler  dev, leading")
    print(f"  agents     {offers}; driver {driver}")
    print(f"  http       {http}/schema; no token is needed from here, else: {cluster.token}")
    print(f"  logs       {_short(cluster.data)}/*.log")
    print("try, in another terminal:")
    if find_dev() is None:  # it lies elsewhere than commands look
        print(f"  export EVENTSCHED_NATS={cluster.nats.url}")
    small = min((view.capacity["cpu_millis"] for view in nodes if view.state == "ready"), default=DEFAULT_CPU_MILLIS)
    less = "" if small >= DEFAULT_CPU_MILLIS else f" --cpus {format_cpus(small)}"
    print(f"  {command} submit{less} {what.get(driver, f'--driver {driver}')}")
    print(f"  {command} jobs")
    print(f"  {command} events --follow")
    if less:
        print(f"note: an agent here offers {format_cpus(small)} cpus; a job asks for 1 by default, and never starts.")
        print(f"      Submit with{less}, or start dev with fewer --agents, or with --cpus 1: each agent then offers")
        print("      a core, whether the machine has it or not.")
    print("Ctrl-C stops it", flush=True)


def _short(path: Path) -> str:
    """A path as short as it can be typed here."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
