"""eventsched: an event-sourced scheduler for containers on shared GPUs and servers.

The SDK: `Client` (async) and `SyncClient`, jobs as `JobSpec`, what comes back as `JobView` and
`NodeView`. Everything else is reached through the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from eventsched.client import Client
    from eventsched.errors import EventschedError
    from eventsched.resources import Resources
    from eventsched.spec import JobSpec, Volume
    from eventsched.sync_client import SyncClient
    from eventsched.views import JobView, NodeView

_LAZY = {
    "Client": "eventsched.client",
    "EventschedError": "eventsched.errors",
    "JobSpec": "eventsched.spec",
    "JobView": "eventsched.views",
    "NodeView": "eventsched.views",
    "Resources": "eventsched.resources",
    "SyncClient": "eventsched.sync_client",
    "Volume": "eventsched.spec",
}

__all__ = [
    "Client",
    "EventschedError",
    "JobSpec",
    "JobView",
    "NodeView",
    "Resources",
    "SyncClient",
    "Volume",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that the CLI starts quickly."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'eventsched' has no attribute {name!r}")
