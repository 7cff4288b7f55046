"""What this node offers: found by psutil and NVML, or said by settings (for emulated nodes)."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

from eventsched.agents.gpu import Gpus
from eventsched.errors import EventschedError, SettingsError
from eventsched.ids import ID_RULE, id_from_host_name, is_id
from eventsched.resources import Capacity, Gpu
from eventsched.units import parse_cpus_millis, parse_gpus, parse_memory

GIB = 1024**3


def capacity(
    gpus: Gpus,
    node: str,
    cpus: str = "",
    memory: str = "",
    gpu_list: str = "",
    environment: Mapping[str, str] = os.environ,
) -> Capacity:
    """The node's capacity. Texts as typed (`8`, `32G`, `A100:4,H100:2`; gpu_list `none` = no GPUs)
    come first, then EXECUTOR_CPUS, EXECUTOR_MEMORY (a bare number is GB) and EXECUTOR_GPUS, then
    what the machine has. Raises EventschedError naming the setting."""
    cpus = cpus or environment.get("EXECUTOR_CPUS", "")
    cpu_millis = parse_cpus_millis(cpus, "cpus") if cpus else (psutil.cpu_count() or 1) * 1000
    memory = memory or _with_unit(environment.get("EXECUTOR_MEMORY", ""))
    memory_bytes = parse_memory(memory, "memory") if memory else int(psutil.virtual_memory().total)
    gpu_list = gpu_list or environment.get("EXECUTOR_GPUS", "")
    devices = emulated_gpus(node, gpu_list) if gpu_list else gpus.devices()
    return Capacity(cpu_millis, memory_bytes, devices)


def _with_unit(text: str) -> str:
    return f"{text}G" if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else text


def emulated_gpus(node: str, text: str) -> tuple[Gpu, ...]:
    """Devices that only exist in the books: `A100:4,H100:2`; `none` = none."""
    if text.strip().lower() == "none":
        return ()
    found: list[Gpu] = []
    for part in text.split(","):
        try:
            model, count = parse_gpus(part)
        except EventschedError as error:
            raise SettingsError(f"gpus: {part!r} is not MODEL:COUNT", "e.g. A100:4,H100:2 or none") from error
        model = model or "GPU"
        start = sum(1 for gpu in found if gpu.model == model)
        found += [Gpu(f"EMU-{node}-{model}-{start + index}", model) for index in range(count)]
    return tuple(found)


def node_id(given: str = "", environment: Mapping[str, str] = os.environ) -> str:
    """The node's id: as given, else EXECUTOR_ID, else the host's name."""
    name = given or environment.get("EVENTSCHED_NODE") or environment.get("EXECUTOR_ID") or ""
    if name and not is_id(name):
        raise SettingsError(f"node {name!r} is not an id", f"{ID_RULE}; dots of a host name become '-'")
    return name or id_from_host_name(socket.gethostname())


def machine_id(directory: Path, environment: Mapping[str, str] = os.environ) -> str:
    """Which machine this is: EVENTSCHED_MACHINE_ID, else /etc/machine-id, else one drawn and kept here."""
    if environment.get("EVENTSCHED_MACHINE_ID"):
        return environment["EVENTSCHED_MACHINE_ID"]
    try:
        found = Path("/etc/machine-id").read_text().strip()
    except OSError:
        found = ""
    if found:
        return found
    kept = directory / "machine-id"
    if not kept.exists():
        fresh = directory / f"machine-id.{os.getpid()}"
        fresh.write_text(uuid.uuid4().hex)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, kept)  # whole, whoever is killed in between; of several agents the first one's counts
        fresh.unlink()
    return kept.read_text().strip()
