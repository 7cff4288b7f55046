"""The earlier cost-aware scheduler, held against a straight rendering of its rules in floats.

Its own files, read and played by `simulate`: highest priority first; hard filters on what is free and on
the price; the best of 0.2 cost + 0.3 priority + 0.2 SLA + 0.2 reschedule + 0.1 resource; ties go to the
smaller node id; what fits nowhere waits; a run ends by its own duration and gives back what it took.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from eventsched.events import RunAssigned
from eventsched.projections.simulation.engine import START_MS, Options, Simulation
from eventsched.projections.simulation.reading import read_workload
from eventsched.recorded import Recorded

AMOUNTS = ("cpu", "memory_gb", "gpuCount")
Placed = tuple[float, str, str]
"""Second, job, node."""


@dataclass
class Straight:
    """Their scheduler, as its description says and no faster."""

    nodes: list[dict[str, Any]]
    running: list[tuple[float, dict[str, Any], dict[str, Any]]] = field(default_factory=list)

    def play(self, jobs: list[dict[str, Any]]) -> list[tuple[Placed, float]]:
        """What was placed when and where, with its score."""
        waiting = sorted(jobs, key=lambda job: -job["priority"])
        now_s, placed = 0.0, []
        while True:
            for job in list(waiting):
                scores = {node["nodeId"]: self.score(job, node) for node in self.nodes if self.fits(job, node)}
                if scores:
                    best = min(scores, key=lambda name: (-round(scores[name], 9), name))
                    self.take(job, next(node for node in self.nodes if node["nodeId"] == best), now_s)
                    waiting.remove(job)
                    placed.append(((now_s, job["jobId"], best), scores[best]))
            if not self.running:
                return placed
            now_s = min(end_s for end_s, _, _ in self.running)
            for one in [one for one in self.running if one[0] == now_s]:
                self.running.remove(one)
                self.change(one[1], one[2], 1)

    def fits(self, job: dict[str, Any], node: dict[str, Any]) -> bool:
        """The hard filters."""
        asked, free = job["resourceRequest"], node["allocatable"]
        gpus = asked["gpuCount"]
        return (
            asked["cpu"] <= free["cpu"]
            and asked["memory_gb"] <= free["memory_gb"]
            and (not gpus or (asked["gpuType"] == free["gpuType"] and gpus <= free["gpuCount"]))
            and node["realTimeCostPerMinute"] <= job["maxTolerableCost"]
        )  # fmt: skip

    def score(self, job: dict[str, Any], node: dict[str, Any]) -> float:
        """The five terms, weighted."""
        spot = node["nodeType"] == "SPOT"
        sla = {("LATENCY_SENSITIVE", True): -1.0, ("BATCH", True): 0.5}.get((job["slaType"], spot), 0.0)
        free, total = (sum(node[of][name] for name in AMOUNTS) for of in ("allocatable", "totalCapacity"))
        return (
            0.2 * (1 - node["realTimeCostPerMinute"] / 5.00)
            + 0.3 * job["priority"] / 10
            + 0.2 * sla
            + 0.2 * (1.0 if job["isRescheduled"] else 0.0)
            + 0.1 * free / total
        )  # fmt: skip

    def take(self, job: dict[str, Any], node: dict[str, Any], now_s: float) -> None:
        """It starts there."""
        self.change(job, node, -1)
        self.running.append((now_s + job.get("durationSeconds", 10), job, node))

    def change(self, job: dict[str, Any], node: dict[str, Any], sign: int) -> None:
        """What is free becomes less or more."""
        for name in AMOUNTS:
            node["allocatable"][name] += sign * job["resourceRequest"][name]


@st.composite
def nodes(draw: st.DrawFn, index: int) -> dict[str, Any]:
    gpus = draw(st.sampled_from([0, 0, 1, 2, 8]))
    capacity = {
        "cpu": draw(st.sampled_from([4, 16, 64])),
        "memory_gb": draw(st.sampled_from([16, 64, 250])),
        "gpuType": draw(st.sampled_from(["A100", "T4"])) if gpus else None,
        "gpuCount": gpus,
    }
    return {
        "nodeId": f"n{index}",
        "totalCapacity": capacity,
        "allocatable": dict(capacity),
        "nodeType": draw(st.sampled_from(["ON_DEMAND", "SPOT"])),
        "realTimeCostPerMinute": draw(st.sampled_from([0.4, 0.41, 0.9, 2.5, 4.99, 6.0])),
    }


@st.composite
def jobs(draw: st.DrawFn, index: int) -> dict[str, Any]:
    gpus = draw(st.sampled_from([0, 0, 1, 2]))
    job = {
        "jobId": f"j{index}",
        "priority": draw(st.integers(1, 10)),
        "resourceRequest": {
            "cpu": draw(st.sampled_from([1, 2, 3.5, 8])),
            "memory_gb": draw(st.sampled_from([1, 4, 7.5, 32])),
            "gpuType": draw(st.sampled_from(["A100", "T4"])) if gpus else None,
            "gpuCount": gpus,
        },
        "slaType": draw(st.sampled_from(["BATCH", "LATENCY_SENSITIVE"])),
        "maxTolerableCost": draw(st.sampled_from([0.4, 1.5, 3.0, 9.0])),
        "isRescheduled": draw(st.booleans()),
    }
    if draw(st.booleans()):
        job["durationSeconds"] = draw(st.integers(1, 30))
    return job


@settings(max_examples=100)
@given(st.data(), st.integers(1, 8), st.integers(1, 24))
def test_it_places_every_job_where_and_when_theirs_does(data: st.DataObject, wide: int, many: int) -> None:
    machines = [data.draw(nodes(index)) for index in range(wide)]
    backlog = [data.draw(jobs(index)) for index in range(many)]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("nodes.json", machines), ("jobs.json", backlog)):
            (Path(folder) / name).write_text(json.dumps(content))
        workload = read_workload(Path(folder) / "jobs.json", Path(folder) / "nodes.json")
    found: list[tuple[Placed, float]] = []

    def saw(recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, RunAssigned):
            node = recorded.subject.rpartition(".")[2]
            found.append((((recorded.at_ms - START_MS) / 1000, event.job, node), event.score / 1_000_000))

    Simulation(workload, "cost-aware", Options(spot_ppm_per_h=0), saw).run()
    expected = Straight(machines).play(backlog)
    assert [one for one, _ in found] == [one for one, _ in expected]
    assert all(abs(ours - theirs) < 5e-6 for (_, ours), (_, theirs) in zip(found, expected, strict=True))
