"""What the benchmarks share: a cluster of real processes in a temporary directory, and percentiles."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from eventsched.client import Client
from eventsched.errors import EventschedError
from eventsched.nats_server import NatsServer, die_with_parent

READY_TIMEOUT_S = 60.0


def percentile(values: list[float], percent: float) -> float:
    """Nearest rank; values need not be sorted."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


class BenchCluster:
    """NATS, schedulers and agents as processes; everything is ended and removed at the end."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="eventsched-bench-"))
        self.nats = NatsServer(self.directory / "nats")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        self.nats.start()
        await self.nats.wait_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                await asyncio.to_thread(process.wait, 20)
            except subprocess.TimeoutExpired:
                process.kill()
        self.nats.stop()
        if error is None:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            print(f"logs are in {self.directory}", file=sys.stderr)

    def spawn(self, name: str, command: str, *arguments: str, role: str = "") -> subprocess.Popen[bytes]:
        """Run `eventsched COMMAND ARGUMENTS` with the rights of its role, by default the command's own."""
        data = () if role else ("--data", str(self.directory / name))
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "eventsched", command, *data, *arguments],
                env=self.nats.environment(role or command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        self.processes[name] = process
        return process

    async def client(self, nodes: int) -> Client:
        """A client, once a scheduler leads and so many nodes are ready."""
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        client: Client | None = None
        while asyncio.get_running_loop().time() < deadline:
            try:
                client = client or await Client.connect(options=self.nats.options("operator"))
                stats = await client.stats()
                if stats.leader and stats.nodes.get("ready", 0) >= nodes:
                    return client
            except EventschedError:
                pass
            await asyncio.sleep(0.05)
        raise EventschedError("the cluster did not get ready", f"see the logs in {self.directory}")
