"""One tick of scheduling on request.

With a manual clock a round places jobs only when the clock was set, so a tick sets it. What such a
round decides is a pure function of the log: this replica decides it too, and so knows whether to
wait for any. On a wall clock rounds run by themselves; a tick only waits for what is due.
"""

from __future__ import annotations

from msgspec import Struct

from eventsched.events import ClockSet, RunAssigned
from eventsched.projections.following import Follower
from eventsched.projections.http.desk import Desk
from eventsched.projections.http.errors import ApiError, Detail
from eventsched.projections.scheduling.decide import decide

ROUND_S = 10.0
NEXT_ROUND_S = 1.0
NOW_MAX = 2**53 // 1000


class Tick(Struct):
    """What a tick did: its time in seconds, the jobs it set running, and the sequence it is folded at."""

    now: int
    scheduled: list[str]
    count: int
    seq: int


async def tick(desk: Desk, now: int | None) -> Tick:
    """Run a tick. Raises ApiError: 422 when `now` is below the last one, 504 when nobody leads."""
    desk.check_ready()
    follower = desk.follower
    await follower.folded(desk.intake.written)
    if follower.state.clock_mode != "manual":
        return await _next_round(follower)
    last = follower.state.clock_ms
    now_ms = last if now is None else now * 1000
    if now_ms < last:
        text = f"{now} is before the last one, {last // 1000}"
        raise ApiError(422, "VALIDATION_ERROR", f"now: {text}", [Detail("now", "out_of_range", text)])
    seq = await desk.administer("clock_set", ClockSet(now_ms=now_ms))
    if not await follower.until(lambda: _placed(follower, seq), ROUND_S):
        raise ApiError(504, "NOT_FOLDED_YET", "no scheduler has decided the round in time; it will be decided")
    runs = [run for run in follower.state.runs.values() if run.seq > seq]
    await _running(follower, [run.seq for run in runs])
    return Tick(now_ms // 1000, [run.key.partition("/")[2] for run in runs], len(runs), follower.state.seq)


def _placed(follower: Follower, seq: int) -> bool:
    """True when the round after sequence `seq` is folded whole, or there is nothing for it to place."""
    state = follower.state
    if state.round_next != state.round_count:
        return False
    if state.rounds and state.round_end > seq and any(run.seq > seq for run in reversed(state.runs.values())):
        return True
    return not any(isinstance(one.event, RunAssigned) for one in decide(state, state.clock_ms, follower.planner))


async def _running(follower: Follower, runs: list[int]) -> None:
    """Wait until all of these runs run, or are over."""

    def settled() -> bool:
        known = (follower.state.runs.get(run) for run in runs)
        return all(run is None or run.state not in ("assigned", "starting") for run in known)

    await follower.until(settled, ROUND_S)


async def _next_round(follower: Follower) -> Tick:
    state, seq = follower.state, follower.state.seq
    rounds = state.rounds
    if len(state.jobs) - len(state.finished) > len(state.runs) or state.unjudged:  # some wait
        await follower.until(lambda: state.rounds > rounds and not state.unjudged, NEXT_ROUND_S)
    runs = [run for run in state.runs.values() if run.seq > seq]
    return Tick(state.clock_ms // 1000, [run.key.partition("/")[2] for run in runs], len(runs), state.seq)
