"""The leash: a tiny process of its own that stops a node's runs when the lease runs out.

Containers outlive a dead or frozen agent, and nobody else can reach them. This process knows
nothing of the log: it reads one file, and when the deadline in it has passed it stops whatever
runs here under the node's labels, again and again until a new lease is written. It ends when the
lease is dropped. Standard library only, so that it is small and starts fast.

Processes and containers are seen to by threads of their own, and each container is, too: an engine
that hangs shields nothing but what hangs in it.

Run as `python -m eventsched.agents.leash DIRECTORY`; all else stands in the lease, because a
restarted agent may have other settings.
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
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from eventsched.agents.lease import Terms, boot_ms, note_fenced, read_lease
from eventsched.agents.processes import boot_id, live_process_runs, signal_run

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


class _Threads:
    """Things done aside, each by a thread of its own, and none twice at a time."""

    def __init__(self) -> None:
        self._threads: dict[str, threading.Thread] = {}

    def do(self, name: str, work: Callable[[], None]) -> None:
        """Do it, unless it is still being done."""
        self._threads = {one: thread for one, thread in self._threads.items() if thread.is_alive()}
        if name not in self._threads:
            self._threads[name] = threading.Thread(target=_attempt, args=(work,), daemon=True)
            self._threads[name].start()


def _attempt(work: Callable[[], None]) -> None:
    """What fails is tried again soon anyway."""
    with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
        work()


class Leash:
    """One node's leash."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boot = boot_id()
        self._lease: tuple[int, Terms] | None = None
        self._terminated: dict[str, dict[int, int]] = {"processes": {}, "containers": {}}
        self._noted: dict[int, None] = {}
        self._sweeps, self._kills = _Threads(), _Threads()

    def run(self) -> None:
        """Watch until the lease is dropped."""
        while True:
            with contextlib.suppress(OSError, ValueError):  # unreadable: the last one counts
                self._lease = read_lease(self._directory)
                if self._lease is None:
                    return
            remaining_ms = self._remaining_ms()
            if remaining_ms > 0:
                for terminated in self._terminated.values():
                    terminated.clear()
                self._noted.clear()
                time.sleep(min(POLL_S * 5, remaining_ms / 1000))
                continue
            self._sweeps.do("processes", self._sweep_processes)
            self._sweeps.do("containers", self._sweep_containers)
            time.sleep(POLL_S)

    def _remaining_ms(self) -> int:
        return self._lease[0] - boot_ms() if self._lease is not None else 1_000

    def _sweep_processes(self) -> None:
        runs = live_process_runs(self._directory)
        for run, number in self._due("processes", {run: live.record.grace_ms for run, live in runs.items()}):
            signal_run(self._directory, runs[run], number, self._boot)

    def _sweep_containers(self) -> None:
        terms = self._lease[1] if self._lease is not None else None
        if terms is None or not terms.docker_socket:
            return
        engine = _Engine(terms.docker_socket, terms.cluster, terms.node)
        runs = engine.running()
        for run, number in self._due("containers", {run: grace_ms for run, (_, grace_ms) in runs.items()}):
            self._kills.do(runs[run][0], partial(engine.kill, runs[run][0], number.name))

    def _due(self, kind: str, graces_ms: dict[int, int]) -> Iterator[tuple[int, signal.Signals]]:
        """The signals that are due: SIGTERM first, SIGKILL for what had its grace; noted down before.
        None if there is a lease again: finding out what runs may have taken long."""
        lease = self._lease
        if lease is None or lease[0] > boot_ms():
            return
        self._note(graces_ms)
        terminated, now = self._terminated[kind], boot_ms()
        for run, asked_ms in graces_ms.items():
            grace_ms = min(asked_ms, lease[1].grace_max_ms, KILL_AFTER_TERM_MAX_MS)
            if run not in terminated:
                terminated[run] = now
                yield run, signal.SIGTERM if grace_ms > 0 else signal.SIGKILL
            elif now - terminated[run] >= grace_ms:
                yield run, signal.SIGKILL

    def _note(self, runs: Iterable[int]) -> None:
        fresh = [run for run in runs if run not in self._noted]
        with contextlib.suppress(OSError):  # a full disk must not keep anything running
            note_fenced(self._directory, fresh)
            self._noted.update(dict.fromkeys(fresh))


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
    Leash(directory).run()


if __name__ == "__main__":
    main()
