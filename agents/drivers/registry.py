"""Drivers by name."""

from __future__ import annotations

from eventsched.agents.drivers.base import Driver, Place
from eventsched.errors import SettingsError

BUILT_IN = ("docker", "process", "fake", "manual")


def make_driver(name: str, place: Place, settings: object = None) -> Driver:
    """A driver by name; `settings` are `DockerLimits` for docker. Raises SettingsError for an unknown one."""
    match name:
        case "docker":
            from eventsched.agents.drivers.containers import DockerLimits
            from eventsched.agents.drivers.docker import DockerDriver

            return DockerDriver(place, settings if isinstance(settings, DockerLimits) else DockerLimits())
        case "process":
            from eventsched.agents.drivers.process import ProcessDriver

            return ProcessDriver(place)
        case "fake":
            from eventsched.agents.drivers.fake import FakeDriver

            return FakeDriver()
        case "manual":
            from eventsched.agents.drivers.manual import ManualDriver

            return ManualDriver(place)
    raise SettingsError(f"no driver {name!r}", f"known: {', '.join(BUILT_IN)}")
