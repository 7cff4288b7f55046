"""Spot notice: how an agent learns that its machine is about to be taken away.

A signal (SIGUSR1), a file that appears, or a command that succeeds: whatever the provider offers. The
agent then says so in the log, stops its runs within the notice, and leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import structlog

_log = structlog.get_logger("eventsched.agent")

LOOK_EVERY_S = 1.0
COMMAND_TIMEOUT_S = 10.0


async def notice(file: str, command: tuple[str, ...]) -> str:
    """Wait for the notice; what it was. Never returns without a file and a command to look at."""
    trouble = ""
    while file or command:
        found, why = _look(file)
        if why and why != trouble:
            _log.error("spot_file_not_seen", file=file, error=why)
        trouble = why
        if found:
            return f"file {file}"
        if command and await _succeeds(command):
            return f"command {command[0]}"
        await asyncio.sleep(LOOK_EVERY_S)
    await asyncio.Event().wait()
    raise AssertionError


def _look(file: str) -> tuple[bool, str]:
    """Whether the file is there; what keeps one from telling."""
    try:
        return bool(file) and Path(file).exists(), ""
    except OSError as error:
        return False, str(error.strerror)


async def _succeeds(command: tuple[str, ...]) -> bool:
    try:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
    except OSError as error:
        _log.error("spot_command_failed", command=command[0], error=str(error))
        return False
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            return await child.wait() == 0
    except TimeoutError:
        _log.warning("spot_command_slow", command=command[0], timeout_s=COMMAND_TIMEOUT_S)
        return False
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
