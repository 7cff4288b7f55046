"""The processes of one `dev`: started, looked after, and started again when they die."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from eventsched.errors import EventschedError
from eventsched.visible import visible

RESTARTS_MAX = 5
RESTARTS_WITHIN_S = 60.0
STOP_TIMEOUT_S = 95.0
TAIL_LINES = 3


class Part:
    """One process. `launch` starts it; every part can be killed and started again by design."""

    def __init__(self, name: str, log: Path, launch: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self.log = log
        self._launch = launch
        self._process = launch()
        self._deaths: deque[float] = deque(maxlen=RESTARTS_MAX)

    def death(self) -> str:
        """How it ended, in words; "" while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def must_run(self) -> None:
        """Raise EventschedError, with the end of its log, when it has ended."""
        death = self.death()
        if death:
            raise EventschedError(f"{self.name} {death}: {self._last_words()}", f"see {self.log}")

    def revive(self) -> str:
        """Start it again if it has ended, and say so. Raises EventschedError when that happens too often."""
        death = self.death()
        if not death:
            return ""
        now = time.monotonic()
        if len(self._deaths) == RESTARTS_MAX and now - self._deaths[0] < RESTARTS_WITHIN_S:
            raise EventschedError(
                f"{self.name} ended {RESTARTS_MAX + 1} times within a minute; at last it {death}: {self._last_words()}",
                f"see {self.log}; what is in the log stays, and `eventsched dev` goes on with it",
            )
        self._deaths.append(now)
        self._process = self._launch()
        return f"{self.name} {death}; it has been started again (process {self._process.pid}, log: {self.log})"

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()[-TAIL_LINES:]
        except OSError:
            lines = []
        return " | ".join(visible(line) for line in lines) or "its log is empty"

    def ask_to_stop(self) -> None:
        """SIGTERM, if it runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    async def stopped(self) -> None:
        """Wait for its end; SIGKILL when that takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_TIMEOUT_S
        while self._process.poll() is None:
            if loop.time() > deadline:
                self._process.kill()
            await asyncio.sleep(0.02)
