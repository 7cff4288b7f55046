"""The history beside a scheduler: opened, written as the fold goes, and filled in where it lacks."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import structlog

from eventsched.log.link import Link
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.history import History

_log = structlog.get_logger("eventsched.records")


class Records:
    """Keeps one history; before `open` the ended jobs it is given are held back."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._held: list[Job] = []
        self._process: asyncio.subprocess.Process | None = None
        self._filling: asyncio.Task[None] | None = None
        self.history: History | None = None

    @property
    def status(self) -> str:
        """`complete`, or what is missing."""
        if self.history is None:
            return "not kept"
        gap = self.history.live_from
        return f"being rebuilt up to sequence {gap}" if gap else "complete"

    def open(self, state: ClusterState, path: Path, start_seq: int) -> None:
        """Open (or make) the file. The fold began behind `start_seq`: what the file lacks before that
        is filled in by a process of its own."""
        log_id = f"{state.cluster_id}.{state.generation}"
        self.history = History(path, log_id)
        gap = self.history.start(start_seq)
        self.take(self._held)
        self._held = []
        if gap:
            self._filling = asyncio.get_running_loop().create_task(self._fill(path, log_id, gap))

    def take(self, ended: list[Job]) -> None:
        """Note jobs that have just ended."""
        if self.history is None:
            self._held.extend(ended)
        else:
            self.history.take(ended)

    def flush(self, seq: int) -> None:
        """Write; the file then covers everything up to `seq`."""
        if self.history is not None:
            self.history.flush(seq)

    def close(self, seq: int) -> None:
        """Write and close; a filling process is ended, the next start goes on with it."""
        if self._filling is not None:
            self._filling.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
        self.flush(seq)
        if self.history is not None:
            self.history.close()
            self.history = None

    async def _fill(self, path: Path, log_id: str, upto: int) -> None:
        options = self._link.options
        environment = {
            **os.environ,
            "EVENTSCHED_NATS": options.url,
            "EVENTSCHED_NATS_USER": options.user,
            "EVENTSCHED_NATS_PASSWORD": options.password,
            "EVENTSCHED_NATS_TOKEN": options.token,
            "EVENTSCHED_NATS_CREDS": options.credentials_file,
            "EVENTSCHED_NATS_NKEY_SEED": options.nkey_seed,
            "EVENTSCHED_NATS_CA": options.tls_ca,
            "EVENTSCHED_NATS_CERT": options.tls_cert,
            "EVENTSCHED_NATS_KEY": options.tls_key,
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "eventsched.projections.backfill", str(path), log_id, str(upto), env=environment
        )
        code = await self._process.wait()
        if code:
            _log.error("history_not_filled", upto=upto, exit_code=code)
