"""The history: every job that ever ended, in SQLite, written by the same fold.

The state forgets a job some thousand later finishes; this file does not. It is disposable: made
anew by replaying the log (`projections.backfill`). It is written as the fold goes, in batches,
without syncing. `base` is the sequence up to which it is complete from the start of the log; a
replica that starts from a newer snapshot writes on from there (`live`) while the part between
is filled in.
"""

from __future__ import annotations

import heapq
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import msgspec
import structlog

from eventsched.projections.cluster.state import TERMINAL, ClusterState, Job
from eventsched.projections.views.present import job_view
from eventsched.views import JobView

_log = structlog.get_logger("eventsched.history")

# Each index serves one way of asking (see `_driver`). Those for pages leave out members of arrays, and
# carry all that pages are filtered by, so that a job that is skipped costs no look at its row.
_SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs(
  tenant TEXT NOT NULL, job_id TEXT NOT NULL, seq INTEGER NOT NULL, array_of TEXT NOT NULL,
  member INTEGER NOT NULL, state TEXT NOT NULL, node TEXT NOT NULL, finished_ms INTEGER NOT NULL, doc BLOB NOT NULL,
  PRIMARY KEY(job_id, tenant, seq)) WITHOUT ROWID;
CREATE INDEX by_seq ON jobs(seq, tenant, state, node, finished_ms) WHERE array_of='';
CREATE INDEX by_tenant ON jobs(tenant, state, seq, node, finished_ms) WHERE array_of='';
CREATE INDEX by_state ON jobs(state, seq, tenant, node, finished_ms) WHERE array_of='';
CREATE INDEX by_node ON jobs(node, seq, tenant, state, finished_ms) WHERE array_of='';
CREATE INDEX by_end ON jobs(finished_ms, seq) WHERE array_of='';
CREATE INDEX by_id ON jobs(job_id, tenant) WHERE array_of='';
CREATE INDEX by_array ON jobs(array_of, seq, member, state, node) WHERE array_of<>'';
"""
_SCHEMA_VERSION = 2
_COLUMNS = "tenant, job_id, seq, array_of, member, state, node, finished_ms, doc"
_MAX = 2**63 - 1
_WINDOW = 10_000
DAMAGED = 3
"""Exit code of a process that found the file damaged: whoever keeps the file sets it aside."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Job).decode

_NO_STATE = ClusterState()
"""An ended job's view needs nothing of the state."""


def _view(doc: bytes) -> JobView:
    return job_view(_NO_STATE, _decode(doc))


def _driver(tenant: str, states: list[str], node: str) -> tuple[str, list[str]]:
    """The index to walk from its newest job on, and the states for each of which it is walked by itself
    ("" = whatever the state): so that what is asked for is met soon, however rare it is."""
    wanted = list(dict.fromkeys(states))
    if node:
        return "by_node", wanted or [""]
    if tenant:
        return "by_tenant", wanted or list(TERMINAL)
    return ("by_state", wanted) if wanted else ("by_seq", [""])


def open_history(path: Path, log_id: str) -> History:
    """Open the file, or make it. A damaged one is set aside: what it held is in the log."""
    try:
        return History(path, log_id)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        set_aside(path, str(error))
        return History(path, log_id)


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """True when the file itself is at fault: not the disk, not its permissions, not we (those are subclasses)."""
    return type(error) is sqlite3.DatabaseError


def set_aside(path: Path, why: str) -> None:
    """Rename a damaged file, in place of one that was set aside before."""
    damaged = path.with_name(path.name + ".damaged")
    for ending in ("", "-wal", "-shm"):
        if os.path.exists(f"{path}{ending}"):
            os.replace(f"{path}{ending}", f"{damaged}{ending}")
    _log.error("history_set_aside", file=str(damaged), error=why, hint="it is made anew from the log")


