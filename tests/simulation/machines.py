"""Simulated machines: an engine with containers, a leash, and an agent process around the real core."""

from __future__ import annotations

from dataclasses import dataclass

from eventsched.agents.effects import (
    Ended,
    Launch,
)
from eventsched.spec import FakeRun

from .agents import STOP_MS, SimAgent
from .world import World

LEASH_POLL_MS = 50


@dataclass
class Container:
    """A container of the engine; it survives the agent."""

    launch: Launch
    started_ms: int
    ends_ms: int
    exit_code: int
    ended: Ended | None = None


class Machine:
    """One machine: engine, lease file, leash; and the agent process, which may be dead or frozen."""

    def __init__(self, world: World, node: str, cpus: int) -> None:
        self.world = world
        self.node = node
        self.cpus = cpus
        self.containers: dict[int, Container] = {}
        self.history: list[tuple[int, str, int, int]] = []
        self.started: dict[int, int] = {}
        self.fenced: dict[int, None] = {}
        self.lease_ms = 0
        self.cut_until = 0
        self.agent: SimAgent | None = None
        world.after(LEASH_POLL_MS, self._leash)
        self.boot()

    def boot(self) -> None:
        """Start the agent process."""
        self.agent = SimAgent(self)

    def kill_agent(self) -> None:
        """kill -9 of the agent, and a restart after a while; containers go on."""
        if self.agent is not None:
            self.agent.dead = True
            self.agent = None
            self.world.after(self.world.random.randrange(100, 9_000), self.boot)

    def reachable(self) -> bool:
        """Whether the network reaches this machine."""
        return self.world.now_ms >= self.cut_until

    # ---- the engine -----------------------------------------------------------------------------

    def running(self) -> dict[int, Container]:
        """What runs."""
        return {run: one for run, one in self.containers.items() if one.ended is None}

    def start(self, launch: Launch) -> None:
        """Start a container; each run may be started once."""
        world = self.world
        self.started[launch.run] = self.started.get(launch.run, 0) + 1
        if self.started[launch.run] > 1:
            world.problems.append(f"run {launch.run} was started twice on {self.node}")
        fake = launch.spec.fake or FakeRun()
        fails = not fake.fail_attempts or launch.attempt <= fake.fail_attempts
        ends = world.now_ms + fake.duration_ms
        container = Container(launch, world.now_ms, ends, fake.exit_code if fails else 0)
        self.containers[launch.run] = container
        self._check_alone(container)
        world.at(ends, lambda: self._ends_itself(container))

    def _check_alone(self, container: Container) -> None:
        """Nowhere else may a container of the same job run."""
        job = (container.launch.tenant, container.launch.job_id)
        for machine in self.world.machines:  # type: ignore[attr-defined]
            for other in machine.running().values():
                if other is not container and (other.launch.tenant, other.launch.job_id) == job:
                    mine = f"run {container.launch.run} on {self.node}"
                    theirs = f"run {other.launch.run} on {machine.node}"
                    self.world.problems.append(f"job {job} runs twice: {theirs}, {mine}")

    def _ends_itself(self, container: Container) -> None:
        if container.ended is None:
            self._end(container, Ended("exited", container.exit_code, "exit_code" if container.exit_code else ""))

    def stop(self, run: int) -> None:
        """SIGTERM and the rest; takes a while."""
        container = self.containers.get(run)
        if container is not None and container.ended is None:
            self.world.after(self.world.random.randrange(1, STOP_MS // 2), lambda: self._stopped(container))

    def _stopped(self, container: Container) -> None:
        if container.ended is None:
            self._end(container, Ended("stopped", 143))

    def _end(self, container: Container, ended: Ended) -> None:
        container.ended = ended
        launch = container.launch
        self.history.append((launch.run, f"{launch.tenant}/{launch.job_id}", container.started_ms, self.world.now_ms))
        if self.agent is not None:
            self.agent.container_ended(launch.run)

    # ---- the leash ------------------------------------------------------------------------------

    def _leash(self) -> None:
        if self.lease_ms and self.world.now_ms >= self.lease_ms and not self.world.sabotage.leash:
            for run in self.running():
                if run not in self.fenced:
                    self.fenced[run] = None
                    self.stop(run)
        self.world.after(LEASH_POLL_MS, self._leash)
