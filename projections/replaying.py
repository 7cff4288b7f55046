"""Folding a log again, from its start or from a snapshot, to any sequence."""

from __future__ import annotations

from eventsched.errors import EventschedError
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import LinkOptions, connect
from eventsched.log.streams import verify_ev
from eventsched.projections.cluster.digest import digest
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.replica import Replica
from eventsched.projections.snapshots import Snapshots

IDLE_S = 2.0


async def replay_digest(options: LinkOptions, at: int = 0, from_snapshot: bool = False) -> dict[str, object]:
    """`{"seq", "digest", …}` of the state after sequence `at` (0: after the log's present end).

    Raises EventschedError when the log does not reach `at`, or a recorded digest does not match.
    """
    link = await connect(options, "eventsched-replay")
    try:
        await verify_ev(link)
        state = await Snapshots(link).load(at_most=at or None) if from_snapshot else ClusterState()
        started = state.seq
        replica = Replica(state)
        feed = JetStreamLog(link, direct=True).read(state.seq + 1)  # operators may not make consumers
        while (not at or state.seq < at) and feed.pending != 0:
            entries = await feed.get(IDLE_S)
            if not entries:
                break
            replica.fold_entries(entries, upto=at or None)
        unread = feed.pending
        await feed.close()
    finally:
        await link.close()
    if unread and not at:
        raise EventschedError(
            f"the log's end was not reached: what follows sequence {state.seq} did not come in {IDLE_S:g} s",
            "is the server busy or starting? try again",
        )
    if at and state.seq < at:
        raise EventschedError(f"the log ends at sequence {state.seq}, before {at}")
    replica.refuse_mismatch()
    return {
        "seq": state.seq,
        "digest": digest(state),
        "cluster_id": state.cluster_id,
        "from_seq": started + 1,
        "checked": replica.compared,
    }
