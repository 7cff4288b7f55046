"""An agent's settings, checked as a whole."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct, field

from eventsched.agents.drivers.containers import DockerLimits
from eventsched.errors import SettingsError

KILL_MS = 2_000
"""Time allowed for SIGKILL to take effect, on top of a run's grace."""


class SpotSettings(Struct, frozen=True):
    """A machine that may be taken away: how likely within an hour (in millionths), how one learns of it
    (a file that appears, a command that succeeds), and how long it is there after that."""

    spot: bool = False
    hazard_ppm_per_h: int = 0
    file: str = ""
    command: tuple[str, ...] = ()
    notice_ms: int = 30_000


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
    taints: tuple[str, ...] = ()
    spot: SpotSettings = SpotSettings()
    price_micros_per_h: int = 0
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
        if self.fence_after_ms < 3 * self.heartbeat_ms:  # a lost one is given up after another, and then sent again
            raise SettingsError(
                f"fence_after ({self.fence_after_ms} ms) is less than three heartbeats ({self.heartbeat_ms} ms each)",
                "one lost heartbeat must not stop the node's runs",
            )
        if not 0 <= self.spot.hazard_ppm_per_h <= 1_000_000:
            raise SettingsError(f"hazard of {self.spot.hazard_ppm_per_h} ppm", "give 0 to 1000000 (1000000 = certain)")
        if self.price_micros_per_h < 0:
            raise SettingsError(f"price of {self.price_micros_per_h}", "give 0 or more, e.g. --price 2.50")
        if not 1_000 <= self.spot.notice_ms <= 3_600_000:
            raise SettingsError(f"spot notice of {self.spot.notice_ms} ms", "give 1 s to 1 h with --spot-notice")

    @property
    def stop_ms(self) -> int:
        """The longest that stopping everything takes once the lease is over."""
        return self.fence_grace_ms + KILL_MS
