"""What is asked over HTTP: whether the service lives and is ready, and a job from end to end as clients submit it."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from eventsched.errors import InvalidSpec, WaitTimeout
from eventsched.new_ids import new_job_id
from eventsched.projections.smoke.checks import Failed
from eventsched.projections.smoke.cluster import POLL_S, PRIORITY, ByHand, tiny_spec
from eventsched.spec import Driver

REQUEST_S = 15.0


class Http:
    """One service, asked as any client asks it."""

    def __init__(self, url: str, token: str, timeout_s: float) -> None:
        url = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(url)
        except ValueError:  # a bracket left open
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidSpec(f"URL: {url[:80]!r} is no address of an HTTP service", "e.g. http://localhost:8000")
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._timeout_s = timeout_s

    async def ask(self, method: str, path: str, body: Any = None, status: int = 0) -> Any:
        """The answer's body. Raises Failed, with the service's own words, for a status other than this (0: any 2xx)."""
        found, answer = await asyncio.to_thread(self._ask, method, path, body)
        if found == status or (not status and 200 <= found < 300):
            if not isinstance(answer, dict):
                raise Failed(f"{method} {path}: an answer that is not eventsched's", "is another service there?")
            return answer
        error = answer.get("error", {}) if isinstance(answer, dict) else {}
        said = f"{error.get('code', '')} {error.get('message', '')}".strip() if isinstance(error, dict) else ""
        hint = "give a token with --token or EVENTSCHED_HTTP_TOKEN" if found == 401 else ""
        raise Failed(f"{method} {path}: {found} {said}".rstrip(), hint)

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(self._url + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_S) as answer:
                return int(answer.status), _parsed(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read())
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: what no header or URL can hold
            why = getattr(error, "reason", None) or error
            raise Failed(f"{self._url} does not answer: {why}", "is `eventsched api` running there?") from error

    # ---- checks -----------------------------------------------------------------------------------

    async def check_live(self) -> tuple[str, bool]:
        """The process lives."""
        answer = await self.ask("GET", "/healthz")
        return f"{self._url} is {answer['status']}, version {answer.get('version', 'unknown')}", True

    async def check_ready(self) -> tuple[str, bool]:
        """The log is folded to its tail, by both names of that question; no digest differs."""
        seq = (await self.ask("GET", "/readyz"))["seq"]
        await self.ask("GET", "/health")
        stats = await self.ask("GET", "/stats")
        if stats["digest_mismatches"]:
            raise Failed("the state differs from the digests in the log", "see operations.md")
        return f"folded to sequence {seq}", True

    async def check_job(self, driver: Driver, image: str, tenant: str) -> tuple[str, bool]:
        """A job of ours, as `POST /jobs` takes it, until it has succeeded; otherwise it is aborted."""
        job_id = new_job_id("smoke")
        body = msgspec.to_builtins(tiny_spec(driver, image, job_id))
        await self.ask("POST", "/jobs", {**body, "job_id": job_id, "tenant": tenant}, 201)
        path = f"/jobs/{job_id}?tenant={quote(tenant)}"
        try:
            async with asyncio.timeout(self._timeout_s):
                view = await self._ended(path, driver == "manual")
        except TimeoutError:
            view = await self.ask("GET", path)
            await self.ask("POST", path.replace("?", "/abort?"), {"reason": "smoke test gave up"})
            why = view["detail"] or view["reason"]
            raise WaitTimeout(f"{view['state']} after {self._timeout_s:g} s: {why}", "--timeout waits longer") from None
        if view["state"] != "succeeded":
            raise Failed(f"{view['state']}: {view['detail'] or view['reason']}")
        if driver != "manual" and (view["logs"] or "").strip() != job_id:
            raise Failed(f"the output is {(view['logs'] or '')[:80]!r}, not what the job printed")
        return f"{tenant}/{job_id} {view['status']} on {view['node']}", True

    async def _ended(self, path: str, by_hand: bool) -> Any:
        while True:
            view = await self.ask("GET", path)
            if view["state"] == "running" and by_hand:
                return await self.ask("POST", path.replace("?", "/complete?"))
            if view["state"] not in ("pending", "assigned", "starting", "running"):
                return view
            await asyncio.sleep(POLL_S)

    async def check_by_hand(self, who: ByHand) -> tuple[str, bool]:
        """A job finished by hand, word for word as the earlier system's clients do it. Runs one round, at the present
        time of the clock."""
        job_id = new_job_id("smoke")
        path = f"/jobs/{job_id}"
        body = {"job_id": job_id, "tenant_id": who.tenant, "gpu_type": who.model, "gpus": 1, "submitted_at": 0}
        await self.ask("POST", "/jobs", {**body, "priority": PRIORITY}, 201)
        try:
            await self.ask("POST", f"{path}/complete", status=400)
            if job_id not in (await self.ask("POST", "/schedule"))["scheduled"]:
                view = await self.ask("GET", path)
                why = view["detail"] or view["reason"]
                raise Failed(f"a round left it {view['status']}: {why}", "--tenant names another")
        except Failed:
            await self.ask("POST", f"{path}/abort", {"reason": "smoke test gave up"})
            raise
        done = await self.ask("POST", f"{path}/complete")
        if done["status"] != "COMPLETED":
            raise Failed(f"it is {done['status']} after it was completed")
        return f"{who.tenant}/{job_id} WAITING, RUNNING, COMPLETED with 1 {who.model}", True


def _parsed(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
