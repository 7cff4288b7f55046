"""GPUs of this machine, by NVML (`pynvml`): what there is, and how busy it is.

A machine without GPUs, driver or library has none; that is no error. Names are short: `NVIDIA
A100-SXM4-80GB` is model `A100`, variant `A100-SXM4-80GB`.
"""

from __future__ import annotations

import re
from typing import Any

import structlog

from eventsched.resources import Gpu

_log = structlog.get_logger("eventsched.gpu")
_BRANDS = re.compile(r"^(NVIDIA|Tesla|GeForce|Quadro)\s+", re.IGNORECASE)
_TWO_WORDS = ("RTX", "GTX", "TITAN")


def model_and_variant(name: str) -> tuple[str, str]:
    """Short model and longer variant of a device name as NVML gives it."""
    text = name.strip()
    while (shorter := _BRANDS.sub("", text)) != text:
        text = shorter
    words = text.split()
    if not words:
        return name or "GPU", ""
    if words[0].upper() in _TWO_WORDS and len(words) > 1:
        return "-".join(words[:2]), "-".join(words)
    return words[0].split("-")[0], "-".join(words)


class Gpus:
    """NVML, opened once."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: dict[str, Any] = {}
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception as error:  # no library, no driver, no right: then there are no GPUs for us
            _log.debug("no_nvml", error=str(error))
            return
        self._nvml = pynvml

    def devices(self) -> tuple[Gpu, ...]:
        """All devices, in NVML's order."""
        if self._nvml is None:
            return ()
        found = []
        for index in range(self._nvml.nvmlDeviceGetCount()):
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(self._nvml.nvmlDeviceGetUUID(handle))
            model, variant = model_and_variant(_text(self._nvml.nvmlDeviceGetName(handle)))
            memory = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total)
            self._handles[uuid] = handle
            found.append(Gpu(uuid, model, variant, memory))
        return tuple(found)

    def utilisation(self) -> dict[str, int]:
        """Percent busy by UUID; a device that does not say is left out."""
        found = {}
        for uuid, handle in self._handles.items():
            try:
                found[uuid] = int(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            except self._nvml.NVMLError:
                continue
        return found


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
