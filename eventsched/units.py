"""Units at the edges: what people type (`512M`, `1h30m`, `0.5`) to integers, and back."""

from __future__ import annotations

import re
from decimal import Decimal

from eventsched.errors import InvalidSpec

_BYTES = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,18})?"
_DURATION = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_GPU_MODEL = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")
DURATION_MAX_MS = 3_650 * _MS["d"]
"""Ten years: longer than anything here waits or runs."""


def parse_memory(text: str, what: str = "memory") -> int:
    """Bytes from `512M`, `4G`, `1.5GiB`; a bare number is refused, as its unit is a guess."""
    match = re.fullmatch(rf"({_NUMBER})\s*([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidSpec(f"{what}: {text!r} is not an amount of memory", "write it with a unit, e.g. 512M or 4G")
    return int(Decimal(match[1]) * _BYTES[match[2].upper()])


def parse_duration_ms(text: str, what: str = "duration") -> int:
    """Milliseconds from `90s`, `10m`, `1h30m`, `250ms`."""
    parts = _DURATION.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise InvalidSpec(f"{what}: {text!r} is not a duration", "write it with units, e.g. 90s, 10m or 1h30m")
    total = sum(int(Decimal(number) * _MS[unit]) for number, unit in parts)
    if total > DURATION_MAX_MS:
        raise InvalidSpec(f"{what}: {text!r} is longer than ten years", "give at most 3650d")
    return total


def parse_cpus_millis(text: str, what: str = "cpus") -> int:
    """Thousandths of a core from `2`, `0.5`."""
    if not re.fullmatch(_NUMBER, text.strip()):
        raise InvalidSpec(f"{what}: {text!r} is not a number of cores", "e.g. 2 or 0.5")
    value = Decimal(text.strip()) * 1000
    if value != int(value) or value <= 0:
        raise InvalidSpec(f"{what}: {text!r} is not a positive multiple of 0.001 cores", "e.g. 2 or 0.5")
    return int(value)


def parse_gpus(text: str, what: str = "gpus") -> tuple[str, int]:
    """`("A100", 2)` from `A100:2`, `("", 2)` from `2`, `("A100", 1)` from `A100`."""
    match = re.fullmatch(r"(?:(?P<model>[^:]+):)?(?P<count>[0-9]{1,9})|(?P<alone>[^:]+)", text.strip())
    model = (match["model"] or match["alone"] or "") if match else ""
    if match is None or (model and not _GPU_MODEL.fullmatch(model)):
        raise InvalidSpec(f"{what}: {text!r} is not MODEL:COUNT", "e.g. A100:2, or 1 for any model")
    return model, int(match["count"] or 1)


def parse_money_micros(text: str, what: str = "price") -> int:
    """Millionths of the currency from `2`, `0.5`, `12.345678`."""
    if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", text.strip()) or Decimal(text) * 1_000_000 > 2**53:
        raise InvalidSpec(f"{what}: {text!r} is no amount from 0 to 9007199254 with six decimals at most", "e.g. 2.5")
    return int(Decimal(text) * 1_000_000)


def parse_percent(text: str, what: str) -> int:
    """A whole number of percent from `50` or `50%`."""
    number = text.strip().removesuffix("%").strip()
    if not number.isascii() or not number.isdigit():
        raise InvalidSpec(f"{what}: {text!r} is not a whole number of percent", "e.g. 50")
    return int(number)


def format_money(micros: int) -> str:
    """`12.50`, `0.0042`: two decimals, or as many as it takes."""
    whole, part = divmod(abs(micros), 1_000_000)
    decimals = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{whole}.{decimals}"


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
