"""The command agent."""

from __future__ import annotations

import asyncio
import shlex
import signal
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from eventsched import codec
from eventsched.agents.drivers.containers import DockerLimits
from eventsched.agents.runtime import Agent
from eventsched.agents.settings import AgentSettings, SpotSettings
from eventsched.cli.common import Where, pairs
from eventsched.earlier import tell_replaced
from eventsched.errors import InvalidSpec, NoServer
from eventsched.events import ClusterCreated
from eventsched.garbage import collect_rarely
from eventsched.log.link import Link, connect
from eventsched.log.port import Entry
from eventsched.log.reader import StreamReader
from eventsched.log.streams import EV, verify_ev
from eventsched.settings import data_directory, link_options
from eventsched.telemetry import configure_logging
from eventsched.units import parse_duration_ms, parse_money_micros

LOG_WAIT_S = 15.0


@Parameter(name="*")
@dataclass(frozen=True)
class Offer:
    """What the machine costs, whether it may be taken away, and whom it keeps off."""

    taint: Annotated[tuple[str, ...], Parameter(help="keeps off jobs without this toleration; may be repeated")] = ()
    price: Annotated[str, Parameter(env_var="EVENTSCHED_PRICE", help="what this node costs per hour, e.g. 2.50")] = "0"
    spot: Annotated[
        bool, Parameter(env_var="EVENTSCHED_SPOT", negative=(), help="this machine may be taken away at short notice")
    ] = False
    hazard: Annotated[
        str, Parameter(env_var="EVENTSCHED_HAZARD", help="how likely within an hour, e.g. 0.05; with --spot")
    ] = "0"
    spot_notice: Annotated[
        str,
        Parameter(env_var="EVENTSCHED_SPOT_NOTICE", help="how long the machine stays after the notice (also SIGUSR1)"),
    ] = "30s"
    spot_file: Annotated[
        str, Parameter(env_var="EVENTSCHED_SPOT_FILE", help="the notice is that this file appears")
    ] = ""
    spot_command: Annotated[
        str, Parameter(env_var="EVENTSCHED_SPOT_COMMAND", help="the notice is that this command exits with 0")
    ] = ""

    def spot_settings(self) -> SpotSettings:
        """Raises InvalidSpec naming the option."""
        return SpotSettings(
            self.spot,
            parse_money_micros(self.hazard, "--hazard"),
            self.spot_file,
            _words(self.spot_command, "--spot-command"),
            parse_duration_ms(self.spot_notice, "--spot-notice"),
        )


async def agent(
    *,
    node: Annotated[str, Parameter(name=["--node", "-n"], help="this node's id; the host's name by default")] = "",
    cpus: Annotated[str, Parameter(help="cores offered, e.g. 8; all by default")] = "",
    memory: Annotated[str, Parameter(help="memory offered, e.g. 32G; all by default")] = "",
    gpus: Annotated[
        str, Parameter(help="emulated GPUs, e.g. A100:4,H100:2; none = no GPUs; found by NVML by default")
    ] = "",
    label: Annotated[list[str] | None, Parameter(help="NAME=VALUE; may be repeated")] = None,
    ip: Annotated[str, Parameter(env_var="EXECUTOR_IP", help="this machine's address, shown as label ip")] = "",
    offer: Offer = Offer(),
    driver: Annotated[list[str] | None, Parameter(help="docker, process, fake, manual; may be repeated")] = None,
    data: Annotated[str, Parameter(help="where the agent keeps its files")] = "",
    heartbeat: Annotated[str, Parameter(env_var="HEARTBEAT_INTERVAL", help="between heartbeats")] = "5s",
    fence_after: Annotated[str, Parameter(help="cut off for this long, the leash stops this node's runs")] = "20s",
    fence_grace: Annotated[str, Parameter(help="longest time between SIGTERM and SIGKILL in that case")] = "10s",
    keep: Annotated[str, Parameter(help="how long ended containers stay")] = "120s",
    orphan_grace: Annotated[str, Parameter(help="how long unknown containers of this node are left alone")] = "60s",
    orphans_dry_run: Annotated[bool, Parameter(negative=(), help="only log orphans")] = False,
    leash: Annotated[
        bool, Parameter(negative="--no-leash", help="a separate process that stops the runs when this node is cut off")
    ] = True,
    allow_volume: Annotated[
        list[str] | None, Parameter(help="host directory jobs may mount, PATH or PATH:ro; may be repeated")
    ] = None,
    allow_host_network: Annotated[bool, Parameter(negative=())] = False,
    log_json: Annotated[bool, Parameter(negative=())] = False,
    log_level: str = "info",
    where: Where = Where(),
) -> None:
    """Run an agent: this machine offers itself as a node, and runs what it is assigned."""
    configure_logging(json=log_json, level=log_level)
    tell_replaced()
    settings = AgentSettings(
        data=data_directory(data, "agent"),
        node=node,
        cpus=cpus,
        memory=memory,
        gpus=gpus,
        labels=({"ip": ip} if ip else {}) | pairs(label or [], "--label"),
        taints=offer.taint,
        price_micros_per_h=parse_money_micros(offer.price, "--price"),
        spot=offer.spot_settings(),
        drivers=tuple(driver or ("docker",)),
        docker=DockerLimits(tuple(allow_volume or ()), allow_host_network),
        heartbeat_ms=parse_duration_ms(_seconds(heartbeat), "--heartbeat"),
        fence_after_ms=parse_duration_ms(fence_after, "--fence-after"),
        fence_grace_ms=parse_duration_ms(fence_grace, "--fence-grace"),
        keep_ms=parse_duration_ms(keep, "--keep"),
        orphan_grace_ms=parse_duration_ms(orphan_grace, "--orphan-grace"),
        orphans_dry_run=orphans_dry_run,
        leash=leash,
    )
    settings.check()
    link = await connect(link_options(where.nats), f"eventsched-agent-{node or 'node'}")
    try:
        await _wait_for_log(link)
        running = Agent(link, await cluster_id(link), settings)
        collect_rarely()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: loop.create_task(running.leave()))
        loop.add_signal_handler(signal.SIGUSR1, lambda: loop.create_task(running.leave(spot=True)))
        await running.run()
    finally:
        await link.close()


async def _wait_for_log(link: Link) -> None:
    """An agent may be started before the first scheduler has made the log."""
    deadline = asyncio.get_running_loop().time() + LOG_WAIT_S
    while True:
        try:
            await verify_ev(link)
            return
        except NoServer:
            if asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(0.05)


def _words(text: str, option: str) -> tuple[str, ...]:
    """A command, split as a shell would."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidSpec(
            f"{option}: {text!r} cannot be split into words: {error}", "quote it as for a shell"
        ) from error


def _seconds(text: str) -> str:
    """HEARTBEAT_INTERVAL is a bare number of seconds in earlier systems."""
    return f"{text}s" if text.isdigit() else text


async def cluster_id(link: Link) -> str:
    """The id in the log's first event."""
    feed = StreamReader(link, EV, 1, ["ev.admin.cluster_created"])
    try:
        entries: list[Entry] = await feed.get(10)
    finally:
        await feed.close()
    event = codec.decode(entries[0].subject, entries[0].payload) if entries and entries[0].seq == 1 else None
    if not isinstance(event, ClusterCreated):
        raise NoServer(f"stream {EV} at {link.url} does not begin with cluster_created", "it is no log of ours")
    return event.cluster_id
