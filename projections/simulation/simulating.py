"""Commands of the simulator: simulate, replay file."""

from __future__ import annotations

import sys
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from eventsched.cli import tables
from eventsched.cli.common import BIG, Output, number, pairs, print_json
from eventsched.errors import InvalidSpec, UsageError
from eventsched.garbage import collect_rarely
from eventsched.projections.cluster.state import PolicyChoice
from eventsched.projections.simulation import reports
from eventsched.projections.simulation.compare import compare
from eventsched.projections.simulation.engine import Options, parse_policy
from eventsched.projections.simulation.loop import Action, Loop
from eventsched.projections.simulation.progress import bar
from eventsched.projections.simulation.reading import read_workload
from eventsched.projections.simulation.setup import PLAIN, Setup, read_setup
from eventsched.projections.simulation.simlog import LogFile, verify
from eventsched.projections.simulation.workload import Shape, Workload
from eventsched.units import parse_cpus_millis, parse_duration_ms, parse_gpus, parse_memory
from eventsched.visible import visible

NOTES_SHOWN = 10
NODES_MAX = 100_000


@Parameter(name="*")
@dataclass(frozen=True)
class Inputs:
    """What is played."""

    nodes: Annotated[str, Parameter(help="a file of nodes, or how many")]
    jobs: Annotated[Path, Parameter(help="a file of jobs, in any format that is known; may be gz")]
    shape: Annotated[str, Parameter(help="what each of so many nodes has: cpus=8,memory=64G,gpus=V100:4")] = ""
    format: Annotated[str, Parameter(help="the jobs' format, instead of looking at the file")] = ""
    throughputs: Annotated[Path | None, Parameter(help="Gavel's table of measured throughputs")] = None
    first: Annotated[int, number(0, BIG), Parameter(help="only so many jobs, the earliest; 0 = all")] = 0
    config: Annotated[
        Path | None, Parameter(help="how the cluster is set up: tenants, prices, a node (TOML, as of `dev`)")
    ] = None
    skip_bad_rows: Annotated[bool, Parameter(help="leave out faulty rows and go on")] = False

    def setup(self) -> Setup:
        """What the cluster begins with."""
        return read_setup(self.config) if self.config else PLAIN

    def read(self, setup: Setup) -> Workload:
        """The workload; notes go to stderr."""
        workload = read_workload(
            self.jobs,
            _nodes(self.nodes),
            shape=parse_shape(self.shape) if self.shape else setup.shape,
            format_name=self.format,
            beside=self.throughputs,
            skip=self.skip_bad_rows,
        )
        if self.first:
            workload.jobs = workload.jobs[: self.first]
        tell(workload.notes)
        return workload


@Parameter(name="*")
@dataclass(frozen=True)
class Chances:
    """What may happen to machines."""

    spot_rate: Annotated[
        str, Parameter(help="chance that a spot node is taken away within an hour, e.g. 5%; else as the nodes say")
    ] = ""
    spot_away: Annotated[str, Parameter(help="how long it stays away")] = "10m"
    checkpoints: Annotated[bool, Parameter(help="a stopped run goes on where it was")] = False

    def options(self) -> Options:
        """As the engine takes them."""
        away_ms = max(1, parse_duration_ms(self.spot_away, "--spot-away"))
        return Options(checkpoints=self.checkpoints, spot_ppm_per_h=_rate(self.spot_rate), away_ms=away_ms)


@Parameter(name="*")
@dataclass(frozen=True)
class Looping:
    """The continuous view."""

    loop: Annotated[bool, Parameter(help="go on and on, printing each action")] = False
    rounds: Annotated[int, number(0, BIG), Parameter(help="with --loop: stop after so many rounds")] = 0
    speed: Annotated[str, Parameter(help="with --loop: so many times as fast as real time; 0 = no waiting")] = "1"

    def refuse(self, measuring: dict[str, bool]) -> None:
        """UsageError for an option that would be without effect. measuring: those of a simulation that ends."""
        watching = {"--rounds": self.rounds > 0, "--speed": self.speed != "1"}
        with_loop, hint = ("with", "leave out one of them") if self.loop else ("without", "add --loop, or leave it out")
        for name, given in (measuring if self.loop else watching).items():
            if given:
                raise UsageError(f"{name} has no effect {with_loop} --loop", hint)


