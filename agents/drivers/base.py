"""What a driver is: the one contract behind Docker, processes, fakes and manual jobs.

A driver owns nothing but runs of its own cluster and node. What it starts outlives the agent, and
whoever comes next finds it with `inventory`. All drivers pass one contract test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from eventsched.agents.effects import Ended, KnownRun, Launch
from eventsched.heartbeat import RunUsage

Progress = Callable[[str], None]
"""Called with a word for what a slow start is doing: `queued`, `pulling`, `creating`, and `starting` right
before there is no way back. Raises StartFailed when the run may not start any more."""

Chunk = tuple[str, bytes]
"""A piece of output: "stdout" or "stderr", and the bytes."""


class StartFailed(Exception):
    """A run could not be started; `reason` is a stable code (`eventsched.reasons`)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class EngineAway(Exception):
    """The engine behind a driver does not answer, so nobody can say what runs here."""


class Place(Struct, frozen=True):
    """Whose runs these are, and where a driver may keep files of its own."""

    cluster: str
    node: str
    directory: Path

    @property
    def cluster8(self) -> str:
        """The end of the cluster id: the random part, short enough for names."""
        return self.cluster[-8:].lower()


class Driver(Protocol):
    """One way of running things. Methods may be called concurrently for different runs."""

    name: str
    keeps_ended: bool
    """Whether ended runs stay for a while, for people to look at."""

    async def open(self) -> None:
        """Get ready; raises EventschedError when the engine behind it does not answer."""
        ...

    async def close(self) -> None:
        """Let go of connections; runs go on."""
        ...

    async def inventory(self) -> list[KnownRun]:
        """Every run of ours this machine still has, running or ended and not removed. Raises EngineAway."""
        ...

    async def start(self, launch: Launch, progress: Progress) -> None:
        """Start it; return when it runs. Raises StartFailed; then, or when cancelled, nothing runs."""
        ...

    async def wait(self, run: int) -> Ended:
        """Wait until it is over; works for runs started by an earlier agent, and again after the end."""
        ...

    def over(self, run: int) -> Ended | None:
        """How it ended, if that is known without waiting."""
        ...

    async def stop(self, run: int, grace_ms: int) -> None:
        """SIGTERM, and SIGKILL after the grace; returns when it is over or was over already."""
        ...

    def output(self, run: int, skip: int) -> AsyncIterator[Chunk]:
        """Its output from byte `skip` on, as it comes; ends with the run."""
        ...

    async def has_output(self, run: int) -> bool:
        """False when an ended run is known to have written nothing."""
        ...

    async def remove(self, run: int) -> None:
        """Remove what is left of an ended run; nothing happens when nothing is."""
        ...

    async def usage(self, runs: Iterable[int]) -> dict[int, RunUsage]:
        """What running runs use now, where it is known."""
        ...

    async def leave(self) -> None:
        """The node leaves in good order and has no runs: remove what the driver keeps for itself."""
        ...

    async def finish(self, run: int, exit_code: int) -> None:
        """End a manual run; other drivers do nothing."""
        ...


def exited(code: int) -> Ended:
    """A run that ended by itself, with what its exit code says (as shells and docker use them)."""
    if code == 0:
        return Ended("exited", 0)
    if code == 127:
        return Ended("exited", code, "command_not_found", "exit code 127: the command, or one it ran, was not found")
    if code == 126:
        return Ended("exited", code, "command_not_executable", "exit code 126: the command may not be executed")
    if code > 128:
        return Ended("exited", code, "killed", f"exit code {code}: by signal {code - 128}")
    return Ended("exited", code, "exit_code", f"exit code {code}")


def run_environment(place: Place, launch: Launch) -> dict[str, str]:
    """What every run finds in its environment, besides the job's own variables.

    EVENTSCHED_FENCE grows with every new run of a job: a guard for the run's own side effects.
    """
    environment = {
        "EVENTSCHED_CLUSTER": place.cluster,
        "EVENTSCHED_NODE": place.node,
        "EVENTSCHED_TENANT": launch.tenant,
        "EVENTSCHED_JOB": launch.job_id,
        "EVENTSCHED_RUN": str(launch.run),
        "EVENTSCHED_FENCE": str(launch.run),
        "EVENTSCHED_ATTEMPT": str(launch.attempt),
        **launch.spec.env,
    }
    if launch.member >= 0:
        environment["EVENTSCHED_ARRAY_INDEX"] = str(launch.member)
        environment["EVENTSCHED_ARRAY_COUNT"] = str(launch.spec.array)
    if launch.gang_head:
        environment["EVENTSCHED_GANG_HEAD"] = launch.gang_head
        environment["EVENTSCHED_GANG_SIZE"] = str(launch.spec.array)
    if launch.gpus:
        environment["NVIDIA_VISIBLE_DEVICES"] = ",".join(launch.gpus)
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(launch.gpus)
    return environment