class History:
    """One history file of one log."""

    def __init__(self, path: Path, log_id: str, patience_s: float = 0.5) -> None:
        """patience_s: how long to wait while another process writes. Raises sqlite3.DatabaseError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._pending: list[tuple[str, str, int, str, int, str, str, int, bytes]] = []
        self._db = sqlite3.connect(path, isolation_level=None, timeout=patience_s, check_same_thread=False)
        try:
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version != _SCHEMA_VERSION or self._meta("log") != log_id:  # new, another cluster's, an older build's
                self._begin_anew(log_id)
        except sqlite3.Error:
            self._db.close()
            raise

    def _begin_anew(self, log_id: str) -> None:
        drop = "DROP TABLE IF EXISTS jobs; DROP TABLE IF EXISTS meta;"
        self._db.executescript(f"BEGIN;{drop}{_SCHEMA}PRAGMA user_version={_SCHEMA_VERSION};COMMIT;")
        self._set_meta("log", log_id)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

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
        elif not 0 < self.live_from <= seq <= int(self._meta("live_to") or 0):
            with self._transaction():
                self._set_meta("live_from", str(seq))
                self._set_meta("live_to", str(seq))  # nothing is written behind it yet, whatever an earlier part had
        return self.live_from

    def filled(self, upto: int) -> None:
        """The gap up to `upto` has been filled: the two parts are one."""
        with self._transaction():
            if self.live_from and upto >= self.live_from:
                self._set_meta("base", str(max(upto, int(self._meta("live_to") or 0))))
                self._set_meta("live_from", "0")

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

    @property
    def pending(self) -> int:
        """How many jobs are noted and not written yet."""
        return len(self._pending)

    def flush(self, seq: int) -> None:
        """Write what was noted; the file then covers everything up to `seq`. What was covered before stays so."""
        with self._transaction():
            self._write()
            covers = "live_to" if self.live_from else "base"
            if seq > int(self._meta(covers) or 0):
                self._set_meta(covers, str(seq))
        self._pending = []

    def write_gap(self) -> None:
        """Write what was noted while filling a gap; coverage changes only when it is `filled`."""
        with self._transaction():
            self._write()
        self._pending = []

    def _write(self) -> None:
        self._db.executemany(f"INSERT OR REPLACE INTO jobs({_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?)", self._pending)

    # ---- reading ----------------------------------------------------------------------------

    def jobs(self, job_id: str, tenant: str = "") -> list[Job]:
        """Jobs of exactly this id, the newest of each tenant."""
        where, values = "job_id=?", [job_id]
        if tenant:
            where, values = "job_id=? AND tenant=?", [job_id, tenant]
        rows = self._db.execute(f"SELECT doc, tenant FROM jobs WHERE {where} ORDER BY tenant DESC, seq DESC", values)
        newest: dict[str, Job] = {}
        for doc, owner in rows:
            if owner not in newest:
                newest[owner] = _decode(doc)
        return list(newest.values())

    def find(self, job_id: str, tenant: str = "") -> list[JobView]:
        """Views of the same."""
        return [job_view(_NO_STATE, job) for job in self.jobs(job_id, tenant)]

    def ids_starting(self, prefix: str, tenant: str = "", limit: int = 20) -> list[tuple[str, str]]:
        """(tenant, job id) pairs whose id begins with `prefix`; members of arrays are left out."""
        rows = self._db.execute(
            "SELECT DISTINCT tenant, job_id FROM jobs INDEXED BY by_id WHERE array_of='' AND job_id>=? AND job_id<?"
            f"{' AND tenant=?' if tenant else ''} LIMIT ?",
            (prefix, prefix + "\x7f", *([tenant] if tenant else []), limit),
        )
        return [(owner, job_id) for owner, job_id in rows]

    def page(
        self, *, before_seq: int, tenant: str, states: list[str], node: str, since_ms: int, limit: int
    ) -> list[JobView]:
        """Ended jobs submitted before sequence `before_seq`, newest first; members of arrays are left out."""
        since_ms = min(since_ms, _MAX)
        common: dict[str, int | str] = {"seq<?": min(before_seq, _MAX), "seq>=?": self._first_seq_since(since_ms)}
        common |= {f"{name}=?": value for name, value in (("node", node), ("tenant", tenant)) if value}
        if since_ms > 0:
            common["finished_ms>=?"] = since_ms
        driver, one_by_one = _driver(tenant, states, node)
        parts = []
        for state in one_by_one:
            wanted = common | ({"state=?": state} if state else {})
            parts.append(
                self._db.execute(
                    f"SELECT seq, doc FROM jobs INDEXED BY {driver} WHERE array_of='' AND {' AND '.join(wanted)}"
                    " ORDER BY seq DESC LIMIT ?",
                    (*wanted.values(), limit),
                )
            )
        newest = heapq.merge(*parts, key=lambda row: -row[0])
        return [_view(doc) for _, doc in islice(newest, limit)]

    def _first_seq_since(self, since_ms: int) -> int:
        """No job that ended since then was submitted before this sequence. 0 when so many ended since that
        a page is soon full; of the few in a short window, the whole history need not be searched."""
        if since_ms <= 0:
            return 0
        count, first = self._db.execute(
            "SELECT count(*), min(seq) FROM (SELECT seq FROM jobs INDEXED BY by_end"
            " WHERE array_of='' AND finished_ms>=? LIMIT ?)",
            (since_ms, _WINDOW),
        ).fetchone()
        return 0 if count == _WINDOW else _MAX if first is None else int(first)

    # ---- members of an array, which is named by its key and the sequence of its submission ------------

    def member(self, array_key: str, array_seq: int, index: int) -> JobView | None:
        """One ended member; None when it did not end as a job of its own, or that is not known."""
        tenant, _, array_id = array_key.partition("/")
        row = self._db.execute(
            "SELECT doc FROM jobs WHERE job_id=? AND tenant=? AND seq=?", (f"{array_id}.{index}", tenant, array_seq)
        ).fetchone()
        return None if row is None else _view(row[0])

    def members(
        self, array_key: str, array_seq: int, start: int = 0, states: list[str] | None = None, node: str = ""
    ) -> Iterator[tuple[int, JobView]]:
        """Ended members from index `start` on, in order of index."""
        where, values = "", [array_key, array_seq, start, *(states or [])]
        if states:
            where += f" AND state IN ({','.join('?' * len(states))})"
        if node:
            where += " AND node=?"
            values.append(node)
        rows = self._db.execute(
            "SELECT member, doc FROM jobs INDEXED BY by_array WHERE array_of<>'' AND array_of=? AND seq=?"
            f" AND member>=?{where} ORDER BY member",
            values,
        )
        return ((index, _view(doc)) for index, doc in rows)

    def member_indexes(self, array_key: str, array_seq: int, start: int = 0) -> Iterator[int]:
        """Indexes of ended members from `start` on, in order."""
        rows = self._db.execute(
            "SELECT member FROM jobs INDEXED BY by_array WHERE array_of<>'' AND array_of=? AND seq=?"
            " AND member>=? ORDER BY member",
            (array_key, array_seq, start),
        )
        return (index for (index,) in rows)

    def member_counts(self, array_key: str, array_seq: int) -> dict[str, int]:
        """How many members ended in which state, as jobs of their own."""
        rows = self._db.execute(
            "SELECT state, count(*) FROM jobs INDEXED BY by_array WHERE array_of<>'' AND array_of=? AND seq=?"
            " GROUP BY state",
            (array_key, array_seq),
        )
        return dict(rows.fetchall())

    def close(self) -> None:
        """Close the file."""
        self._db.close()
