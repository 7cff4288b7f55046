"""Simulated scheduler processes around the real core."""

from __future__ import annotations

from eventsched import codec
from eventsched.log.port import AppendError, Conflict, Fenced, OutcomeUnknown
from eventsched.projections.cluster.check import check
from eventsched.projections.cluster.digest import decode_state, digest_of_image, encode_state
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.leader.core import Mark, SchedulerCore, Write
from eventsched.recorded import Recorded

from .world import World

TICK_MS = 100
LEASE_MS = 1_500
RENEW_MS = 400
POLL_MS = 250


class SimScheduler:
    """A process: it may be paused (frozen with everything in flight) or crash and start again."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.paused_until = 0
        self.cut_until = 0
        self.life = 0
        self.claims = 0
        self.snapshot: bytes | None = None
        self.digests: dict[int, str] = {}
        self.start()
        world.readers.append(self.read)

    def start(self) -> None:
        """Start the process: from a snapshot if it has one."""
        self.life += 1
        state = decode_state(self.snapshot) if self.snapshot is not None else ClusterState()
        self.core = SchedulerCore(self.name, state)
        self.hb_read = len(self.world.heartbeats)
        life = self.life
        self.world.after(1, lambda: self._tick(life))
        self.world.after(1, lambda: self._hold_lease(life))
        self.world.after(1, self.read)

    def crash(self) -> None:
        """kill -9, and a restart after a while."""
        self.life += 1
        self.core = SchedulerCore(self.name)
        self.core.role = "standby"
        self.dead = True
        self.world.after(self.world.random.randrange(200, 4000), self.revive)

    def revive(self) -> None:
        """Start again after a crash."""
        self.dead = False
        self.start()

    dead = False

    @property
    def state(self) -> ClusterState:
        """What it has folded."""
        return self.core.state

    def reachable(self) -> bool:
        """Whether the network reaches it."""
        return self.world.now_ms >= self.cut_until

    def _frozen(self) -> bool:
        return self.dead or self.world.now_ms < self.paused_until

    # ---- reading --------------------------------------------------------------------------------

    def read(self) -> None:
        """Entries arrive."""
        if self.dead or not self.reachable():
            return
        if self._frozen():
            self.world.at(self.paused_until + 1, self.read)
            return
        for entry in self.world.entries(self.state.seq + 1):
            if entry.seq != self.state.seq + 1:
                continue  # a duplicate delivery
            event = codec.decode(entry.subject, entry.payload)
            self.core.fold(Recorded(entry.seq, entry.at_ms, entry.subject, event), self.world.now_ms)
            if self.state.digest_every and entry.seq % self.state.digest_every == 0:
                self._take_digest(entry.seq)
        self.state.changes.ended.clear()
        if self.core.planner is None:
            self.state.changes.forget_touched()
        self._step()

    def _take_digest(self, seq: int) -> None:
        image = encode_state(self.state)
        self.snapshot = image
        self.digests[seq] = digest_of_image(image)
        if self.core.role == "leading":
            self.core.digest = (seq, self.digests[seq])
        self.world.problems += [f"{self.name}: {problem}" for problem in check(self.state)]

    def _hear(self) -> None:
        beats = self.world.heartbeats
        while self.hb_read < len(beats):
            node, session = beats[self.hb_read]
            self.hb_read += 1
            if node:
                self.core.heard(node, session, self.hb_read, self.world.now_ms)
            else:
                self.core.marker_read(self.hb_read)

    # ---- acting ---------------------------------------------------------------------------------

    def _tick(self, life: int) -> None:
        if life != self.life:
            return
        if not self._frozen():
            if self.reachable():
                self._hear()
                self.read()
            self._step()
        self.world.after(TICK_MS, lambda: self._tick(life))

    def _step(self) -> None:
        if self.core.in_flight is not None:
            return
        effect = self.core.step(self.world.now_ms)
        if isinstance(effect, Write):
            self._write(effect)
        elif isinstance(effect, Mark):
            self._mark()

    def _write(self, write: Write) -> None:
        life = self.life

        def done(result: int | AppendError) -> None:
            if life != self.life:
                return
            if self._frozen():
                self.world.at(self.paused_until + 1, lambda: done(result))
                return
            if isinstance(result, int):
                self.core.done(result)
            elif isinstance(result, Fenced | Conflict):
                self.core.failed("fenced")
            else:
                self.core.failed("unknown" if isinstance(result, OutcomeUnknown) else "retry")
            self._step()

        self.world.append(write.messages, write.fence, self.reachable, done)

    def _mark(self) -> None:
        life = self.life
        seq = self.world.beat("", 0) if self.reachable() else None

        def done() -> None:
            if life != self.life:
                return
            if self._frozen():
                self.world.at(self.paused_until + 1, done)
                return
            self.core.marked(seq)
            self._hear()
            self._step()

        self.world.after(self.world.delay(), done)

    def _hold_lease(self, life: int) -> None:
        if life != self.life:
            return
        world = self.world
        if not self._frozen() and self.reachable():
            holder, until = world.lease
            if self.core.role == "leading":
                world.lease = (self.name, world.now_ms + LEASE_MS)
            elif (world.now_ms >= until or holder == self.name) and self.core.in_flight is None:
                self.claims += 1
                write = self.core.claim(f"{self.name}-{self.life}-{self.claims}")
                if write is not None:
                    self._write(write)
        world.after(RENEW_MS if self.core.role == "leading" else POLL_MS, lambda: self._hold_lease(life))
