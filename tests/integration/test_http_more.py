"""Uploads, keys, streams, rights: what the HTTP service has beyond the earlier systems, over a real cluster."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx

from ..cluster import Cluster, until
from ..service import Service, running, tokens
from .test_http_earlier import error_code

FAKE = {"driver": "fake", "command": ["x"]}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_an_upload_has_a_fate_for_each_row(cluster: Cluster) -> None:
    cluster.scheduler()
    client = await cluster.client()
    async with running(cluster) as service:
        csv = (
            "job_id,tenant_id,gpu_type,gpus,priority,submitted_at\n"
            "c1,t1,A100,1,5,0\nc2,t1,A100,0,5,0\nc1,t1,A100,1,5,0\nc3,t1,A100,1,soon,0\nc4,t2,H100,2,5,0\n"
        )
        as_file = await service.http.post("/ingest?fmt=csv", files={"file": ("jobs.csv", csv)})
        answer = as_file.json()
        assert [(one["line"], one["job_id"]) for one in answer["accepted"]] == [(2, "c1"), (6, "c4")]
        assert [(one["line"], one["job_id"], one["error"]["code"]) for one in answer["rejected"]] == [
            (3, "c2", "VALIDATION_ERROR"),
            (4, "c1", "DUPLICATE_JOB"),
            (5, "c3", "VALIDATION_ERROR"),
        ]
        lines = "".join(json.dumps({**FAKE, "job_id": f"n{index}"}) + "\n" for index in range(5_000))
        raw = (await service.http.post("/ingest?fmt=ndjson", content=lines)).json()
        assert (raw["accepted_count"], raw["rejected_count"]) == (5_000, 0)
        assert [one["line"] for one in raw["accepted"]] == list(range(1, 5_001))
        for content, query, code in (
            (csv, "xml", "BAD_FORMAT"),
            ("a,b\n", "csv", "BAD_FORMAT"),
            (b'{"job_id":"\xff"}\n', "ndjson", "BAD_ENCODING"),
            (lines.encode()[:100_000] + b"\xe2\x82", "ndjson", "BAD_ENCODING"),
        ):
            refused = await service.http.post(f"/ingest?fmt={query}", content=content)
            assert (refused.status_code, error_code(refused.json())) == (400, code)
        other = await service.http.post("/ingest?fmt=csv", files={"other": ("jobs.csv", csv)})
        assert error_code(other.json()) == "BAD_FORMAT"
        assert len(await client.list(limit=6_000)) == 5_002


async def test_every_row_it_reported_is_there_when_the_service_is_killed_in_the_middle(cluster: Cluster) -> None:
    cluster.scheduler()
    client = await cluster.client()
    async with running(cluster) as service:
        lines = "".join(json.dumps({**FAKE, "hold": True, "job_id": f"r{index}"}) + "\n" for index in range(40_000))
        told = b""
        try:
            async with service.http.stream("POST", "/ingest", content=lines) as answer:
                async for part in answer.aiter_raw():
                    told += part
                    if service.name in cluster.processes and b'"r3000"' in told:
                        await cluster.kill(service.name)
        except httpx.TransportError:
            pass
    reported = re.findall(rb'"job_id":"(r\d+)"[^}]*"seq":\d+}', told)
    assert 3_000 < len(reported) < 40_000
    there = {view.job_id for view in await client.list(limit=50_000)}
    assert not [job_id for job_id in reported if job_id.decode() not in there]


async def test_a_key_gives_its_first_answer_for_ever(cluster: Cluster) -> None:
    cluster.scheduler()
    client = await cluster.client()
    async with running(cluster, "--workers", "2") as service:
        said = await asyncio.gather(
            *(service.http.post("/jobs", json=FAKE, headers={"Idempotency-Key": "once"}) for _ in range(12))
        )
        assert {one.status_code for one in said} == {201}
        (first,) = {one.text for one in said}
        assert len(await client.list()) == 1
        conflict = await service.http.post("/jobs", json={**FAKE, "priority": 3}, headers={"Idempotency-Key": "once"})
        assert (conflict.status_code, error_code(conflict.json())) == (409, "IDEMPOTENCY_CONFLICT")
        await service.post("/jobs", {**FAKE, "job_id": "mine"}, 201)
        taken = await service.http.post("/jobs", json={**FAKE, "job_id": "mine"}, headers={"Idempotency-Key": "other"})
        assert (taken.status_code, error_code(taken.json())) == (409, "DUPLICATE_JOB")
        again = await service.http.post("/jobs", json=FAKE, headers={"Idempotency-Key": "once"})
        assert again.text == first


async def _events(response: httpx.Response, until_kind: str) -> list[dict[str, Any]]:
    found = []
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            found.append(json.loads(line.removeprefix("data: ")))
            if found[-1].get("kind") == until_kind:
                break
    return found


async def test_events_and_output_can_be_followed_and_resumed(cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.agent("n1", drivers=("process",))
    await cluster.ready()
    async with running(cluster) as service:
        async with service.http.stream("GET", "/events", params={"follow": "true"}) as live:
            body = {"driver": "process", "command": ["sh", "-c", "echo one; sleep 1; echo two"], "job_id": "j"}
            said = await service.post("/jobs", body, 201)
            seen = await _events(live, "run.ended")
        assert seen[0]["seq"] == said["seq"]
        assert [one["seq"] for one in seen] == list(range(said["seq"], seen[-1]["seq"] + 1))
        middle = seen[len(seen) // 2]["seq"]
        resume = {"Last-Event-ID": str(middle)}
        async with service.http.stream("GET", "/events", headers=resume) as rest:
            later = await _events(rest, "run.ended")
        assert later == [one for one in seen if one["seq"] > middle]
        whole = (await service.http.get("/events")).text
        assert whole.startswith("id: 1\nevent: cluster_created\n")
        story = (await service.http.get("/events", params={"job": "j"})).text
        kinds = [
            kind for kind in re.findall("event: (.*)", story) if kind != "run.starting"
        ]  # told only if it takes long
        assert kinds == ["submitted", "run.assigned", "run.started", "run.ended"]
        async with service.http.stream("GET", "/jobs/j/logs", params={"follow": "true"}) as output:
            text = (await output.aread()).decode()
        assert re.findall(r"event: stdout\ndata: (.*)", text) == ['"one\\n"', '"two\\n"']
        assert text.endswith('event: end\ndata: {"state":"succeeded","exit_code":0}\n\n')
        assert sorted((await service.http.get("/jobs/j/logs")).text.split()) == ["one", "two"]


async def test_a_token_opens_what_its_role_and_tenant_may(cluster: Cluster, tmp_path: Path) -> None:
    cluster.scheduler()
    cluster.agent("n1", drivers=("fake",))
    await cluster.ready()
    view, submit, other, root = (f"{name}-0123456789abcdef" for name in ("view", "submit", "other", "root"))
    lines = ((view, "viewer", "a"), (submit, "submitter", "a"), (other, "submitter", "b"), (root, "operator", ""))
    async with running(cluster, "--tokens", str(tokens(tmp_path, *lines))) as service:

        async def ask(token: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
            said = await service.http.request(method, path, json=body, headers=bearer(token) if token else {})
            return said.status_code, "" if said.status_code < 400 else error_code(said.json())

        job = {**FAKE, "job_id": "j", "fake": {"duration_ms": 60_000}}
        assert await ask("", "GET", "/jobs") == (401, "UNAUTHORIZED")
        assert await ask("wrong-0123456789abcdef", "GET", "/jobs") == (401, "UNAUTHORIZED")
        assert await ask(view, "POST", "/jobs", job) == (403, "FORBIDDEN")
        assert await ask(submit, "POST", "/jobs", {**job, "tenant": "b"}) == (403, "FORBIDDEN")
        assert await ask(submit, "POST", "/jobs", job) == (201, "")
        for path in ("/jobs/j", "/jobs/j/logs", "/events?job=j"):
            assert await ask(view, "GET", path) == (200, "")
            assert await ask(other, "GET", path) == (404, "JOB_NOT_FOUND")
        assert await ask(other, "POST", "/jobs/j/abort") == (404, "JOB_NOT_FOUND")
        assert await ask(view, "POST", "/jobs/j/abort") == (403, "FORBIDDEN")
        assert (await service.http.get("/jobs", headers=bearer(other))).json() == []
        for method, path in (
            ("PUT", "/policy"),
            ("POST", "/nodes/n1/drain"),
            ("PUT", "/tenants/a"),
            ("POST", "/schedule"),
        ):
            assert await ask(submit, method, path, {}) == (403, "FORBIDDEN"), path
        assert await ask(root, "POST", "/nodes/n1/cordon") == (200, "")
        events = (await service.http.get("/events", headers=bearer(other))).text
        assert events == ""
        own = (await service.http.get("/events", headers=bearer(view))).text
        assert "ev.job.a.j.submitted" in own
        assert await ask(root, "POST", "/jobs", {**job, "tenant": "b"}) == (201, "")
        assert await ask(root, "GET", "/jobs/j") == (409, "AMBIGUOUS_JOB")
        assert await ask(root, "GET", "/jobs/j?tenant=b") == (200, "")
        assert await ask(submit, "POST", "/jobs/j/abort") == (200, "")
    words = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert "0123456789abcdef" not in words


async def test_loopback_needs_no_token_but_refuses_web_pages_and_the_world_needs_tokens(cluster: Cluster) -> None:
    cluster.scheduler()
    async with running(cluster) as service:
        for headers, code in (
            ({"Host": "evil.example"}, "FOREIGN_HOST"),
            ({"Origin": "http://evil.example"}, "FOREIGN_ORIGIN"),
        ):
            said = await service.http.post("/jobs", json=FAKE, headers=headers)
            assert (said.status_code, error_code(said.json())) == (403, code)
        assert (await service.http.post("/jobs", json=FAKE, headers={"Origin": service.url})).status_code == 201
    world = Service(cluster, "--host", "0.0.0.0", name="world")
    world.start()
    assert await asyncio.to_thread(cluster.processes["world"].wait) == 2
    assert "there are no tokens" in cluster.log("world").read_text()
    await world.http.aclose()


async def test_pressure_is_answered_with_429_and_bad_requests_with_the_field(cluster: Cluster) -> None:
    cluster.scheduler()
    async with running(cluster, "--pending-limit", "3") as service:
        for _ in range(3):
            await service.post("/jobs", FAKE, 201)

        async def refused() -> httpx.Response | None:
            said = await service.http.post("/jobs", json=FAKE)
            return said if said.status_code == 429 else None

        said = await until(refused, what="a refusal")
        assert (error_code(said.json()), said.headers["Retry-After"]) == ("TOO_MANY_PENDING", "1")
        for content, status, code in (
            (b"", 400, "BAD_FORMAT"),
            (b"{", 400, "BAD_FORMAT"),
            (b"[" * 100_000, 400, "BAD_FORMAT"),
            (b'{"image":"\xff"}', 400, "BAD_ENCODING"),
            (b"[]", 422, "VALIDATION_ERROR"),
            (b'{"imagee":"busybox"}', 422, "VALIDATION_ERROR"),
            (b'{"image":"busybox","priority":1e999}', 422, "VALIDATION_ERROR"),
            (b'{"image":"busybox","gpus":1}', 422, "VALIDATION_ERROR"),
            (b"x" * 5_000_000, 413, "PAYLOAD_TOO_LARGE"),
        ):
            said = await service.http.post("/jobs", content=content)
            assert (said.status_code, error_code(said.json())) == (status, code), content[:40]
        for path, status, code in (("/nix", 404, "NOT_FOUND"), ("/jobs?limit=0", 422, "VALIDATION_ERROR")):
            assert error_code(await service.get(path, status)) == code
        assert error_code(await service.get("/jobs?at_seq=5", 501)) == "NOT_IMPLEMENTED"
        assert error_code(await service.get("/jobs?min_seq=900", 504)) == "NOT_FOLDED_YET"
        gone = await service.http.request("DELETE", "/jobs")
        assert (gone.status_code, error_code(gone.json())) == (405, "METHOD_NOT_ALLOWED")
        assert await cluster.end("api") == 0
