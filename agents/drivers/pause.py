"""The pause image: one program that does nothing, to hold a tenant's network namespace.

A container needs an image with something in it that stays; nothing may be assumed about the
images of jobs, and nothing may be pulled. So the image is made here: a static program of a few
instructions, put together by hand (`pause` for ever), in a tar archive that Docker imports.
"""

from __future__ import annotations

import io
import platform
import struct
import tarfile

PAUSE_IMAGE = "eventsched/pause:1"

# x86-64: mov eax, 34 (pause); syscall; jmp back
_X86_64 = bytes.fromhex("b8220000000f05ebf7")
# aarch64: x0..x3 = 0; x8 = 73 (ppoll); svc 0; b back
_AARCH64 = struct.pack("<7I", 0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001, 0x17FFFFFA)
_MACHINES = {"x86_64": (62, _X86_64), "amd64": (62, _X86_64), "aarch64": (183, _AARCH64), "arm64": (183, _AARCH64)}
_BASE = 0x400000
_HEADERS = 64 + 56


def pause_program(machine: str = "") -> bytes:
    """An ELF executable that sleeps for ever; KeyError for a machine we have no code for."""
    number, code = _MACHINES[(machine or platform.machine()).lower()]
    size = _HEADERS + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes(9),
        2,
        number,
        1,
        _BASE + _HEADERS,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def pause_archive() -> bytes:
    """A root file system with `/pause` in it, as Docker imports it."""
    program = pause_program()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()
