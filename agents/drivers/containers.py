"""What a run's container is made of (names, labels, limits, isolation), and what the engine's words
about one mean. No I/O but resolving paths."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any

import msgspec

from eventsched.agents.drivers.base import Place, StartFailed, run_environment
from eventsched.agents.effects import Launch
from eventsched.spec import JobSpec

LABEL = "eventsched"
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
PIDS_DEFAULT = 4096
LOG_FILE_MAX = "64m"


class DockerLimits(msgspec.Struct, frozen=True):
    """What the operator allows on this node.

    volumes: host directories jobs may mount, `PATH` or `PATH:ro`. host_network: allow it.
    pull_stall_s: give up a pull that makes no progress for this long.
    """

    volumes: tuple[str, ...] = ()
    host_network: bool = False
    pull_stall_s: float = 8.0


def container_config(launch: Launch, place: Place, limits: DockerLimits, network_mode: str) -> dict[str, Any]:
    """The body of the engine's create call. Raises StartFailed(volume_refused)."""
    spec, asked = launch.spec, launch.spec.resources
    host: dict[str, Any] = {
        "NetworkMode": network_mode,
        "NanoCpus": asked.cpu_millis * 1_000_000,
        "PidsLimit": asked.pids_max or PIDS_DEFAULT,
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "SecurityOpt": ["no-new-privileges"],
        "RestartPolicy": {"Name": "no"},
        "Init": True,
        "Binds": [_bind(limits, volume.source, volume.target, volume.read_only) for volume in spec.volumes],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_FILE_MAX}},
    }
    cores = os.cpu_count() or 1
    host["NanoCpus"] = min(host["NanoCpus"], cores * 1_000_000_000)  # an emulated node may promise more
    if asked.memory_bytes:
        host["Memory"] = host["MemorySwap"] = asked.memory_bytes
    devices = [uuid for uuid in launch.gpus if uuid.startswith(("GPU-", "MIG-"))]
    if devices:
        host["DeviceRequests"] = [{"Driver": "nvidia", "DeviceIDs": devices, "Capabilities": [["gpu"]]}]
    config: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in run_environment(place, launch).items()],
        "Labels": {
            f"{LABEL}.cluster": place.cluster,
            f"{LABEL}.node": place.node,
            f"{LABEL}.tenant": launch.tenant,
            f"{LABEL}.job": launch.job_id,
            f"{LABEL}.run": str(launch.run),
            f"{LABEL}.grace_ms": str(spec.stop_grace_ms),
            f"{LABEL}.keep": "1" if spec.on_disconnect == "keep" else "0",
            f"{LABEL}.launch": msgspec.json.encode(launch).decode(),
        },
        "HostConfig": host,
    }
    if spec.command:
        config["Cmd"] = list(spec.command)
    if spec.workdir:
        config["WorkingDir"] = spec.workdir
    return config


def _bind(limits: DockerLimits, source: str, target: str, read_only: bool) -> str:
    real = os.path.realpath(source)
    for allowed in limits.volumes:
        path, _, mode = allowed.partition(":")
        inside = real == os.path.realpath(path) or real.startswith(os.path.realpath(path).rstrip("/") + "/")
        if inside and (read_only or mode != "ro"):
            return f"{real}:{target}:{'ro' if read_only else 'rw'}"
    allowed_text = ", ".join(limits.volumes) or "none"
    raise StartFailed("volume_refused", f"{source} is not allowed here; allowed: {allowed_text}")


def start_failure(spec: JobSpec, message: str) -> StartFailed:
    """The engine's words for a command that cannot run, told apart."""
    text = message.lower()
    command = spec.command[0] if spec.command else "the image's command"
    if "executable file not found" in text or "no such file or directory" in text:
        return StartFailed("command_not_found", f"{command}: not found in image {spec.image}")
    if "permission denied" in text:
        return StartFailed("command_not_executable", f"{command}: may not be executed in image {spec.image}")
    return StartFailed("engine_error", message.strip()[:400])


def _engine_time(text: str) -> float:
    """Seconds since 1970 of one of the engine's time stamps (nanoseconds are cut)."""
    return datetime.fromisoformat(text[:26].rstrip("Z").split("+")[0] + "+00:00").timestamp()


def finished_s(state: dict[str, Any]) -> float:
    """When it ended, in seconds since 1970."""
    return _engine_time(state["FinishedAt"])


def ran_ms(state: dict[str, Any]) -> int:
    """How long it has run."""
    started = _engine_time(state["StartedAt"])
    until = time.time() if state["Running"] else finished_s(state)
    return max(0, int((until - started) * 1000))


def was_started(state: dict[str, Any]) -> bool:
    """Whether it ever ran: one that was only made has the engine's zero time."""
    return not str(state["StartedAt"]).startswith("0001-01-01")
