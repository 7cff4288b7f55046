"""The SDK without `async`: the same verbs, for scripts and notebooks.

    with SyncClient.connect() as client:
        job = client.wait(client.submit(image="busybox", command=["echo", "hi"]).job_id)

It runs the async client on an event loop in a thread of its own, so it works where a loop is
running already (notebooks).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

from eventsched.client import Client, Submitted
from eventsched.errors import ClientClosed, EventschedError
from eventsched.explanation import Explanation
from eventsched.log.link import LinkOptions
from eventsched.outputs import OutputChunk
from eventsched.recorded import Recorded
from eventsched.settings import DEFAULT_TENANT
from eventsched.spec import JobSpec
from eventsched.views import JobView, NodeView, PolicyView, PriceView, Stats, TenantView

T = TypeVar("T")


class SyncClient:
    """See `Client`; every method does the same and returns when it is done."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self._client = client
        self._loop = loop
        self._thread = thread

    @classmethod
    def connect(
        cls, url: str | None = None, *, tenant: str = DEFAULT_TENANT, options: LinkOptions | None = None
    ) -> SyncClient:
        """See `Client.connect`."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="eventsched-client", daemon=True)
        thread.start()
        try:
            connecting = asyncio.run_coroutine_threadsafe(Client.connect(url, tenant=tenant, options=options), loop)
            client = connecting.result()
        except BaseException:
            _end(loop, thread)
            raise
        return cls(client, loop, thread)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise ClientClosed("this client is closed", "make another with `connect`")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> tuple[bool, T | None]:
            try:
                return True, await anext(source)
            except StopAsyncIteration:
                return False, None

        while True:
            more, item = self._run(following())
            if not more:
                return
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """See `Client.close`; closing twice is closing once."""
        if not self._loop.is_closed():
            self._run(self._client.close())
            _end(self._loop, self._thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sync{repr(self._client)[1:]}"

    def submit(self, spec: JobSpec | None = None, *, job_id: str = "", tenant: str = "", **fields: Any) -> Submitted:
        """See `Client.submit`."""
        return self._run(self._client.submit(spec, job_id=job_id, tenant=tenant, **fields))

    def submit_many(
        self, jobs: Iterable[JobSpec | tuple[str, JobSpec]], *, tenant: str = ""
    ) -> list[Submitted | EventschedError]:
        """See `Client.submit_many`."""
        return self._run(self._client.submit_many(jobs, tenant=tenant))

    def abort(self, job_id: str, *, reason: str = "", tenant: str = "") -> JobView:
        """See `Client.abort`."""
        return self._run(self._client.abort(job_id, reason=reason, tenant=tenant))

    def hold(self, job_id: str, *, tenant: str = "") -> JobView:
        """See `Client.hold`."""
        return self._run(self._client.hold(job_id, tenant=tenant))

    def release(self, job_id: str, *, tenant: str = "") -> JobView:
        """See `Client.release`."""
        return self._run(self._client.release(job_id, tenant=tenant))

    def requeue(self, job_id: str, *, force: bool = False, tenant: str = "") -> JobView:
        """See `Client.requeue`."""
        return self._run(self._client.requeue(job_id, force=force, tenant=tenant))

    def complete(self, job_id: str, *, exit_code: int = 0, tenant: str = "") -> JobView:
        """See `Client.complete`."""
        return self._run(self._client.complete(job_id, exit_code=exit_code, tenant=tenant))

    def cordon(self, node: str) -> None:
        """See `Client.cordon`."""
        self._run(self._client.cordon(node))

    def uncordon(self, node: str) -> None:
        """See `Client.uncordon`."""
        self._run(self._client.uncordon(node))

    def drain(self, node: str, *, deadline_ms: int = 0, now: bool = False) -> None:
        """See `Client.drain`."""
        self._run(self._client.drain(node, deadline_ms=deadline_ms, now=now))

    def get(self, job_id: str, *, tenant: str = "") -> JobView:
        """See `Client.get`."""
        return self._run(self._client.get(job_id, tenant=tenant))

    def list(
        self,
        *,
        tenant: str = "",
        states: Sequence[str] = (),
        node: str = "",
        since_ms: int = 0,
        array: str = "",
        limit: int = 0,
    ) -> Sequence[JobView]:
        """See `Client.list`."""
        return self._run(
            self._client.list(tenant=tenant, states=states, node=node, since_ms=since_ms, array=array, limit=limit)
        )

    def nodes(self) -> Sequence[NodeView]:
        """See `Client.nodes`."""
        return self._run(self._client.nodes())

    def node(self, node: str) -> NodeView:
        """See `Client.node`."""
        return self._run(self._client.node(node))

    def policies(self) -> Sequence[PolicyView]:
        """See `Client.policies`."""
        return self._run(self._client.policies())

    def set_policy(self, name: str, /, **params: int | str) -> PolicyView:
        """See `Client.set_policy`."""
        return self._run(self._client.set_policy(name, **params))

    def explain(self, job_id: str, *, tenant: str = "") -> Explanation:
        """See `Client.explain`."""
        return self._run(self._client.explain(job_id, tenant=tenant))

    def tenants(self) -> Sequence[TenantView]:
        """See `Client.tenants`."""
        return self._run(self._client.tenants())

    def set_tenant(self, tenant: str, **limits: Any) -> None:
        """See `Client.set_tenant`."""
        self._run(self._client.set_tenant(tenant, **limits))

    def prices(self) -> PriceView:
        """See `Client.prices`."""
        return self._run(self._client.prices())

    def set_prices(self, **prices: Any) -> None:
        """See `Client.set_prices`."""
        self._run(self._client.set_prices(**prices))

    def stats(self) -> Stats:
        """See `Client.stats`."""
        return self._run(self._client.stats())

    def wait(self, job_id: str, *, timeout: float | None = None, tenant: str = "") -> JobView:
        """See `Client.wait`."""
        return self._run(self._client.wait(job_id, timeout=timeout, tenant=tenant))

    def follow_logs(self, job_id: str, *, follow: bool = True, tenant: str = "") -> Iterator[OutputChunk]:
        """See `Client.follow_logs`."""
        return self._iterate(self._client.follow_logs(job_id, follow=follow, tenant=tenant))

    def logs(self, job_id: str, *, tenant: str = "") -> str:
        """See `Client.logs`."""
        return self._run(self._client.logs(job_id, tenant=tenant))

    def follow_events(
        self, *, job_id: str = "", tenant: str = "", from_seq: int = 1, follow: bool = True
    ) -> Iterator[Recorded]:
        """See `Client.follow_events`."""
        return self._iterate(self._client.follow_events(job_id=job_id, tenant=tenant, from_seq=from_seq, follow=follow))

    def last_seq(self) -> int:
        """See `Client.last_seq`."""
        return self._run(self._client.last_seq())


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
