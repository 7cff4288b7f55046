"""Starting and stopping a cluster on this machine: NATS, one scheduler, some agents."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import Struct

from eventsched.client import Client
from eventsched.errors import EventschedError
from eventsched.nats_server import NatsServer, die_with_parent
from eventsched.settings import STATE_FILE, DevState, read_dev_state

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 95.0


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
    """The processes of one `dev`."""

    def __init__(self, options: DevOptions) -> None:
        self.options = options
        self.data = Path(tempfile.mkdtemp(prefix="eventsched-")) if options.ephemeral else options.data
        self.nats = NatsServer(self.data / "nats", options.nats_port)
        self.node_names: list[str] = []
        self._children: list[tuple[str, subprocess.Popen[bytes]]] = []

    # ---- starting ---------------------------------------------------------------------------

    async def start(self, node: str) -> None:
        """Start everything and wait until the scheduler leads and every agent has a session."""
        running = read_dev_state(self.data)
        if running is not None:
            raise EventschedError(
                f"eventsched dev runs here already (process {running.pid}, {running.nats})",
                "use it, stop it, or choose another --data",
            )
        self.data.mkdir(parents=True, exist_ok=True)
        self.nats.start()
        await self.nats.wait_ready()
        data = str(self.data / "scheduler")
        clock = ["--clock", self.options.clock] if self.options.clock != "wall" else []
        self._spawn(
            "scheduler", "scheduler", ["--name", "dev", "--data", data, *clock, *self.options.scheduler_arguments]
        )
        count = self.options.agents
        self.node_names = [node] if count == 1 else [f"{node}-{index}" for index in range(1, count + 1)]
        for name in self.node_names:
            self._spawn(f"agent-{name}", "agent", self._agent_arguments(name))
        await self._wait_ready()

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

    def _spawn(self, name: str, command: str, arguments: list[str]) -> None:
        with (self.data / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "eventsched", command, *arguments],
                env=self.nats.environment(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._children.append((name, child))

    async def _wait_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        client: Client | None = None
        try:
            while True:
                self._check_children()
                with contextlib.suppress(EventschedError):
                    client = client or await Client.connect(options=self.nats.options("operator"))
                    stats = await client.stats()
                    ready = {
                        view.node
                        for view in await client.nodes()
                        if view.state == "ready" and view.heartbeat_age_ms is not None
                    }
                    if stats.leader == "dev" and ready.issuperset(self.node_names):
                        return
                if asyncio.get_running_loop().time() > deadline:
                    raise EventschedError("the cluster did not get ready", f"see the logs in {self.data}")
                await asyncio.sleep(0.03)
        finally:
            if client is not None:
                await client.close()

    def _check_children(self) -> None:
        """Raise EventschedError with the end of its log when a process has ended."""
        for name, child in self._children:
            if child.poll() is not None:
                path = self.data / f"{name}.log"
                tail = " | ".join(path.read_text(errors="replace").strip().splitlines()[-3:])
                raise EventschedError(f"{name} ended with code {child.returncode}: {tail}", f"see {path}")

    def write_state(self, http: str) -> None:
        """Let other commands find this cluster."""
        state = DevState(pid=os.getpid(), nats=self.nats.url, http=http, data=str(self.data))
        (self.data / STATE_FILE).write_text(
            json.dumps({name: getattr(state, name) for name in state.__struct_fields__})
        )

    # ---- running and stopping -----------------------------------------------------------------

    async def watch(self) -> None:
        """Return only by an error: a process that should run has ended."""
        while True:
            self._check_children()
            if self.nats.process is not None and self.nats.process.poll() is not None:
                raise EventschedError("nats-server has ended", f"see {self.data / 'nats' / 'nats.log'}")
            await asyncio.sleep(0.5)

    async def stop(self) -> None:
        """Agents first (their runs are stopped and reported), then the scheduler (it snapshots), then NATS."""
        agents = [child for name, child in self._children if name.startswith("agent")]
        others = [child for name, child in self._children if not name.startswith("agent")]
        for group in (agents, others):
            for child in group:
                if child.poll() is None:
                    child.send_signal(signal.SIGTERM)
            for child in group:
                await _ended(child)
        await asyncio.to_thread(self.nats.stop)
        running = read_dev_state(self.data)
        if running is None or running.pid == os.getpid():  # another dev's is not ours to remove
            (self.data / STATE_FILE).unlink(missing_ok=True)
        if self.options.ephemeral:
            shutil.rmtree(self.data, ignore_errors=True)


async def _ended(child: subprocess.Popen[bytes]) -> None:
    deadline = asyncio.get_running_loop().time() + STOP_TIMEOUT_S
    while child.poll() is None:
        if asyncio.get_running_loop().time() > deadline:
            child.kill()
        await asyncio.sleep(0.02)
