"""A terminal: runs the real command line as a user does, in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from eventsched.nats_server import free_port

COMMAND = [sys.executable, "-m", "eventsched"]


class Result(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, as JSON."""
        return json.loads(self.out)


def _listen_to_ctrl_c() -> None:
    """As in a terminal: what a shell starts in the background ignores it, and all that is started from there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """Commands run in `directory`, where `eventsched dev` keeps its data too."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._dev: subprocess.Popen[str] | None = None

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVENTSCHED_")}
        return {**clean, "COLUMNS": "160", "NO_COLOR": "1"}

    def run(
        self,
        *arguments: str,
        code: int | None = 0,
        stdin: str = "",
        timeout: float = 60,
        environment: dict[str, str] | None = None,
    ) -> Result:
        """Run `eventsched ARGUMENTS`; the exit code must be `code` (None = any), and no traceback may show."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.directory,
            env={**self._environment(), **(environment or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, f"{arguments} ended with {done.returncode}: {done.stderr}{done.stdout}"
        return Result(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str) -> Any:
        """The JSON answer of a reading verb."""
        cut = arguments.index("--") if "--" in arguments else len(arguments)
        return self.run(*arguments[:cut], "-o", "json", *arguments[cut:]).json

    def submit(self, *arguments: str) -> str:
        """Submit one job; its id."""
        return str(self.json("submit", *arguments)["job_id"])

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """A command in the background."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_listen_to_ctrl_c,
        )

    # ---- dev --------------------------------------------------------------------------------

    def dev(self, *arguments: str) -> str:
        """Start `eventsched dev`; what it says until it is up."""
        port = () if "--nats-port" in arguments else ("--nats-port", str(free_port()))  # others start theirs, too
        self._dev = self.spawn("dev", "--http-port", "0", *port, *arguments)
        assert self._dev.stdout is not None
        said = []
        for line in self._dev.stdout:
            said.append(line)
            if line.startswith("Ctrl-C"):
                return "".join(said)
        raise AssertionError(f"dev ended with {self._dev.wait()}: {''.join(said)}")

    @property
    def dev_pid(self) -> int:
        """Process id of `eventsched dev`."""
        assert self._dev is not None
        return self._dev.pid

    def dev_says(self, words: str) -> str:
        """The next line of dev's that holds these words."""
        assert self._dev is not None
        assert self._dev.stdout is not None
        return next(line for line in self._dev.stdout if words in line)

    def dev_ended(self) -> int:
        """How dev ended by itself."""
        assert self._dev is not None
        return self._dev.wait(60)

    def kill_dev(self) -> None:
        """kill -9."""
        assert self._dev is not None
        assert self._dev.stdout is not None
        self._dev.kill()
        self._dev.wait()
        self._dev.stdout.close()

    def stop(self) -> Result:
        """Ctrl-C; how it ended."""
        assert self._dev is not None
        assert self._dev.stdout is not None
        self._dev.send_signal(signal.SIGINT)
        text = self._dev.stdout.read()
        return Result(self._dev.wait(30), text, "")

    def kill(self) -> None:
        """End a dev that a failed test left behind."""
        if self._dev is not None and self._dev.poll() is None:
            self.stop()

    def until_state(self, job_id: str, *states: str, seconds: float = 20) -> dict[str, Any]:
        """The job, once it is in one of the states."""
        deadline = time.monotonic() + seconds
        while True:
            view: dict[str, Any] = self.json("job", job_id)
            if view["state"] in states:
                return view
            assert time.monotonic() < deadline, f"{job_id} is {view['state']}, not {states}: {view}"
