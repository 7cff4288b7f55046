"""The history beside a scheduler: opened, written as the fold goes, and filled in where it lacks.

It is a convenience: whatever befalls the file, the scheduler goes on. A damaged one is set aside
and made anew from the log; while the disk takes nothing, what ended is held back, and when that
grows too much no history is kept until the next start, which fills in what is missing.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from pathlib import Path

import structlog

from eventsched.log.link import Link
from eventsched.nats_server import die_with_parent
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.history import DAMAGED, History, is_damage, open_history, set_aside

_log = structlog.get_logger("eventsched.records")
WRITE_AT = 1_000
"""Jobs noted at which they are written: few enough not to hold up the fold for long."""
HELD_MAX = 50_000
RENEWALS_MAX = 3
"""A disk that damages file after file is not worth replaying the log over and over."""


class Records:
    """Keeps one history, if it is told where (`keep`)."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._state = ClusterState()
        self._path: Path | None = None
        self._start_seq = 0
        self._process: asyncio.subprocess.Process | None = None
        self._filling: asyncio.Task[None] | None = None
        self._given_up = ""
        self._trouble = ""
        self._renewals = 0
        self.history: History | None = None

    @property
    def status(self) -> str:
        """`complete`, or what is missing."""
        if self.history is None:
            return f"not kept: {self._given_up}" if self._given_up else "not kept"
        gap = self.history.live_from
        return f"being rebuilt up to sequence {gap}" if gap else "complete"

    def keep(self, state: ClusterState, path: Path) -> None:
        """From now on the fold of `state` is noted in the file at `path`. What the file lacks before the
        sequence at which the fold begins is filled in by a process of its own."""
        self._state, self._path, self._start_seq = state, path, state.seq

    def open(self) -> None:
        """Open (or make) the file. The log has an id once its first event is folded."""
        if self._path is None or self.history is not None or self._given_up:
            return
        try:
            self.history = open_history(self._path, self._log_id)
        except sqlite3.Error as error:
            self._give_up(str(error))
        else:
            self._fill_up_to(self.history.start(self._start_seq))

    @property
    def _log_id(self) -> str:
        return f"{self._state.cluster_id}.{self._state.generation}"

    def take(self, ended: list[Job]) -> None:
        """Note jobs that have just ended: all that ended up to the state's sequence are then noted."""
        self.open()
        if self.history is not None:
            self.history.take(ended)
            if self.history.pending >= WRITE_AT:
                self.flush(self._state.seq)

    def current(self, seq: int) -> History | None:
        """The history with everything in it that ended up to `seq`."""
        if self.history is not None and self.history.pending:
            self.flush(seq)
        return self.history

    def flush(self, seq: int) -> None:
        """Write; the file then covers everything up to `seq`."""
        if self.history is None:
            return
        try:
            self.history.flush(seq)
        except sqlite3.DatabaseError as error:
            self.troubled(error)
        else:
            self._trouble = ""

    def troubled(self, error: sqlite3.DatabaseError) -> None:
        """The file cannot be used at present, or is damaged."""
        history = self.history
        if history is None:
            return
        if is_damage(error) and self._renewals < RENEWALS_MAX:
            self._renew(str(error))
        elif is_damage(error) or history.pending > HELD_MAX:
            self._give_up(str(error))
        elif self._trouble != str(error):
            self._trouble = str(error)
            _log.warning("history_not_written", error=self._trouble, held=history.pending)

    def _renew(self, why: str) -> None:
        """Set the damaged file aside, and fill a new one from the log up to where the fold is now."""
        assert self.history is not None
        assert self._path is not None
        self._renewals += 1
        self._stop_filling()
        self.history.close()
        self.history = None
        try:
            set_aside(self._path, why)
        except OSError as error:
            self._give_up(str(error))
            return
        self._start_seq = self._state.seq
        self.open()

    def _give_up(self, why: str) -> None:
        self._stop_filling()
        if self.history is not None:
            self.history.close()
            self.history = None
        self._given_up = why
        _log.error("history_not_kept", error=why, hint="mend it and start again: what is missing is filled in")

    def close(self, seq: int) -> None:
        """Write and close; a filling process is ended, the next start goes on with it."""
        self._stop_filling()
        self.flush(seq)
        if self.history is not None:
            self.history.close()
            self.history = None

    # ---- filling a gap ------------------------------------------------------------------------

    def _fill_up_to(self, gap: int) -> None:
        if gap and self._path is not None:
            self._filling = asyncio.get_running_loop().create_task(self._fill(self._path, gap))

    def _stop_filling(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
        self._filling = self._process = None

    async def _fill(self, path: Path, upto: int) -> None:
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
        command = [sys.executable, "-m", "eventsched.projections.backfill", str(path), self._log_id, str(upto)]
        self._process = await asyncio.create_subprocess_exec(
            *command, env=environment, preexec_fn=die_with_parent, stdin=asyncio.subprocess.DEVNULL
        )
        code = await self._process.wait()
        if code == DAMAGED:
            self._filling = None  # this task: it ends by itself
            self.troubled(sqlite3.DatabaseError("found while it was being filled"))
        elif code:
            _log.error("history_not_filled", upto=upto, exit_code=code, hint="the next start tries again")
