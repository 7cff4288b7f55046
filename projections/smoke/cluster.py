"""What is asked over NATS: the log, the schedulers, the nodes, a job from end to end, a fold of the log."""

from __future__ import annotations

import asyncio

from msgspec import Struct, structs

from eventsched import codec
from eventsched.asking import ask_replicas
from eventsched.client import Client, Submitted
from eventsched.errors import WaitTimeout
from eventsched.events import ClusterCreated
from eventsched.log.link import LinkOptions
from eventsched.new_ids import new_job_id
from eventsched.projections.replaying import replay_digest
from eventsched.projections.smoke.checks import Failed
from eventsched.reasons import in_words
from eventsched.resources import Resources
from eventsched.settings import DEFAULT_TENANT
from eventsched.spec import Driver, FakeRun, JobSpec
from eventsched.views import NodeView

DRIVERS: tuple[Driver, ...] = ("docker", "process", "fake", "manual")
"""In this order one is chosen that a node offers."""
PRIORITY = 1000
FOLD_MAX = 500_000
"""Longer logs are folded from the newest snapshot on."""
PER_MODEL, ONE_GPU = "gpu_millis:", 1000
POLL_S = 0.1
TAKE_OVER_S = 5.0
"""How long to wait for a leader: one may just have ended."""
READ_S = 5.0


class Wanted(Struct, frozen=True):
    """What the smoke test runs. driver None: the first that a node offers."""

    driver: Driver | None
    image: str
    timeout_s: float


async def check_log(client: Client) -> tuple[str, ClusterCreated]:
    """The log is ours, and can be read from its first event on."""
    feed = client.log.read(1, ["ev.admin.cluster_created"])
    try:
        entries = await feed.get(READ_S)
    finally:
        await feed.close()
    event = codec.decode(entries[0].subject, entries[0].payload) if entries and entries[0].seq == 1 else None
    if not isinstance(event, ClusterCreated):
        raise Failed("the log does not begin with cluster_created", "it cannot be read, or is no log of ours")
    return f"{client.link.url}: {await client.last_seq():,} events, clock {event.clock_mode}", event


