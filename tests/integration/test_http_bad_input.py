"""Bad input of every kind: the documented error, with the field where there is one, and nothing lost by it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..cluster import Cluster, until
from ..service import Service, running, tokens
from .test_http_earlier import error_code

FLAT: dict[str, Any] = {"docker_image": "busybox"}
BY_HAND: dict[str, Any] = {"gpu_type": "A100", "gpus": 1}
NESTED: dict[str, Any] = {"resourceRequest": {"cpu": 1}}
OURS: dict[str, Any] = {"image": "busybox"}
HUGE = 10**30
WRONG, UNREADABLE, ENCODING, LARGE = (
    (422, "VALIDATION_ERROR"),
    (400, "BAD_FORMAT"),
    (400, "BAD_ENCODING"),
    (413, "PAYLOAD_TOO_LARGE"),
)
NO_JOB, STATE, NO_NODE = (404, "JOB_NOT_FOUND"), (400, "INVALID_STATE"), (404, "NODE_NOT_FOUND")


class Bad(NamedTuple):
    """A request, and what it must be answered. field: named in the details, or in the message."""

    path: str
    body: Any
    says: tuple[int, str]
    field: str = ""
    method: str = "POST"


JOBS = [
    # wrong types
    ({**OURS, "image": 5}, "image"),
    ({**OURS, "command": "echo hi"}, "command"),
    ({**OURS, "resources": {"gpus": "one"}}, "resources.gpus"),
    ({**OURS, "job_id": 7}, "job_id"),
    ({**OURS, "job_id": None}, "job_id"),
    ({**OURS, "tenant": ["a"]}, "tenant"),
    ({**FLAT, "cpu_cores": "many"}, "cpu_cores"),
    ({**FLAT, "command": [1]}, "command[0]"),
    ({**FLAT, "memory_gb": None}, "memory_gb"),
    ({**BY_HAND, "gpus": 1.5}, "gpus"),
    ({**BY_HAND, "submitted_at": "now"}, "submitted_at"),
    ({**NESTED, "slaType": "GOLD"}, "slaType"),
    ({**NESTED, "resourceRequest": []}, "resourceRequest"),
    ([], ""),
    ("job", ""),
    (None, ""),
    # unknown fields, fields of several forms, fields that are missing
    ({**OURS, "imagee": "busybox"}, "imagee"),
    ({**OURS, "resources": {"cpus": 1}}, "resources.cpus"),
    ({**NESTED, "resourceRequest": {"cpus": 1}}, "resourceRequest.cpus"),
    ({**OURS, **FLAT}, "docker_image"),
    ({**BY_HAND, "gpu_type": None}, "gpu_type"),
    ({}, "image"),
    # negative
    ({**OURS, "resources": {"cpu_millis": -1}}, "resources.cpu_millis"),
    ({**OURS, "priority": -5000}, "priority"),
    ({**OURS, "retries": -1}, "retries"),
    ({**OURS, "array": -1}, "array"),
    ({**FLAT, "cpu_cores": -1}, "cpu_cores"),
    ({**FLAT, "cpu_cores": 0}, "cpu_cores"),
    ({**FLAT, "memory_gb": -0.5}, "memory_gb"),
    ({**FLAT, "gpu_type": "A100", "gpu_count": -1}, "gpu_count"),
    ({**FLAT, "timeout_s": -1}, "timeout_s"),
    ({**BY_HAND, "gpus": -1}, "gpus"),
    ({**BY_HAND, "submitted_at": -1}, "submitted_at"),
    ({**NESTED, "maxTolerableCost": -1}, "maxTolerableCost"),
    ({**NESTED, "durationSeconds": -1}, "durationSeconds"),
    # huge
    ({**OURS, "priority": HUGE}, "priority"),
    ({**OURS, "resources": {"memory_bytes": HUGE}}, "resources.memory_bytes"),
    ({**OURS, "array": 10**9}, "array"),
    ({**OURS, "job_id": "j" * 65}, "job_id"),
    ({**OURS, "tenant": "t" * 65}, "tenant"),
    ({**OURS, "image": "i" * 100_000}, "image"),
    ({**FLAT, "cpu_cores": 1e300}, "cpu_cores"),
    ({**FLAT, "memory_gb": HUGE}, "memory_gb"),
    ({**BY_HAND, "gpus": HUGE}, "gpus"),
    ({**BY_HAND, "submitted_at": HUGE}, "submitted_at"),
    ({**BY_HAND, "max_runtime": 10**15}, "max_runtime"),
    ({**NESTED, "maxTolerableCost": 1e12}, "maxTolerableCost"),
    # ids that are none
    ({**OURS, "job_id": "no id!"}, "job_id"),
    ({**OURS, "job_id": "a.b"}, "job_id"),
    ({**OURS, "tenant": "../x"}, "tenant"),
]
BODIES = [
    (b"", UNREADABLE),
    (b"{", UNREADABLE),
    (b'{"image":"busybox"}{}', UNREADABLE),
    (b'{"image":"busybox","priority":NaN}', UNREADABLE),
    (b"[" * 100_000, UNREADABLE),
    ('{"image":"b\u00fcsybox"}'.encode("latin-1"), ENCODING),
    ('{"image":"busybox"}'.encode("utf-16"), ENCODING),
    (b'{"image":"\xed\xa0\x80"}', ENCODING),
    (b'{"image":"' + b"x" * 5_000_000 + b'"}', LARGE),
    (b'{"image":"busybox","env":{"A":"' + b"x" * 900_000 + b'"}}', WRONG),
]
OTHERS = [
    Bad("/jobs/batch", {}, WRONG),
    Bad("/jobs/batch", [OURS] * 10_001, LARGE),
    Bad("/ingest?fmt=xml", b"", UNREADABLE),
    Bad("/ingest?fmt=csv", b"", UNREADABLE),
    Bad("/ingest?fmt=csv", b"job_id,what\n", UNREADABLE),
    Bad("/ingest?fmt=csv", "job_id,gpus\nj\u00e9,1\n".encode("latin-1"), ENCODING),
    Bad("/schedule?now=soon", b"", WRONG, "now"),
    Bad("/schedule?now=-1", b"", WRONG, "now"),
    Bad(f"/schedule?now={HUGE}", b"", WRONG, "now"),
    *(Bad(f"/jobs/none/{verb}", b"", NO_JOB) for verb in ("abort", "complete", "hold", "release", "requeue")),
    *(Bad(f"/jobs/none{rest}", b"", NO_JOB, method="GET") for rest in ("", "/logs", "/explain")),
    Bad("/jobs/..%2f..", b"", (404, "NOT_FOUND"), method="GET"),
    Bad("/jobs/" + "j" * 5_000, b"", NO_JOB, method="GET"),
    Bad("/jobs/waits/complete", b"", STATE),
    Bad("/jobs/waits/requeue", b"", STATE),
    *(Bad(f"/jobs/ended/{verb}", b"", STATE) for verb in ("abort", "complete", "hold", "release", "requeue")),
    Bad("/jobs/runs/complete", {"exit_code": "x"}, WRONG, "exit_code"),
    Bad("/jobs/runs/complete", {"exit_code": HUGE}, WRONG, "exit_code"),
    Bad("/jobs/runs/complete", {"exit_code": -1}, WRONG, "exit_code"),
    Bad("/jobs/runs/complete", {"code": 0}, WRONG, "code"),
    Bad("/jobs/runs/abort", {"reason": 5}, WRONG, "reason"),
    Bad("/jobs/runs/abort", b"{", UNREADABLE),
    Bad("/jobs/runs/requeue", {"force": "yes"}, WRONG, "force"),
    Bad("/jobs?state=happy", b"", WRONG, method="GET"),
    Bad("/jobs?status=HAPPY", b"", WRONG, method="GET"),
    Bad("/jobs?limit=-1", b"", WRONG, "limit", "GET"),
    Bad(f"/jobs?limit={HUGE}", b"", WRONG, "limit", "GET"),
    Bad("/jobs?cursor=nonsense", b"", WRONG, method="GET"),
    Bad("/jobs?label=x", b"", WRONG, method="GET"),
    Bad("/jobs?min_seq=-1", b"", WRONG, "min_seq", "GET"),
    Bad("/events?from_seq=-1", b"", WRONG, "from_seq", "GET"),
    Bad("/events?job=none", b"", NO_JOB, method="GET"),
    Bad("/nodes/none", b"", NO_NODE, method="GET"),
    *(Bad(f"/nodes/none/{verb}", b"", NO_NODE) for verb in ("drain", "cordon", "uncordon")),
    Bad("/nodes/n1/drain", {"deadline_ms": -1}, WRONG),
    Bad("/nodes/n1/drain", {"deadline_ms": HUGE}, WRONG, "deadline_ms"),
    Bad("/nodes/n1/drain", {"soon": True}, WRONG, "soon"),
    Bad("/tenants/a", {"runs": -1}, WRONG, method="PUT"),
    Bad("/tenants/a", {"runs": "many"}, WRONG, method="PUT"),
    Bad("/tenants/a", {"rnus": 1}, WRONG, method="PUT"),
    Bad("/tenants/no%20id", {"runs": 1}, (404, "TENANT_NOT_FOUND"), method="PUT"),
    Bad("/policy", {"name": "magic"}, WRONG, "magic", "PUT"),
    Bad("/policy", {"name": 5}, WRONG, "name", "PUT"),
    Bad("/policy", {}, WRONG, "name", "PUT"),
    Bad("/nowhere", b"", (404, "NOT_FOUND"), method="GET"),
    Bad("/jobs", b"", (405, "METHOD_NOT_ALLOWED"), method="DELETE"),
]


async def _ask(service: Service, bad: Bad, **headers: str) -> tuple[tuple[int, str], list[str]]:
    content = bad.body if isinstance(bad.body, bytes) else json.dumps(bad.body).encode()
    said = await service.http.request(bad.method, bad.path, content=content or None, headers=headers)
    body = said.json()
    if said.status_code < 400:
        return (said.status_code, "accepted"), []
    error = body["error"]
    return (said.status_code, error_code(body)), [one["field"] for one in error["details"]] or [error["message"]]


async def test_every_bad_request_is_told_what_is_wrong_and_changes_nothing(cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.agent("n1", drivers=("manual",))
    client = await cluster.ready()
    async with running(cluster) as service:
        for job_id in ("ended", "runs"):
            await service.post("/jobs", {"driver": "manual", "job_id": job_id}, 201)
            await service.until_state(job_id, "running")
        await service.post("/jobs/ended/complete")
        await service.post("/jobs", {"driver": "manual", "job_id": "waits", "hold": True}, 201)
        before = await client.list(), await client.tenants(), await client.nodes(), await client.policies()
        requests = [Bad("/jobs", body, WRONG, field) for body, field in JOBS]
        requests += [Bad("/jobs", body, says) for body, says in BODIES] + OTHERS
        wrong = []
        for bad in requests:
            says, fields = await _ask(service, bad)
            named = bad.field in fields or (len(fields) == 1 and " " in fields[0] and bad.field in fields[0])
            if says != bad.says or (bad.field and not named):
                wrong.append(
                    f"{bad.method} {bad.path} {str(bad.body)[:80]}: {says} {fields}, not {bad.says} {bad.field}"
                )
        assert not wrong, "\n".join(wrong)
        after = await client.list(), await client.tenants(), await client.nodes(), await client.policies()
        assert [view.state for view in after[0]] == [view.state for view in before[0]]
        assert [view.job_id for view in after[0]] == ["waits", "runs", "ended"]
        assert (after[1], after[3]) == (before[1], before[3])
        assert [(view.node, view.cordoned, view.draining) for view in after[2]] == [("n1", False, False)]
        assert (await service.post("/jobs/runs/complete"))["status"] == "COMPLETED", "nothing was lost"
    assert "request_failed" not in cluster.log("api").read_text()


async def _cut_off(service: Service, path: str, head: str, sent: bytes) -> None:
    """Send the beginning of a request and hang up."""
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode() + sent)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


ROWS = "".join(f'{{"driver":"manual","job_id":"cut-{index}"}}\n' for index in range(5_000)).encode()
FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="jobs.ndjson"\r\n\r\n' + ROWS


@pytest.mark.parametrize(
    ("path", "head", "sent"),
    [
        ("/jobs", "Content-Length: 100", b'{"driver":"manual","job_id":"cut-0"}'),
        ("/jobs/batch", "Content-Length: 1000000", b'[{"driver":"manual","job_id":"cut-0"},'),
        ("/ingest?fmt=ndjson", "Content-Length: 1000000", ROWS),
        ("/ingest?fmt=ndjson", "Transfer-Encoding: chunked", b"%x\r\n" % len(ROWS) + ROWS + b"\r\n"),
        ("/ingest?fmt=ndjson", "Transfer-Encoding: chunked", b"%x\r\n" % (len(ROWS) + 1) + ROWS),
        ("/ingest", "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000000", FORM),
        ("/ingest?fmt=csv", "Content-Length: 1000", b"job_id,gpu_type,gpus\ncut-0,A100,1\n"),
    ],
)
async def test_an_upload_that_is_cut_off_leaves_nothing_behind(
    cluster: Cluster, path: str, head: str, sent: bytes
) -> None:
    cluster.scheduler()
    client = await cluster.client()
    async with running(cluster) as service:
        await service.post("/jobs", {"driver": "manual", "job_id": "before"}, 201)
        await _cut_off(service, path, head, sent)
        after = await service.post("/jobs", {"driver": "manual", "job_id": "after"}, 201)
        assert [view.job_id for view in await client.list()] == ["after", "before"]
        assert await cluster.end("api") == 0, "it ends in good order: nothing of the upload is under way"
        assert [view.job_id for view in await client.list()] == ["after", "before"]
        assert await client.last_seq() < after["seq"] + 10
    assert "request_failed" not in cluster.log("api").read_text()


WRITES = [
    ("POST", "/jobs", {"driver": "manual"}),
    ("POST", "/jobs/batch", [{"driver": "manual"}]),
    ("POST", "/ingest", {"driver": "manual"}),
    ("POST", "/schedule", {}),
    *(("POST", f"/jobs/mine/{verb}", {}) for verb in ("abort", "complete", "hold", "release", "requeue")),
    *(("POST", f"/nodes/n1/{verb}", {}) for verb in ("drain", "cordon", "uncordon")),
    ("PUT", "/tenants/a", {"runs": 1}),
    ("PUT", "/policy", {"name": "fifo"}),
]


async def test_a_wrong_token_opens_nothing_and_a_weak_one_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    cluster.scheduler()
    cluster.agent("n1", drivers=("fake",))
    client = await cluster.ready()
    viewer, submitter, known = "viewer-0123456789abcdef", "submitter-0123456789abcdef", "operator-0123456789abcdef"
    file = tokens(tmp_path, (viewer, "viewer", "a"), (submitter, "submitter", "b"), (known, "operator", ""))
    async with running(cluster, "--tokens", str(file)) as service:
        mine = {"driver": "manual", "job_id": "mine", "tenant": "a"}
        await service.post("/jobs", mine, 201, Authorization=f"Bearer {known}")

        async def judged() -> bool:
            return (await client.get("mine", tenant="a")).reason != "unjudged"

        await until(judged, 20, "the leader's verdict, the last event for now")
        before = await client.last_seq()
        wrong = ("", "Bearer", "Bearer x", f"Basic {known}", f"Bearer {known}x", f"Bearer {known[:-1]}", known)
        for method, path, body in WRITES:
            for shown in wrong:
                says, _ = await _ask(service, Bad(path, body, WRONG, method=method), **_shown(shown))
                assert says == (401, "UNAUTHORIZED"), (method, path, shown)
            says, _ = await _ask(service, Bad(path, body, WRONG, method=method), **_shown(f"Bearer {viewer}"))
            assert says == (403, "FORBIDDEN"), (method, path)
        for verb in ("abort", "complete", "hold", "release", "requeue"):
            foreign = Bad(f"/jobs/mine/{verb}", {}, NO_JOB)
            assert (await _ask(service, foreign, **_shown(f"Bearer {submitter}")))[0] == NO_JOB, verb
        assert await client.last_seq() == before, "nothing was written"
    assert known not in cluster.log("api").read_text()


def _shown(authorization: str) -> dict[str, str]:
    return {"Authorization": authorization} if authorization else {}


def test_the_page_names_every_code() -> None:
    page = (Path(__file__).parents[2] / "deploy/docs/http.md").read_text()
    codes = {bad.says[1] for bad in OTHERS} | {says[1] for _, says in BODIES} | {"UNAUTHORIZED", "FORBIDDEN"}
    assert sorted(code for code in codes if f"`{code}`" not in page) == []
