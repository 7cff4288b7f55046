"""Filling a gap in a history: fold the log again from before the gap, in a process of its own.

Run as `python -m eventsched.projections.backfill FILE LOG_ID UPTO` with the connection in the
environment; the scheduler starts it when it began from a snapshot newer than its history.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from pathlib import Path

import structlog

from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import connect
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.history import DAMAGED, History, is_damage
from eventsched.projections.replica import Replica
from eventsched.projections.snapshots import Snapshots
from eventsched.settings import link_options
from eventsched.telemetry import configure_logging

_log = structlog.get_logger("eventsched.backfill")
WRITE_AT = 1_000
PATIENCE_S = 60


async def backfill(path: Path, log_id: str, upto: int) -> None:
    """Write into the history at `path` every job that ended between its base and `upto`."""
    link = await connect(link_options(), "eventsched-backfill")
    history = History(path, log_id, PATIENCE_S)
    base = history.base
    state = await Snapshots(link).load(at_most=base) if base else ClusterState()
    replica = Replica(state, on_ended=history.take)
    feed = JetStreamLog(link).read(state.seq + 1)
    _log.info("backfill_started", from_seq=state.seq + 1, upto=upto)
    while state.seq < upto:
        replica.fold_entries(await feed.get(), upto)
        if history.pending >= WRITE_AT:
            history.write_gap()
    history.write_gap()
    history.filled(upto)
    history.close()
    await feed.close()
    await link.close()
    _log.info("backfill_done", upto=upto)


def main() -> None:
    """Entry point of the process."""
    os.nice(10)
    configure_logging()
    try:
        asyncio.run(backfill(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        _log.error("history_damaged", file=sys.argv[1], error=str(error))
        sys.exit(DAMAGED)


if __name__ == "__main__":
    main()
