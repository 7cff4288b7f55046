"""A real cluster for tests: nats-server, schedulers and agents as processes that can be killed and frozen."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from eventsched.client import Client
from eventsched.errors import EventschedError
from eventsched.nats_server import NatsServer, die_with_parent

SHORT_TIMERS = ("--suspect-after", "1s", "--lost-after", "6s")
AGENT_TIMERS = ("--heartbeat", "300ms", "--fence-after", "1500ms", "--fence-grace", "1s")
"""For tests of being cut off."""
CALM_AGENT_TIMERS = ("--heartbeat", "1s")
"""For tests of restarts, which must not run into the leash; the scheduler's own defaults with them."""


class Cluster:
    """Processes over one server; `stop` ends them all."""

    def __init__(self, directory: Path, server: NatsServer, calm: bool = False) -> None:
        """calm: with ordinary timers, not with short ones."""
        self.directory = directory
        self.server = server
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.calm = calm
        self._clients: list[Client] = []

    # ---- processes ------------------------------------------------------------------------------

    def spawn(
        self, name: str, command: str, *arguments: str, url: str = "", **environment: str
    ) -> subprocess.Popen[bytes]:
        """Run `eventsched COMMAND` with its role's rights; a name that ran before is started again."""
        variables = {**self.server.environment(command), **({"EVENTSCHED_NATS": url} if url else {}), **environment}
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "eventsched", command, *arguments],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.processes[name] = process
        return process

    def log(self, name: str) -> Path:
        """Where a process's words go."""
        return self.directory / f"{name}.log"

    def scheduler(self, name: str = "s1", *arguments: str) -> None:
        """Start a scheduler; with short timers if it makes the log."""
        data = str(self.directory / name)
        self.spawn(name, "scheduler", "--name", name, "--data", data, *(() if self.calm else SHORT_TIMERS), *arguments)

    def agent(
        self, node: str = "n1", *arguments: str, drivers: tuple[str, ...] = ("fake",), url: str = "", **environment: str
    ) -> None:
        """Start an agent with short timers."""
        chosen = [part for driver in drivers for part in ("--driver", driver)]
        data = str(self.directory / "agents")
        timers = CALM_AGENT_TIMERS if self.calm else AGENT_TIMERS
        self.spawn(node, "agent", "--node", node, "--data", data, *timers, *chosen, *arguments, url=url, **environment)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process."""
        self.processes[name].send_signal(number)

    async def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(name, signal.SIGKILL)
        await asyncio.to_thread(self.processes[name].wait)

    async def end(self, name: str, timeout: float = 60) -> int:
        """SIGTERM; its exit code."""
        self.signal(name, signal.SIGTERM)
        return await asyncio.to_thread(self.processes[name].wait, timeout)

    async def stop(self) -> None:
        """End everything, agents first."""
        for client in self._clients:
            await client.close()
        alive = [process for process in self.processes.values() if process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in alive:
            try:
                await asyncio.to_thread(process.wait, 20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for lease in self.directory.rglob("lease.json"):
            lease.unlink()  # the leashes of killed agents end
        self.server.stop()

    def words(self) -> str:
        """What all of them said, for failures."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.directory.glob("*.log")))

    # ---- looking ----------------------------------------------------------------------------------

    async def client(self, role: str = "operator") -> Client:
        """A client, once the log is there."""

        async def connect() -> Client | None:
            with contextlib.suppress(EventschedError):
                return await Client.connect(options=self.server.options(role))
            return None

        client = await until(connect, what="the log")
        assert client is not None
        self._clients.append(client)
        return client

    async def ready(self, nodes: int = 1) -> Client:
        """A client, once a scheduler leads and so many nodes are ready."""
        client = await self.client()

        async def settled() -> bool:
            with contextlib.suppress(EventschedError):
                stats = await client.stats()
                return bool(stats.leader) and stats.nodes.get("ready", 0) >= nodes
            return False

        await until(settled, what=f"a leader and {nodes} nodes")
        return client

    async def until_state(self, client: Client, job_id: str, *states: str, timeout: float = 30) -> Any:
        """The job, once it is in one of the states."""

        async def reached() -> Any:
            view = await client.get(job_id)
            return view if view.state in states else None

        return await until(reached, timeout, f"job {job_id} to be {' or '.join(states)}")


@contextlib.asynccontextmanager
async def opened(directory: Path, server: NatsServer, *, calm: bool = False) -> AsyncIterator[Cluster]:
    """A cluster over a server; in the end everything is stopped, the server too."""
    made = Cluster(directory, server, calm)
    try:
        yield made
    finally:
        await made.stop()


async def until(probe: Callable[[], Awaitable[Any]], timeout: float = 30, what: str = "it") -> Any:
    """The first true answer of `probe`; AssertionError when none comes in time."""
    deadline = time.monotonic() + timeout
    while True:
        answer = await probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; the last answer was {answer!r}")
        await asyncio.sleep(0.02)
