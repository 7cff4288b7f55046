"""The command smoke."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from eventsched.cli.common import Output, Where, print_json, reach
from eventsched.client import Client
from eventsched.events import ClusterCreated
from eventsched.log.link import LinkOptions
from eventsched.projections.smoke.checks import Check, Checks
from eventsched.projections.smoke.cluster import (
    ByHand,
    TinyJob,
    Wanted,
    check_fold,
    check_log,
    check_nodes,
    check_schedulers,
    driver_of,
    who_may,
)
from eventsched.projections.smoke.http import Http
from eventsched.settings import DEFAULT_TENANT
from eventsched.spec import Driver
from eventsched.telemetry import configure_logging
from eventsched.units import parse_duration_ms
from eventsched.views import NodeView
from eventsched.visible import visible


async def smoke(
    url: Annotated[str, Parameter(help="of the HTTP service, e.g. http://localhost:8000; none = only NATS")] = "",
    /,
    *,
    driver: Annotated[
        Driver | None, Parameter(help="what the tiny job runs with; the first that a node offers by default")
    ] = None,
    image: Annotated[str, Parameter(help="the tiny job's, with docker")] = "busybox",
    token: Annotated[
        str, Parameter(env_var="EVENTSCHED_HTTP_TOKEN", show_env_var=True, help="bearer token for the URL")
    ] = "",
    timeout: Annotated[str, Parameter(help="how long the tiny job may take")] = "30s",
    output: Output = "table",
    where: Where = Where(),
) -> int:
    """Check that a running installation works, for instance after an upgrade: 0 if all is well, else 1.

    eventsched smoke
    eventsched smoke http://localhost:8000 --driver process

    Looks at the log, the schedulers and the nodes, runs a tiny job and reads its output, folds the log and
    compares the digests recorded in it, and asks the HTTP service the same. With a manual clock the job is one that is
    finished by hand, over HTTP, and one round is run.
    """
    configure_logging(level="error")
    wanted = Wanted(driver, image, parse_duration_ms(timeout, "--timeout") / 1000)
    http = Http(url, token, wanted.timeout_s) if url else None
    checks = Checks(_tell if output == "table" else lambda _one: None)
    await _Smoke(checks, wanted, http, where).run()
    summary = checks.summary()
    if output == "json":
        print_json(summary)
    else:
        failed = sum(not one.ok for one in summary.checks)
        print(
            f"{failed} of {len(summary.checks)} checks failed" if failed else f"all is well ({summary.ms / 1000:.1f} s)"
        )
    return 0 if summary.ok else 1


def _tell(one: Check) -> None:
    print(visible(f"{'ok' if one.ok else 'FAIL':<4} {one.ms:>6} ms  {one.check:<10} {one.detail}"), flush=True)


class _Smoke:
    """One smoke test; what failed leaves out only what needs it."""

    def __init__(self, checks: Checks, wanted: Wanted, http: Http | None, where: Where) -> None:
        self._check = checks.run
        self._wanted = wanted
        self._http = http
        self._where = where
        self._nodes: list[NodeView] = []
        self._by_hand: ByHand | None = None

    async def run(self) -> None:
        """All checks, in order."""
        options = reach(self._where)
        client = await self._check("connect", _connect(options, self._where.tenant or DEFAULT_TENANT))
        if client is not None:
            try:
                created = await self._check("log", check_log(client))
                await self._check("schedulers", check_schedulers(client))
                self._nodes = await self._check("nodes", check_nodes(client)) or []
                if created is not None and self._nodes:
                    await self._job(client, created)
                await self._check("fold", check_fold(client, options, self._wanted.timeout_s))
            finally:
                await client.close()
        if self._http is not None:
            await self._over_http(self._http)

    async def _job(self, client: Client, created: ClusterCreated) -> None:
        if created.clock_mode == "manual":
            over_http = self._http is not None
            self._by_hand = await self._check("quota", who_may(client, self._where.tenant, self._nodes, over_http))
            self._nodes = []  # nothing runs by itself
            return
        job = TinyJob(client, self._wanted, self._nodes)
        submitted = await self._check("submit", job.submit())
        if submitted is not None and await self._check("run", job.succeed(submitted.tenant)):
            await self._check("output", job.output(submitted.tenant))

    async def _over_http(self, http: Http) -> None:
        if not await self._check("http", http.check_live()) or not await self._check("ready", http.check_ready()):
            return
        if self._by_hand is not None:
            await self._check("by hand", http.check_by_hand(self._by_hand))
        elif self._nodes:
            driver = driver_of(self._wanted, self._nodes)
            tenant = self._where.tenant or DEFAULT_TENANT
            await self._check("http job", http.check_job(driver, self._wanted.image, tenant))


async def _connect(options: LinkOptions, tenant: str) -> tuple[str, Client]:
    return options.url, await Client.connect(options=options, tenant=tenant)
