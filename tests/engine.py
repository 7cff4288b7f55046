"""Looking at containers behind the agent's back, and a Docker daemon of a test's own."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


async def docker(*arguments: str, host: str = "") -> str:
    """The output of a docker command."""
    command = ["docker", *(["-H", host] if host else []), *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = await process.communicate()
    assert process.returncode == 0, f"{' '.join(command)}: {err.decode()}"
    return out.decode()


async def containers_of(job_id: str, host: str = "") -> list[dict[str, Any]]:
    """`docker inspect` of every container of a job, oldest first."""
    ids = (await docker("ps", "-aq", "--filter", f"label=eventsched.job={job_id}", host=host)).split()
    if not ids:
        return []
    found: list[dict[str, Any]] = json.loads(await docker("inspect", *ids, host=host))
    return sorted(found, key=lambda one: one["State"]["StartedAt"])


def engine_time(text: str) -> float:
    """Seconds of one of the engine's time stamps."""
    return datetime.fromisoformat(text[:26].rstrip("Z")).replace(tzinfo=UTC).timestamp()


async def remove_all(cluster_id: str) -> None:
    """Remove every container of a cluster."""
    ids = (await docker("ps", "-aq", "--filter", f"label=eventsched.cluster={cluster_id}")).split()
    if ids:
        await docker("rm", "-f", *ids)


class Daemon:
    """A dockerd of our own over a containerd of our own (as Debian runs them), without network, with a
    busybox image. The daemon can be killed and started while containerd and its containers go on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = f"unix://{directory}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            # a network of its own: a daemon without a bridge removes docker0, which is the machine's
            command = ["unshare", "-n", name, *arguments]
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    async def start(self, *options: str) -> None:
        """Start it and wait until it answers."""
        here = self.directory
        if self._containerd is None:
            (here / "containerd.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
            self._containerd = self._spawn(
                "containerd",
                *("--config", f"{here}/containerd.toml", "--address", f"{here}/containerd.sock"),
                *("--root", f"{here}/containerd-root", "--state", f"{here}/containerd-state"),
            )
            while not (here / "containerd.sock").exists():
                assert self._containerd.poll() is None, (here / "containerd.log").read_text()[-1000:]
                await asyncio.sleep(0.05)
        self.process = self._spawn(
            "dockerd",
            *("--data-root", f"{here}/data", "--exec-root", f"{here}/exec", "--pidfile", f"{here}/pid"),
            *("--host", self.host, "--containerd", f"{here}/containerd.sock"),
            *("--bridge", "none", "--iptables=false", "--ip-masq=false", *options),
        )
        for _ in range(300):
            try:
                await docker("version", host=self.host)
                return
            except AssertionError:
                await asyncio.sleep(0.1)
        raise AssertionError((here / "dockerd.log").read_text()[-1000:])

    async def load_busybox(self) -> None:
        """Copy the image over from the machine's engine."""
        archive = self.directory / "busybox.tar"
        await docker("save", "-o", str(archive), "busybox:latest")
        await docker("load", "-i", str(archive), host=self.host)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon with a signal; containerd stays."""
        assert self.process is not None
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait)

    async def clean_up(self) -> None:
        """End everything, by process id."""
        if self.process is not None and self.process.poll() is None:
            ids = (await docker("ps", "-aq", host=self.host)).split()
            if ids:
                await docker("rm", "-f", *ids, host=self.host)
            await self.end()
        if self._containerd is not None:
            self._containerd.terminate()
            await asyncio.to_thread(self._containerd.wait)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((one for one in mounts if one.startswith(f"{self.directory}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)  # a killed daemon leaves its mounts behind
        shutil.rmtree(self.directory, ignore_errors=True)
