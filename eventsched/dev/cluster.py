"""Starting and stopping a cluster on this machine: NATS, one scheduler, some agents."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import Struct

from eventsched.client import Client
from eventsched.dev.health import TOKEN_FILE, dev_token, is_ready
from eventsched.dev.parts import Part
from eventsched.errors import EventschedError
from eventsched.nats_server import NatsServer, die_with_parent
from eventsched.settings import STATE_FILE, DevState, read_dev_state, usable_data

READY_TIMEOUT_S = 30.0
CLAIM_TIMEOUT_S = 20.0
WATCH_S = 0.3
LOCK_FILE = "dev.lock"
AGENT = "agent-"


class DevOptions(Struct, frozen=True, kw_only=True):
    """What `eventsched dev` was asked for; see its help."""

    data: Path
    ephemeral: bool = False
    driver: str = "docker"
    agents: int = 1
    nats_port: int = 0
    cpus: str = ""
    memory: str = ""
    gpus: str = ""
    clock: str = "wall"
    scheduler_arguments: tuple[str, ...] = ()
    agent_arguments: tuple[str, ...] = ()


class DevCluster:
    """The processes of one `dev`, and its claim on a data directory."""

    def __init__(self, options: DevOptions) -> None:
        self.options = options
        self.data = Path(tempfile.mkdtemp(prefix="eventsched-")) if options.ephemeral else options.data
        self.nats = NatsServer(self.data / "nats", options.nats_port)
        self.node_names: list[str] = []
        self.token = ""
        self._claim = -1
        self._parts: list[Part] = []

    # ---- starting ---------------------------------------------------------------------------

    async def claim(self) -> None:
        """Take the data directory. Raises EventschedError when another dev has it.

        The parts hold on to the claim, too: when a dev is killed they live on for a moment, and two servers
        over one store would ruin it.
        """
        with usable_data(self.data):
            self.data.mkdir(parents=True, exist_ok=True)
            self._claim = os.open(self.data / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = asyncio.get_running_loop().time() + CLAIM_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            running = read_dev_state(self.data)
            if running is not None:
                raise EventschedError(
                    f"eventsched dev runs here already (process {running.pid}, {running.nats})",
                    "use it, stop it, or choose another --data",
                )
            if asyncio.get_running_loop().time() > deadline:
                raise EventschedError(
                    f"an earlier eventsched dev is still starting or ending here (it holds {self.data / LOCK_FILE})",
                    "try again in a moment, or choose another --data",
                )
            await asyncio.sleep(0.05)

    def release(self) -> None:
        """Let the data directory go; a temporary one is removed."""
        if self.options.ephemeral:
            shutil.rmtree(self.data, ignore_errors=True)
        os.close(self._claim)

    async def start(self, node: str, listener: socket.socket) -> None:
        """Start everything and wait until the scheduler leads, every agent has a session, HTTP answers."""
        self._parts.append(Part("nats-server", self.nats.log_file, self._launch_nats))
        await self.nats.wait_ready()
        data = str(self.data / "scheduler")
        clock = ["--clock", self.options.clock] if self.options.clock != "wall" else []
        self._start(
            "scheduler", "scheduler", "--name", "dev", "--data", data, *clock, *self.options.scheduler_arguments
        )
        fd = listener.fileno()
        tokens = ("--tokens", str(self.data / TOKEN_FILE), "--trust-loopback")
        self.token = dev_token(self.data)
        self._start("api", "api", "--listen-fd", str(fd), *tokens, role="operator", keep_open=(fd,))
        count = self.options.agents
        self.node_names = [node] if count == 1 else [f"{node}-{index}" for index in range(1, count + 1)]
        for name in self.node_names:
            self._start(f"{AGENT}{name}", "agent", *self._agent_arguments(name))
        await self._wait_ready(listener.getsockname()[1])

    def _agent_arguments(self, name: str) -> list[str]:
        options = self.options
        cpus, memory = options.cpus, options.memory
        if options.agents > 1:
            cores = os.cpu_count() or 1
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            cpus = cpus or str(cores * 1000 // options.agents / 1000)
            memory = memory or f"{total // options.agents >> 20}M"
        arguments = ["--node", name, "--data", str(self.data / "agents")]
        for driver in dict.fromkeys((options.driver, "fake", "manual")):
            arguments += ["--driver", driver]
        for option, value in (("--cpus", cpus), ("--memory", memory), ("--gpus", options.gpus)):
            if value:
                arguments += [option, value]
        return [*arguments, *options.agent_arguments]

    def _launch_nats(self) -> subprocess.Popen[bytes]:
        return self.nats.start(keep_open=(self._claim,))

    def _start(self, name: str, command: str, *arguments: str, role: str = "", keep_open: tuple[int, ...] = ()) -> None:
        log = self.data / f"{name}.log"

        def launch() -> subprocess.Popen[bytes]:
            with log.open("ab") as target:
                return subprocess.Popen(
                    [sys.executable, "-m", "eventsched", command, *arguments],
                    env=self.nats.environment(role or command),
                    stdin=subprocess.DEVNULL,
                    stdout=target,
                    stderr=target,
                    start_new_session=True,
                    pass_fds=(self._claim, *keep_open),
                    preexec_fn=die_with_parent,
                )

        self._parts.append(Part(name, log, launch))

    async def _wait_ready(self, http_port: int) -> None:
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        client: Client | None = None
        try:
            while True:
                for part in self._parts:
                    part.must_run()
                with contextlib.suppress(EventschedError):
                    client = client or await Client.connect(options=self.nats.options("operator"))
                    stats = await client.stats()
                    ready = {
                        view.node
                        for view in await client.nodes()
                        if view.state == "ready" and view.heartbeat_age_ms is not None
                    }
                    settled = stats.leader == "dev" and ready.issuperset(self.node_names)
                    if settled and await is_ready(http_port):
                        return
                if asyncio.get_running_loop().time() > deadline:
                    raise EventschedError("the cluster did not get ready", f"see the logs in {self.data}")
                await asyncio.sleep(0.03)
        finally:
            if client is not None:
                await client.close()

    def write_state(self, http: str) -> None:
        """Let other commands find this cluster."""
        state = DevState(pid=os.getpid(), nats=self.nats.url, http=http, data=str(self.data))
        (self.data / STATE_FILE).write_text(
            json.dumps({name: getattr(state, name) for name in state.__struct_fields__})
        )

    # ---- running and stopping -----------------------------------------------------------------

    async def watch(self) -> None:
        """Start again what dies, and say so; returns only by an error, when that does not help."""
        while True:
            for part in self._parts:
                said = part.revive()
                if said:
                    print(said, flush=True)
            await asyncio.sleep(WATCH_S)

    async def stop(self) -> None:
        """Agents first (their runs are stopped and reported), then scheduler (it snapshots) and HTTP, then NATS."""
        nats, others = self._parts[:1], self._parts[1:]
        agents = [part for part in others if part.name.startswith(AGENT)]
        for group in (agents, [part for part in others if part not in agents], nats):
            for part in group:
                part.ask_to_stop()
            for part in group:
                await part.stopped()
        (self.data / STATE_FILE).unlink(missing_ok=True)
        self.release()
