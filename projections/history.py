"""The history: every job that ever ended, in SQLite, written by the same fold.

The state forgets a job some thousand later finishes; this file does not. It is disposable: made
anew by replaying the log (`projections.backfill`). It is written as the fold goes, in batches,
without syncing. `base` is the sequence up to which it is complete from the start of the log; a
replica that starts from a newer snapshot writes on from there (`live`) while the part between
is filled in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.views.present import job_view
from eventsched.views import JobView

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs(
  tenant TEXT NOT NULL, job_id TEXT NOT NULL, seq INTEGER NOT NULL, array_of TEXT NOT NULL,
  member INTEGER NOT NULL, state TEXT NOT NULL, node TEXT NOT NULL, finished_ms INTEGER NOT NULL, doc BLOB NOT NULL,
  PRIMARY KEY(job_id, tenant, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_seq ON jobs(array_of, seq);
"""
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Job)


def _decode(doc: bytes) -> JobView:
    return job_view(_NO_STATE, _decoder.decode(doc))


_NO_STATE = ClusterState()
"""An ended job's view needs nothing of the state."""


class History:
    """One history file of one log."""

    def __init__(self, path: Path, log_id: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + _SCHEMA)
        if self._meta("log") != log_id:  # another cluster's, or new
            self._db.execute("DELETE FROM jobs")
            self._db.execute("DELETE FROM meta")
            self._set_meta("log", log_id)
        self._pending: list[tuple[str, str, int, str, int, str, str, int, bytes]] = []

    # ---- coverage ---------------------------------------------------------------------------

    @property
    def base(self) -> int:
        """Complete from the first event up to this sequence."""
        return int(self._meta("base") or 0)

    @property
    def live_from(self) -> int:
        """Start of the part written behind a snapshot, 0 = there is none."""
        return int(self._meta("live_from") or 0)

    def start(self, seq: int) -> int:
        """A fold goes on from the state at `seq`: the sequence up to which must be filled in (0 = nothing)."""
        if self.base >= seq:
            self._set_meta("live_from", "0")
        else:
            live_from, live_to = self.live_from, int(self._meta("live_to") or 0)
            if not live_from or not live_from <= seq <= live_to:
                self._set_meta("live_from", str(seq))
        return self.live_from

    def filled(self, upto: int) -> None:
        """The gap up to `upto` has been filled: the two parts are one."""
        self._db.execute("BEGIN IMMEDIATE")
        if self.live_from and upto >= self.live_from:
            self._set_meta("base", self._meta("live_to") or str(upto))
            self._set_meta("live_from", "0")
        self._db.execute("COMMIT")

    def _meta(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return row[0] if row else ""

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (name, value))

    # ---- writing ----------------------------------------------------------------------------

    def take(self, ended: list[Job]) -> None:
        """Note jobs that have just ended."""
        for job in ended:
            tenant, _, job_id = job.key.partition("/")
            array_of = job.parent_key if job.member >= 0 else ""
            ids = (tenant, job_id, job.seq, array_of, job.member)
            self._pending.append((*ids, job.state, job.node, job.finished_ms, _encode(job)))

    def flush(self, seq: int) -> None:
        """Write what was noted; the file then covers everything up to `seq`."""
        self._db.execute("BEGIN IMMEDIATE")
        self._write()
        self._set_meta("live_to" if self.live_from else "base", str(seq))
        self._db.execute("COMMIT")

    def write_gap(self) -> None:
        """Write what was noted while filling a gap; coverage changes only when it is `filled`."""
        self._db.execute("BEGIN IMMEDIATE")
        self._write()
        self._db.execute("COMMIT")

    def _write(self) -> None:
        rows, self._pending = self._pending, []
        self._db.executemany("INSERT OR REPLACE INTO jobs VALUES(?,?,?,?,?,?,?,?,?)", rows)

    # ---- reading ----------------------------------------------------------------------------

    def find(self, job_id: str, tenant: str = "") -> list[JobView]:
        """Jobs of exactly this id, the newest of each tenant."""
        where, values = "job_id=?", [job_id]
        if tenant:
            where, values = "job_id=? AND tenant=?", [job_id, tenant]
        rows = self._db.execute(f"SELECT doc, tenant FROM jobs WHERE {where} ORDER BY seq DESC", values)
        newest: dict[str, JobView] = {}
        for doc, owner in rows:
            newest.setdefault(owner, _decode(doc))
        return list(newest.values())

    def ids_starting(self, prefix: str, tenant: str = "", limit: int = 20) -> list[tuple[str, str]]:
        """(tenant, job id) pairs whose id begins with `prefix`; members of arrays are left out."""
        rows = self._db.execute(
            "SELECT DISTINCT tenant, job_id FROM jobs WHERE job_id>=? AND job_id<? AND array_of=''"
            " AND (?='' OR tenant=?) LIMIT ?",
            (prefix, prefix + "\x7f", tenant, tenant, limit),
        )
        return [(owner, job_id) for owner, job_id in rows]

    def page(
        self, *, before_seq: int, tenant: str, states: list[str], node: str, since_ms: int, limit: int
    ) -> list[JobView]:
        """Ended jobs submitted before sequence `before_seq`, newest first; members of arrays are left out."""
        marks = ",".join("?" * len(states))
        rows = self._db.execute(
            "SELECT doc FROM jobs WHERE array_of='' AND seq<? AND (?='' OR tenant=?) AND (?='' OR node=?)"
            f" AND finished_ms>=?{f' AND state IN ({marks})' if states else ''} ORDER BY seq DESC LIMIT ?",
            (before_seq, tenant, tenant, node, node, since_ms, *states, limit),
        )
        return [_decode(doc) for (doc,) in rows]

    def members(self, array_key: str, array_seq: int) -> Iterator[tuple[int, JobView]]:
        """Ended members of an array, by index."""
        rows = self._db.execute(
            "SELECT member, doc FROM jobs WHERE array_of=? AND seq=? ORDER BY member", (array_key, array_seq)
        )
        return ((index, _decode(doc)) for index, doc in rows)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