async def check_schedulers(client: Client) -> tuple[str, bool]:
    """One leads; none has met a digest that differs from the one recorded."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TAKE_OVER_S
    while True:
        replicas = await ask_replicas(client.link)
        leaders = [one.scheduler for one in replicas if one.role == "leading"]
        if len(leaders) == 1 or loop.time() > deadline:
            break
        await asyncio.sleep(POLL_S)
    if not replicas:
        raise Failed("no scheduler answers", "start one with `eventsched scheduler`")
    differing = [one.scheduler for one in replicas if one.digest_mismatches]
    if differing:
        raise Failed(f"{', '.join(differing)}: the state differs from the digests in the log", "see operations.md")
    if len(leaders) != 1:
        raise Failed(f"{len(leaders)} of {len(replicas)} schedulers lead", "see their logs")
    others = [f"{one.scheduler} {one.role}" for one in replicas if one.scheduler not in leaders]
    lag = max(one.lag for one in replicas)
    return f"{leaders[0]} leads{''.join(f', {one}' for one in others)}; at most {lag} events behind", True


async def check_nodes(client: Client) -> tuple[str, list[NodeView]]:
    """Somebody takes work."""
    nodes = list(await client.nodes())
    ready = [view for view in nodes if view.state == "ready" and not view.cordoned]
    if not ready:
        raise Failed(f"none of {len(nodes)} nodes takes work", "start an agent, or `eventsched uncordon` one")
    return f"{len(ready)} of {len(nodes)} take work", ready


def tiny_spec(driver: Driver, image: str, job_id: str) -> JobSpec:
    """A job of a moment, ahead of others; it prints its id."""
    small = Resources(cpu_millis=10, memory_bytes=0)
    spec = JobSpec(driver=driver, priority=PRIORITY, resources=small, labels={"smoke": "true"})
    match driver:
        case "docker":
            return structs.replace(spec, image=image, command=("echo", job_id))
        case "process":
            return structs.replace(spec, command=("echo", job_id))
        case "fake":
            return structs.replace(spec, fake=FakeRun(duration_ms=1, output=f"{job_id}\n"))
    return spec


def driver_of(wanted: Wanted, nodes: list[NodeView]) -> Driver:
    """What the job runs with."""
    offered = {driver for view in nodes for driver in view.drivers}
    offers: list[Driver] = [one for one in DRIVERS if one in offered]
    return wanted.driver or (offers or ["docker"])[0]


class ByHand(Struct, frozen=True):
    """Whose job is finished by hand, and the GPU it asks for."""

    tenant: str
    model: str


async def who_may(client: Client, tenant: str, nodes: list[NodeView], over_http: bool) -> tuple[str, ByHand]:
    """The tenant given, else the first that has a quota for a model there is."""
    if not over_http:
        raise Failed("with a manual clock jobs run on request, over HTTP", "give the URL: `eventsched smoke URL`")
    models = [model for view in nodes for model in view.capacity["gpus"]]
    if not models:
        raise Failed("no node has GPUs, and jobs finished by hand ask for one")
    for view in await client.tenants():
        for model in models:
            if tenant in ("", view.tenant) and view.limits.get(f"{PER_MODEL}{model.lower()}", 0) >= ONE_GPU:
                return f"tenant {view.tenant} may have {model}", ByHand(view.tenant, model)
    return "no tenant has a quota by GPU model", ByHand(tenant or DEFAULT_TENANT, models[0])


class TinyJob:
    """A job of a moment, from its submission to its output."""

    def __init__(self, client: Client, wanted: Wanted, nodes: list[NodeView]) -> None:
        self._client = client
        self._wanted = wanted
        self._driver = driver_of(wanted, nodes)
        self.job_id = new_job_id("smoke")

    async def submit(self) -> tuple[str, Submitted]:
        """It is durable."""
        done = await self._client.submit(tiny_spec(self._driver, self._wanted.image, self.job_id), job_id=self.job_id)
        return f"{done.tenant}/{done.job_id} at sequence {done.seq}, driver {self._driver}", done

    async def succeed(self, tenant: str) -> tuple[str, bool]:
        """It runs and succeeds; otherwise it is aborted."""
        try:
            async with asyncio.timeout(self._wanted.timeout_s):
                if self._driver == "manual":
                    await self._complete(tenant)
                view = await self._client.wait(self.job_id, tenant=tenant)
        except TimeoutError:
            view = await self._client.get(self.job_id, tenant=tenant)
            await self._client.abort(self.job_id, reason="smoke test gave up", tenant=tenant)
            why = f": {in_words(view.reason, view.detail)}" if view.reason else ""
            raise WaitTimeout(
                f"{view.state} after {self._wanted.timeout_s:g} s{why}", "--timeout waits longer"
            ) from None
        if view.state != "succeeded":
            raise Failed(f"{view.state}: {in_words(view.reason, view.detail)}")
        return f"succeeded on {view.node}", True

    async def _complete(self, tenant: str) -> None:
        while (await self._client.get(self.job_id, tenant=tenant)).state != "running":
            await asyncio.sleep(POLL_S)
        await self._client.complete(self.job_id, tenant=tenant)

    async def output(self, tenant: str) -> tuple[str, bool]:
        """What it printed is there."""
        if self._driver == "manual":
            return "a job finished by hand prints nothing", True
        text = await self._client.logs(self.job_id, tenant=tenant)
        if text.strip() != self.job_id:
            raise Failed(f"the output is {text[:80]!r}, not what the job printed")
        return f"{len(text)} bytes, as printed", True


async def check_fold(client: Client, options: LinkOptions, timeout_s: float) -> tuple[str, bool]:
    """The log, folded here, agrees with the digests recorded in it: all of it, or what follows the newest snapshot."""
    from_snapshot = await client.last_seq() > FOLD_MAX
    try:
        async with asyncio.timeout(timeout_s):
            found = await replay_digest(options, from_snapshot=from_snapshot)
    except TimeoutError:
        raise WaitTimeout(f"not folded in {timeout_s:g} s", "--timeout waits longer") from None
    checked = f"{found['checked']} recorded digests agree" if found["checked"] else "no digest is recorded among them"
    return f"events {found['from_seq']} to {found['seq']} folded here; {checked}; {found['digest']}", True
