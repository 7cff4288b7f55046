"""The leash: a tiny process of its own that stops a node's runs when the lease runs out.

Containers outlive a dead or frozen agent, and nobody else can reach them. This process knows
nothing of the log: it reads one file, and when the deadline in it has passed it stops whatever
runs here under the node's labels, again and again until a new lease is written. It ends when the
lease is dropped. Standard library only, so that it is small and starts fast.

Run as `python -m eventsched.agents.leash DIRECTORY CLUSTER NODE STOP_MS [DOCKER_SOCKET]`.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import sys
import time
import urllib.parse
from pathlib import Path

from eventsched.agents.lease import boot_ms, note_fenced, read_deadline, read_fenced
from eventsched.agents.process_runs import live_process_runs, signal_run

POLL_S = 0.1
KILL_AFTER_TERM_MAX_MS = 60_000
LOCK_FILE = "leash.lock"
LABEL = "eventsched"


class _Engine:
    """As much of Docker's API as is needed: list by label, kill."""

    def __init__(self, path: str, cluster: str, node: str) -> None:
        self._path = path
        self._labels = [f"{LABEL}.cluster={cluster}", f"{LABEL}.node={node}"]

    def _call(self, method: str, url: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("docker", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(5)
        try:
            connection.sock.connect(self._path)
            connection.request(method, url)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def running(self) -> dict[int, tuple[str, int]]:
        """Run -> (container id, grace in ms), of what must stop."""
        filters = urllib.parse.quote(json.dumps({"label": self._labels, "status": ["running", "paused"]}))
        status, body = self._call("GET", f"/containers/json?filters={filters}")
        if status != 200:
            return {}
        found: dict[int, tuple[str, int]] = {}
        for container in json.loads(body):
            labels = container["Labels"]
            if labels.get(f"{LABEL}.keep") != "1" and labels.get(f"{LABEL}.run", "").isdigit():
                found[int(labels[f"{LABEL}.run"])] = (container["Id"], int(labels.get(f"{LABEL}.grace_ms", "0")))
        return found

    def kill(self, container: str, name: str) -> None:
        """Send a signal."""
        self._call("POST", f"/containers/{container}/kill?signal={name}")


class Leash:
    """One node's leash."""

    def __init__(self, directory: Path, cluster: str, node: str, stop_ms: int, docker_socket: str) -> None:
        self._directory = directory
        self._stop_ms = stop_ms
        self._engine = _Engine(docker_socket, cluster, node) if docker_socket else None
        self._terminated: dict[int, int] = {}

    def run(self) -> None:
        """Watch until the lease is dropped."""
        while True:
            deadline = read_deadline(self._directory)
            if deadline is None:
                return
            remaining_ms = deadline - boot_ms()
            if remaining_ms > 0:
                self._terminated.clear()
                time.sleep(min(POLL_S * 5, remaining_ms / 1000))
                continue
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._sweep()
            time.sleep(POLL_S)

    def _sweep(self) -> None:
        """SIGTERM to what still runs, SIGKILL to what had its grace."""
        containers = {}
        if self._engine is not None:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                containers = self._engine.running()
        processes = live_process_runs(self._directory)
        known = read_fenced(self._directory)
        with contextlib.suppress(OSError):  # a full disk must not keep anything running
            note_fenced(self._directory, [run for run in {**containers, **processes} if run not in known])
        now = boot_ms()
        for run, record in processes.items():
            name = self._signal(run, record.grace_ms, now)
            if name:
                signal_run(record, signal.SIGTERM if name == "TERM" else signal.SIGKILL)
        for run, (container, grace_ms) in containers.items():
            name = self._signal(run, grace_ms, now)
            if name and self._engine is not None:
                with contextlib.suppress(OSError, http.client.HTTPException):  # one that hangs shields no other
                    self._engine.kill(container, name)

    def _signal(self, run: int, grace_ms: int, now: int) -> str:
        """Which signal is due for a run, "" = none yet."""
        if run not in self._terminated:
            self._terminated[run] = now
            return "TERM" if min(grace_ms, self._stop_ms) > 0 else "KILL"
        waited = now - self._terminated[run]
        return "KILL" if waited >= min(grace_ms, self._stop_ms, KILL_AFTER_TERM_MAX_MS) else ""


def hold_lock(directory: Path) -> int | None:
    """The lock that says a leash is there; None when somebody else holds it."""
    handle = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def main() -> None:
    """Entry point of the process."""
    directory = Path(sys.argv[1])
    if hold_lock(directory) is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    docker_socket = sys.argv[5] if len(sys.argv) > 5 else ""
    Leash(directory, sys.argv[2], sys.argv[3], int(sys.argv[4]), docker_socket).run()


if __name__ == "__main__":
    main()
