"""The continuous view: jobs in, actions printed as they happen, the backlog submitted again when it is done.

Virtual time runs along with real time, `speed` times as fast; with speed 0 as fast as it goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import msgspec
from msgspec.structs import replace

from eventsched.events import NodeJoined, NodeLeaving, RunAssigned, RunEnded
from eventsched.ids import ID_MAX, job_key
from eventsched.projections.simulation.engine import START_MS, Options, Simulation
from eventsched.projections.simulation.workload import SimJob, Workload
from eventsched.recorded import Recorded

AGAIN_MS = 1_000
"""Between the end of a backlog and its next submission."""


class Action(msgspec.Struct, omit_defaults=True):
    """One thing that happened. action: assigned, ended, stopped, spot_notice or joined."""

    at_s: float
    action: str
    node: str
    job: str = ""
    outcome: str = ""
    score: int = 0
    runner_up: str = ""
    feasible: int = 0
    round: int = 0

    def text(self) -> str:
        """For people."""
        clock = f"[{int(self.at_s) // 3600}:{int(self.at_s) // 60 % 60:02}:{self.at_s % 60:04.1f}]"
        match self.action:
            case "assigned":
                why = f"score {self.score}, {self.feasible} feasible" + (
                    f", then {self.runner_up}" if self.runner_up else ""
                )
                return f"{clock} round {self.round}: {self.job} -> {self.node} ({why})"
            case "ended":
                return f"{clock} {self.job} ended on {self.node}: {self.outcome}"
            case "stopped":
                return f"{clock} {self.job} stopped on {self.node}; it waits again"
            case "spot_notice":
                return f"{clock} {self.node} is taken away (spot)"
        return f"{clock} {self.node} joined"


class Loop:
    """A simulation without an end."""

    def __init__(
        self,
        workload: Workload,
        policy: str,
        options: Options,
        show: Callable[[Action], None],
        *,
        speed: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._jobs = workload.jobs
        self._show = show
        self._speed = speed
        self._sleep = sleep
        self._names: dict[int, str] = {}
        self._passes = 1
        self._called = {job_key(job.tenant, job.job_id): job.job_id for job in workload.jobs}
        self.simulation: Simulation | None = None
        self._makeup = (workload, policy, options)

    def run(self, rounds: int = 0) -> str:
        """Go on until `rounds` were decided (0 = for ever) or nothing can happen any more; why it stopped."""
        workload, policy, options = self._makeup
        simulation = self.simulation = Simulation(workload, policy, options, self._saw)
        while not rounds or simulation.state.rounds < rounds:
            before = simulation.now_ms
            if not simulation.step():
                again = self._again(simulation)
                if not again:
                    simulation.finish()
                    return f"nothing can happen any more; {len(simulation.records)} jobs wait"
                simulation.add(again, simulation.now_ms - START_MS + AGAIN_MS)
                continue
            if self._speed:
                self._sleep((simulation.now_ms - before) / 1000 / self._speed)
        simulation.finish()
        return f"{simulation.state.rounds} rounds"

    def _again(self, simulation: Simulation) -> list[SimJob]:
        """The jobs that have ended, under new names; what still waits is not submitted twice."""
        self._passes += 1
        called = self._called
        own = [(job_key(job.tenant, job.job_id), job) for job in self._jobs]
        ended = [(key, job) for key, job in own if job_key(job.tenant, called[key]) not in simulation.records]
        taken = set(called) | set(simulation.records)
        for key, job in ended:
            called[key] = _new_name(job, self._passes, taken)
        return [self._renamed(job) for _, job in ended]

    def _renamed(self, job: SimJob) -> SimJob:
        """The job by the name it has now, waiting for those it waits for by theirs."""

        def now(job_id: str) -> str:
            return self._called.get(job_key(job.tenant, job_id), job_id)

        spec = replace(
            job.spec,
            after_ok=tuple(now(one) for one in job.spec.after_ok),
            after_any=tuple(now(one) for one in job.spec.after_any),
        )
        return replace(job, job_id=now(job.job_id), spec=spec)

    def _saw(self, recorded: Recorded) -> None:
        event, at_s = recorded.event, (recorded.at_ms - START_MS) / 1000
        node = recorded.subject.rpartition(".")[2]
        if isinstance(event, RunAssigned):
            member = f".{event.member}" if event.member >= 0 else ""
            name = self._names[recorded.seq] = f"{event.job}{member}"
            self._show(
                Action(at_s, "assigned", node, name, "", event.score, event.runner_up, event.feasible, event.round)
            )
        elif isinstance(event, RunEnded):
            stopped = event.outcome == "stopped"
            action, outcome = ("stopped", "") if stopped else ("ended", event.outcome)
            self._show(Action(at_s, action, node, self._names.pop(event.run, str(event.run)), outcome))
        elif isinstance(event, NodeLeaving):
            self._show(Action(at_s, "spot_notice", node))
        elif isinstance(event, NodeJoined):
            self._show(Action(at_s, "joined", node))


def _new_name(job: SimJob, passes: int, taken: set[str]) -> str:
    """A name for a later pass that nobody has; `taken` learns it."""
    for number in count(1):
        mark = f"-r{passes}" if number == 1 else f"-r{passes}-{number}"
        name = job.job_id[: ID_MAX - len(mark)] + mark
        if job_key(job.tenant, name) not in taken:
            break
    taken.add(job_key(job.tenant, name))
    return name