def simulate(
    *,
    inputs: Inputs,
    policy: Annotated[
        tuple[str, ...], Parameter(help="a policy, or stages written out (order=drf,score=spread); may be repeated")
    ] = (),
    seeds: Annotated[int, number(1, 1_000), Parameter(help="play so often, with other chances")] = 1,
    resample: Annotated[bool, Parameter(help="each seed draws the jobs anew, with replacement")] = False,
    output: Output = "table",
    csv: Annotated[bool, Parameter(help="print CSV, a line for each policy and seed")] = False,
    jobs_detail: Annotated[bool, Parameter(help="with -o json: every job's state, node and times")] = False,
    tenants_detail: Annotated[bool, Parameter(help="with -o json: every tenant's jobs, times and spending")] = False,
    log: Annotated[Path | None, Parameter(help="write the simulated log; for one policy and seed")] = None,
    chances: Chances = Chances(),
    looping: Looping = Looping(),
) -> int:
    """Play a workload in virtual time under one policy or several, and compare them.

    eventsched simulate --nodes 32 --jobs medium_late.json.gz --policy backfill --policy fifo
    eventsched simulate --nodes nodes.json --jobs jobs.json --policy best-fit -o json --jobs-detail
    eventsched simulate --nodes nodes.json --jobs jobs.json --loop --spot-rate 5%
    """
    setup = inputs.setup()
    policies = tuple(dict.fromkeys(policy)) or (setup.policy or PolicyChoice().name,)
    for one in policies:
        parse_policy(one)
    if log is not None and (len(policies) > 1 or seeds > 1 or looping.loop):
        raise UsageError("--log: a log is of one policy and one seed", "give one --policy, without --seeds and --loop")
    speed, options = _speed(looping.speed), replace(chances.options(), setup=setup)
    looping.refuse({"--csv": csv, "--jobs-detail": jobs_detail, "--resample": resample, "--seeds": seeds > 1})
    workload = inputs.read(setup)
    collect_rarely()
    if looping.loop:
        return _loop(workload, policies, options, output, looping.rounds, speed)
    sink = LogFile(log) if log is not None else None
    with bar() as progress, closing(sink) if sink else nullcontext():
        runs, stories = compare(workload, policies, seeds, options, resample=resample, sink=sink, progress=progress)
    if csv:
        sys.stdout.write(reports.as_csv(runs))
        return 0
    result = reports.summary(runs)
    if output == "table":
        tables.show(reports.table(result))
        return 0
    for name in ("jobs",) * jobs_detail + ("tenants",) * tenants_detail:
        for one in policies:
            result[one][name] = stories[one][name]
    print_json(result)
    return 0


def parse_shape(text: str) -> Shape:
    """What a node has, from `cpus=8,memory=64G,gpus=V100:4`; raises InvalidSpec."""
    given = pairs(text.split(","), "--shape")
    unknown = [name for name in given if name not in ("cpus", "memory", "gpus")]
    if unknown:
        raise InvalidSpec(
            f"--shape: no {unknown[0]!r}", "known: cpus, memory, gpus; e.g. cpus=8,memory=64G,gpus=V100:4"
        )
    model, gpus = parse_gpus(given["gpus"], "--shape gpus") if "gpus" in given else ("", 0)
    cpus = parse_cpus_millis(given.get("cpus", "1"), "--shape cpus")
    memory = parse_memory(given["memory"], "--shape memory") if "memory" in given else 0
    if gpus > 64:
        raise InvalidSpec(f"--shape gpus: {gpus} is more than 64")
    return Shape(cpus, memory, model or ("GPU" if gpus else ""), gpus)


def _nodes(text: str) -> Path | int:
    if not text.isdecimal():
        return Path(text)
    if not 1 <= int(text[:9]) <= NODES_MAX:
        raise InvalidSpec(f"--nodes: {text} is not between 1 and {NODES_MAX}", "or name a file of nodes")
    return int(text)


def _rate(text: str) -> int | None:
    """Parts per million from `5%`."""
    if not text:
        return None
    digits = text.removesuffix("%")
    if not text.endswith("%") or not digits.replace(".", "", 1).isdecimal() or Decimal(digits) > 100:
        raise InvalidSpec(
            f"--spot-rate: {text!r} is not a share of an hour's chances", "write it as 0% to 100%, e.g. 5%"
        )
    return int(Decimal(digits) * 10_000)


def _speed(text: str) -> float:
    if not text.replace(".", "", 1).isdecimal() or len(text) > 9:
        raise InvalidSpec(
            f"--speed: {text!r} is not a number from 0 on", "1 = real time, 60 = a minute a second, 0 = at once"
        )
    return float(text)


def tell(notes: list[str]) -> None:
    """Say what was skipped or assumed, the first of it, on stderr."""
    for note in notes[:NOTES_SHOWN]:
        print(visible(f"note: {note}"), file=sys.stderr)
    if len(notes) > NOTES_SHOWN:
        print(f"note: and {len(notes) - NOTES_SHOWN} more like these", file=sys.stderr)


def _loop(
    workload: Workload,
    policies: tuple[str, ...],
    options: Options,
    output: Literal["table", "json"],
    rounds: int,
    speed: float,
) -> int:
    if len(policies) > 1:
        raise UsageError("--loop plays one policy", "give one --policy")
    endless = replace(options, endless=True)

    def show(action: Action) -> None:
        line = msgspec.json.encode(action).decode() if output == "json" else visible(action.text())
        print(line, flush=True)

    try:
        print(Loop(workload, policies[0], endless, show, speed=speed).run(rounds), file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


def replay_file(path: Path, /, *, output: Output = "table") -> int:
    """Fold a log from a file, decide each of its rounds again, and print the digest of the state.

    Exit 1 if a round comes out otherwise than it is recorded.
    """
    found = verify(path)
    if output == "json":
        answer: dict[str, Any] = msgspec.to_builtins(found)
        print_json(answer)
    else:
        print(f"{found.digest}  after {found.events} events")
        same = found.rounds - len(found.differing)
        print(f"{same} of {found.rounds} rounds are decided the same again")
        if found.differing:
            print("otherwise: " + ", ".join(map(str, found.differing[:20])))
        if found.unknown:
            print(f"{found.unknown} rounds are of policies this build does not have")
    return 1 if found.differing else 0
