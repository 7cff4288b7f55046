"""An agent's settings, checked as a whole."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct, field

from eventsched.agents.drivers.containers import DockerLimits
from eventsched.errors import SettingsError

KILL_MS = 2_000
"""Time allowed for SIGKILL to take effect, on top of a run's grace."""


class AgentSettings(Struct, frozen=True, kw_only=True):
    """See `eventsched agent --help`; texts as typed, times in ms.

    fence_after_ms: cut off for this long, the leash stops the node's runs; each gets its own grace,
    but at most `fence_grace_ms` in that case.
    """

    data: Path
    node: str = ""
    cpus: str = ""
    memory: str = ""
    gpus: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    drivers: tuple[str, ...] = ("docker",)
    docker: DockerLimits = DockerLimits()
    heartbeat_ms: int = 5_000
    fence_after_ms: int = 20_000
    fence_grace_ms: int = 10_000
    keep_ms: int = 120_000
    orphan_grace_ms: int = 60_000
    orphans_dry_run: bool = False
    leash: bool = True

    def check(self) -> None:
        """Raise SettingsError for values that cannot work."""
        if not 100 <= self.heartbeat_ms <= 60_000:
            raise SettingsError(f"heartbeat of {self.heartbeat_ms} ms", "give 0.1 s to 60 s")
        if self.fence_after_ms < 2 * self.heartbeat_ms:
            raise SettingsError(
                f"fence_after ({self.fence_after_ms} ms) is less than two heartbeats ({self.heartbeat_ms} ms each)",
                "one lost heartbeat must not stop the node's runs",
            )

    @property
    def stop_ms(self) -> int:
        """The longest that stopping everything takes once the lease is over."""
        return self.fence_grace_ms + KILL_MS
