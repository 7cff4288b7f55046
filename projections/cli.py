"""Commands of the scheduler's side: scheduler, replay digest."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from eventsched.cli.common import BIG, Output, Where, number, print_json, reach
from eventsched.earlier import tell_replaced
from eventsched.errors import EventschedError, SettingsError
from eventsched.events import ClusterCreated
from eventsched.ids import ID_RULE, is_id
from eventsched.log.link import connect
from eventsched.new_ids import new_ulid
from eventsched.settings import data_directory, link_options, usable_data
from eventsched.telemetry import configure_logging
from eventsched.units import parse_duration_ms


async def scheduler(
    *,
    name: Annotated[str, Parameter(env_var="SCHEDULER_ID", help="this scheduler's name; the host's by default")] = "",
    data: Annotated[str, Parameter(help="where the history lies; a directory")] = "",
    replicas: Annotated[int, number(1, 5), Parameter(help="copies of each stream, when they are made: 1 or 3")] = 1,
    clock: Annotated[Literal["wall", "manual"], Parameter(help="clock of a new cluster")] = "wall",
    job_id_scope: Annotated[
        Literal["tenant", "cluster"], Parameter(help="where job ids of a new cluster are unique")
    ] = "tenant",
    quota_default: Annotated[
        Literal["unlimited", "nothing"], Parameter(help="what tenants of a new cluster may hold of what no limit names")
    ] = "unlimited",
    suspect_after: Annotated[str, Parameter(help="a new cluster gives a silent node no runs after this")] = "12s",
    lost_after: Annotated[str, Parameter(help="a new cluster gives a silent node up after this")] = "45s",
    digest_every: Annotated[
        int, number(1, BIG), Parameter(help="a new cluster takes a digest and snapshot every so many events")
    ] = 50_000,
    finished_keep: Annotated[
        int, number(0, BIG), Parameter(help="ended jobs a new cluster keeps in its state")
    ] = 10_000,
    log_json: Annotated[bool, Parameter(negative=())] = False,
    log_level: str = "info",
    where: Where = Where(),
) -> None:
    """Run a scheduler: it folds the log, leads or stands by, and answers questions."""
    from eventsched.projections.leader.shell import Scheduler, default_name

    configure_logging(json=log_json, level=log_level)
    tell_replaced()
    chosen = name or default_name()
    if not is_id(chosen):
        raise SettingsError(f"scheduler name {chosen!r} is not an id", ID_RULE)
    created = ClusterCreated(
        cluster_id=new_ulid(),
        clock_mode=clock,
        job_id_scope=job_id_scope,
        quota_default=quota_default,
        suspect_after_ms=parse_duration_ms(suspect_after, "--suspect-after"),
        lost_after_ms=parse_duration_ms(lost_after, "--lost-after"),
        digest_every=digest_every,
        finished_keep=finished_keep,
    )
    directory = data_directory(data, "scheduler")
    lock = _lock(directory, chosen)
    link = await connect(link_options(where.nats), f"eventsched-scheduler-{chosen}")
    try:
        running = Scheduler(link, chosen, created=created, data=directory, replicas=replicas)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, running.stop)
        await running.run()
    finally:
        await link.close()
        os.close(lock)


def _lock(directory: Path, name: str) -> int:
    """Two schedulers of one name must not share a history."""
    with usable_data(directory):
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / f"scheduler-{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise EventschedError(f"a scheduler named {name} runs here already", "give this one another --name") from None
    return handle


async def digest(
    *,
    at: Annotated[int, number(0, BIG), Parameter(help="the state after this sequence; 0 = the whole log")] = 0,
    snapshot: Annotated[bool, Parameter(help="start from the newest snapshot before, instead of sequence 1")] = False,
    output: Output = "table",
    where: Where = Where(),
) -> None:
    """Fold the log from its start and print the digest of the state."""
    from eventsched.projections.replaying import replay_digest

    answer = await replay_digest(reach(where), at, snapshot)
    if output == "json":
        print_json(answer)
    else:
        print(f"{answer['digest']}  at sequence {answer['seq']}")
