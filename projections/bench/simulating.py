"""bench simulate: how many jobs a second are played, through the same fold and decisions as live.

A plain workload: small jobs of a few sizes on nodes that have room for all of them, each with four events (submitted,
assigned, started, ended). They come one by one, each with a round of its own, or in batches. A second is one of this
process's own time: what others take of the core does not count.
"""

from __future__ import annotations

import os
import random
import time
from statistics import median
from typing import Annotated

from cyclopts import Parameter

from eventsched.cli.common import print_json
from eventsched.events import NodeJoined
from eventsched.garbage import collect_rarely
from eventsched.projections.cluster.digest import digest
from eventsched.projections.compiled.finding import is_used
from eventsched.projections.simulation.engine import Simulation
from eventsched.projections.simulation.workload import SimJob, SimNode, Workload
from eventsched.resources import Capacity, Resources
from eventsched.spec import JobSpec

GIB = 1 << 30
APART_MS = 10


async def simulating(
    *,
    jobs: Annotated[int, Parameter(help="jobs to play")] = 10_000,
    nodes: Annotated[int, Parameter(help="nodes in the cluster")] = 100,
    batch: Annotated[int, Parameter(help="so many jobs come at the same moment")] = 1,
    policy: Annotated[str, Parameter(help="the policy that decides")] = "first-fit",
    times: Annotated[int, Parameter(help="play so often; the median counts")] = 5,
) -> None:
    """Play a workload in virtual time, without a log: fold and decide alone."""
    print_json(measure(jobs, nodes, batch, policy, times))


def measure(jobs: int, nodes: int, batch: int, policy: str, times: int) -> dict[str, object]:
    """The benchmark's answer."""
    workload = made_up(jobs, nodes, batch)
    rates: list[float] = []
    digests: list[str] = []
    for _ in range(times):
        collect_rarely()
        began = time.process_time()
        simulation = Simulation(workload, policy)
        simulation.run()
        rates.append(jobs / (time.process_time() - began))
        digests.append(digest(simulation.state))
    assert len(dict.fromkeys(digests)) == 1, "the same workload came out otherwise"
    return {
        "jobs_per_s": round(median(rates)),
        "jobs": jobs,
        "ended": simulation.state.finished_total,
        "events": simulation.state.seq,
        "rounds": simulation.state.rounds,
        "batch": batch,
        "nodes": nodes,
        "policy": policy,
        "digest": digests[0],
        "compiled": is_used(),
        "cores": os.cpu_count(),
    }


def made_up(jobs: int, nodes: int, batch: int, seed: int = 3) -> Workload:
    """Jobs that come `batch` at a time and run for some seconds; the same for the same numbers."""
    dice = random.Random(seed)
    sizes = [
        Resources(cpu_millis=cpu, memory_bytes=GIB * gib) for cpu in (500, 1_000, 2_000, 4_000) for gib in (1, 2, 4)
    ]
    return Workload(
        [
            SimJob(
                index // batch * batch * APART_MS,
                "bench",
                f"j{index}",
                JobSpec(driver="fake", resources=dice.choice(sizes)),
                dice.randrange(500, 4_000),
            )
            for index in range(jobs)
        ],
        [SimNode(f"n{index:04}", _joined(index)) for index in range(nodes)],
    )


def _joined(index: int) -> NodeJoined:
    return NodeJoined(machine_id=f"m{index}", boot_id="1", capacity=Capacity(16_000, 64 * GIB, ()), drivers=("fake",))
