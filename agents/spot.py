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
    while file or command:
        if file and Path(file).exists():
            return f"file {file}"
        if command and await _succeeds(command):
            return f"command {command[0]}"
        await asyncio.sleep(LOOK_EVERY_S)
    await asyncio.Event().wait()
    raise AssertionError


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
