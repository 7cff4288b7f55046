"""Variables of earlier systems that say nothing here any more: accepted, with a line on what stands in their place."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

_INSTEAD = {
    "REDIS_": "jobs are in the log; EVENTSCHED_NATS says where it is",
    "JOB_POLL_INTERVAL": "agents hear of their jobs at once",
    "SCHEDULER_RELOAD": "stop it and start it again: it goes on where it was",
}


def replaced(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each kind of variable that is set and not used."""
    found: dict[str, list[str]] = {}
    for name in sorted(environment):
        for beginning in _INSTEAD:
            if name == beginning or (beginning.endswith("_") and name.startswith(beginning)):
                found.setdefault(beginning, []).append(name)
    return [
        f"note: {', '.join(names)} {'is' if len(names) == 1 else 'are'} not used: {_INSTEAD[beginning]}"
        for beginning, names in found.items()
    ]


def tell_replaced() -> None:
    """Print these lines."""
    for line in replaced():
        print(line, file=sys.stderr, flush=True)
