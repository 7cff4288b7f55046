"""Units at the edges: what people type (`512M`, `1h30m`, `0.5`) to integers, and back."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from eventsched.errors import InvalidSpec

_BYTES = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_memory(text: str, what: str = "memory") -> int:
    """Bytes from `512M`, `4G`, `1.5GiB`; a bare number is refused, as its unit is a guess."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidSpec(f"{what}: {text!r} is not an amount of memory", "write it with a unit, e.g. 512M or 4G")
    return int(Decimal(match[1]) * _BYTES[match[2].upper()])


def parse_duration_ms(text: str, what: str = "duration") -> int:
    """Milliseconds from `90s`, `10m`, `1h30m`, `250ms`."""
    parts = _DURATION.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise InvalidSpec(f"{what}: {text!r} is not a duration", "write it with units, e.g. 90s, 10m or 1h30m")
    return sum(int(Decimal(number) * _MS[unit]) for number, unit in parts)


def parse_cpus_millis(text: str, what: str = "cpus") -> int:
    """Thousandths of a core from `2`, `0.5`."""
    try:
        value = Decimal(text) * 1000
    except InvalidOperation:
        raise InvalidSpec(f"{what}: {text!r} is not a number of cores", "e.g. 2 or 0.5") from None
    if not value.is_finite() or value != int(value) or value <= 0:
        raise InvalidSpec(f"{what}: {text!r} is not a positive multiple of 0.001 cores")
    return int(value)


def parse_gpus(text: str) -> tuple[str, int]:
    """`("A100", 2)` from `A100:2`, `("", 2)` from `2`, `("A100", 1)` from `A100`."""
    model, separator, count = text.strip().rpartition(":")
    if not separator:
        model, count = ("", text.strip()) if text.strip().isdigit() else (text.strip(), "1")
    if not count.isdigit() or (separator and not model):
        raise InvalidSpec(f"gpus: {text!r} is not MODEL:COUNT", "e.g. A100:2, or 1 for any model")
    return model, int(count)


def format_bytes(value: int) -> str:
    """`1.5G`, `512M`; "-" for 0."""
    if not value:
        return "-"
    for unit in ("T", "G", "M", "K"):
        size = _BYTES[unit]
        if abs(value) >= size:
            return f"{value / size:.1f}".removesuffix(".0") + unit
    return f"{value}B"


def format_cpus(millis: int) -> str:
    """`2`, `0.5`."""
    return f"{millis / 1000:g}"


def format_ms(value: int) -> str:
    """A duration in two units at most: `1h05m`, `12.3s`, `250ms`."""
    if value < 1_000:
        return f"{value}ms"
    if value < 60_000:
        return f"{value / 1000:.1f}s"
    if value < 3_600_000:
        return f"{value // 60_000}m{value % 60_000 // 1000:02d}s"
    if value < 86_400_000:
        return f"{value // 3_600_000}h{value % 3_600_000 // 60_000:02d}m"
    return f"{value // 86_400_000}d{value % 86_400_000 // 3_600_000:02d}h"


def format_micros(micros: int) -> str:
    """`2500000` as `2.5`: an amount of money, exactly."""
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    return f"{sign}{micros // 1_000_000}.{micros % 1_000_000:06d}".rstrip("0").rstrip(".")
