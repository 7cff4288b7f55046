"""The routes of the earlier systems, word for word, over a real cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ..cluster import Cluster, until
from ..service import QUOTA, Service, running

BY_HAND = {"tenant_id": "t1", "gpu_type": "A100", "gpus": 1, "priority": 5, "submitted_at": 0}


def error_code(body: Any) -> str:
    """The code of an error, whose body must have the one shape."""
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "details"]
    assert body["error"]["message"]
    return str(body["error"]["code"])


async def test_jobs_finished_by_hand_under_a_manual_clock(cluster: Cluster) -> None:
    cluster.scheduler("s1", *QUOTA)
    cluster.agent("n1", "--gpus", "A100:4,H100:2", drivers=("manual",))
    operator = await cluster.ready()
    await operator.set_policy("quota-aging")
    await operator.set_tenant("*", gpus=0)
    await operator.set_tenant("t1", gpu_models={"A100": 2, "H100": 1})
    async with running(cluster) as service:
        said = await service.post("/jobs", {"job_id": "j1", **BY_HAND}, 201)
        assert list(said) == ["job_id", "tenant", "state", "status", "seq"]
        assert (said["job_id"], said["tenant"], said["state"], said["status"]) == ("j1", "t1", "pending", "WAITING")
        assert error_code(await service.post("/jobs", {"job_id": "j1", **BY_HAND}, 409)) == "DUPLICATE_JOB"
        other = {"job_id": "j1", **BY_HAND, "tenant_id": "t2"}
        assert error_code(await service.post("/jobs", other, 409)) == "DUPLICATE_JOB"
        assert error_code(await service.post("/jobs", {**BY_HAND, "gpus": 0}, 422)) == "VALIDATION_ERROR"

        batch = await service.post(
            "/jobs/batch",
            [
                {"job_id": "j2", **BY_HAND, "gpus": 2},
                {"job_id": "j3", **BY_HAND, "priority": 9},
                {"job_id": "j1", **BY_HAND},
                {"job_id": "j4", **BY_HAND, "tenant_id": "t9"},
                {"job_id": "j5", "image": "busybox", "gpus": 1},
                5,
            ],
        )
        assert [(one["index"], one["job_id"]) for one in batch["accepted"]] == [(0, "j2"), (1, "j3"), (3, "j4")]
        assert [(one["index"], one["error"]["code"]) for one in batch["rejected"]] == [
            (2, "DUPLICATE_JOB"),
            (4, "VALIDATION_ERROR"),
            (5, "VALIDATION_ERROR"),
        ]

        assert error_code(await service.post("/jobs/j1/complete", status=400)) == "INVALID_STATE"
        tick = await service.post("/schedule?now=60")
        assert (tick["now"], tick["scheduled"]) == (60, ["j3", "j1"])
        running_now = await service.get("/jobs", status="RUNNING")
        assert [(one["job_id"], one["status"], one["state"]) for one in running_now] == [
            ("j3", "RUNNING", "running"),
            ("j1", "RUNNING", "running"),
        ]
        waits = await service.get("/jobs/j2")
        assert (waits["status"], waits["reason"]) == ("WAITING", "quota")
        assert (await service.get("/jobs/j4"))["reason"] == "quota"
        assert error_code(await service.post("/schedule?now=59", status=422)) == "VALIDATION_ERROR"
        assert error_code(await service.post("/schedule?now=soon", status=422)) == "VALIDATION_ERROR"
        assert (await service.post("/schedule?now=60"))["scheduled"] == []

        done = await service.post("/jobs/j1/complete")
        assert (done["status"], done["state"]) == ("COMPLETED", "succeeded")
        assert error_code(await service.post("/jobs/j1/complete", status=400)) == "INVALID_STATE"
        assert error_code(await service.post("/jobs/none/complete", status=404)) == "JOB_NOT_FOUND"
        assert (await service.post("/jobs/j3/complete"))["status"] == "COMPLETED"
        assert (await service.post("/schedule?now=61"))["scheduled"] == ["j2"]
        stats = await service.get("/stats")
        assert (stats["gpus"]["A100"], stats["gpus"]["H100"]) == (
            {"capacity": 4, "free": 2},
            {"capacity": 2, "free": 2},
        )
        assert (stats["waiting_jobs"], stats["running_jobs"], stats["completed_jobs"]) == (1, 1, 2)


async def test_containers_form_with_output_abort_and_executors(cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.agent("n1", "--gpus", "A100:2", drivers=("fake", "process"), EXECUTOR_IP="10.0.0.7")
    await cluster.ready()
    async with running(cluster) as service:
        body = {"docker_image": "alpine:latest", "command": ["echo", "Hello World!"], "cpu_cores": 1, "memory_gb": 1}
        said = await service.post("/jobs", {**body, "gpu_type": None}, 201)
        assert said["status"] == "PENDING"
        job = await service.get(f"/jobs/{said['job_id']}")
        assert (job["status"], job["docker_image"], job["cpu_cores"], job["memory_gb"]) == (
            "PENDING",
            "alpine:latest",
            1,
            1,
        )
        gone = await service.post(f"/jobs/{said['job_id']}/abort", {"reason": "not needed"})
        assert (gone["status"], gone["detail"]) == ("ABORTED", "not needed")
        assert error_code(await service.post(f"/jobs/{said['job_id']}/abort", status=400)) == "INVALID_STATE"

        echo = await service.post("/jobs", {"driver": "process", "command": ["echo", "over here"]}, 201)
        ended = await service.until_state(echo["job_id"], "succeeded")
        assert (ended["status"], ended["logs"], ended["executor_id"]) == ("SUCCEEDED", "over here\n", "n1")
        assert (await service.get(f"/jobs/{echo['job_id']}", logs="false"))["logs"] is None
        long = await service.post("/jobs", {"driver": "process", "command": ["sh", "-c", "yes | head -c 300000"]}, 201)
        ended = await service.until_state(long["job_id"], "succeeded")
        assert ended["logs"] == "y\n" * 32768

        runs = await service.post("/jobs", {"driver": "fake", "fake": {"duration_ms": 60000}}, 201)
        await service.post("/schedule")
        await service.until_state(runs["job_id"], "running")
        (executor,) = await service.get("/executors")
        assert sorted(executor) == sorted(EXECUTOR_KEYS)
        assert (executor["executor_id"], executor["status"]) == ("n1", "ONLINE")
        assert executor["labels"] == {"ip": "10.0.0.7"}
        assert (executor["total_gpus"], executor["running_jobs"]) == ({"A100": 2}, [f"default/{runs['job_id']}"])
        assert sorted(await service.get("/stats")) == sorted(STATS_KEYS)
        assert (await service.get("/health"))["status"] == "healthy"
        assert (await service.get("/healthz"))["status"] == "ok"
        page = await service.http.get("/", follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/schema")
        assert "swagger" in page.text


EXECUTOR_KEYS = [
    *("executor_id", "status", "state", "cordoned", "total_cpu_cores", "available_cpu_cores", "total_memory_gb"),
    *("available_memory_gb", "total_gpus", "available_gpus", "running_jobs", "cpu_percent", "memory_used_gb"),
    *("last_heartbeat_ms_ago", "labels", "drivers"),
]
STATS_KEYS = [
    *("cluster_id", "seq", "clock_ms", "leader", "epoch", "answered_by", "role", "rounds", "policy", "jobs", "ended"),
    *("nodes", "capacity", "free", "runs", "anomalies", "recent_anomalies", "lag", "late_reports", "void_assigns"),
    *("digest_mismatches", "history", "total_jobs", "queue_length", "pending_jobs", "waiting_jobs", "running_jobs"),
    *("completed_jobs", "succeeded_jobs", "failed_jobs", "aborted_jobs", "executors", "online_executors", "gpus"),
    *("nodes_open", "cpu_utilization", "memory_utilization", "reason", "clock_mode"),
]


async def test_it_is_not_ready_before_the_log_is_folded_and_says_when_nothing_can_take_work(cluster: Cluster) -> None:
    cluster.server.stop()
    service = Service(cluster)
    service.start()
    await service.answers("/healthz")
    for path in ("/readyz", "/health", "/jobs", "/jobs/x", "/stats"):
        assert error_code(await service.get(path, 503)) == "SERVICE_NOT_READY"
    assert error_code(await service.post("/jobs", {"image": "busybox"}, 503)) == "SERVICE_NOT_READY"
    cluster.server.start()
    cluster.scheduler()
    await service.answers()
    assert (await service.get("/stats"))["reason"] == "no_nodes"
    waiting = await service.post("/jobs", {"image": "busybox"}, 201)

    async def judged() -> bool:
        return bool((await service.get(f"/jobs/{waiting['job_id']}"))["reason"] == "no_nodes")

    await until(judged, what="the job to be judged")
    cluster.server.stop()
    await service.answers("/readyz", 503)
    assert (await service.get(f"/jobs/{waiting['job_id']}"))["state"] == "pending", "what is known is still told"
    await service.http.aclose()


@pytest.mark.parametrize("workers", ["1", "3"])
async def test_many_submitters_at_once_each_get_their_own_answer(cluster: Cluster, workers: str) -> None:
    cluster.scheduler()
    cluster.agent("n1", "--cpus", "64")
    client = await cluster.ready()
    async with running(cluster, "--workers", workers) as service:
        fake = {"driver": "fake", "command": ["x"]}
        said = await asyncio.gather(
            *(service.post("/jobs", {**fake, "job_id": f"j{index}"}, 201) for index in range(100))
        )
        assert [one["job_id"] for one in said] == [f"j{index}" for index in range(100)]
        last = max(one["seq"] for one in said)
        listed: list[str] = []
        path = f"/jobs?limit=30&min_seq={last}"
        while path:
            page = await service.http.get(path)
            listed += [one["job_id"] for one in page.json()]
            assert int(page.headers["Eventsched-Seq"]) >= last
            await service.post("/jobs", fake, 201)  # what comes meanwhile moves no page
            path = page.links["next"]["url"] if "next" in page.links else ""
        assert sorted(listed) == sorted(f"j{index}" for index in range(100))
        assert len(await client.list()) == 100 + 4
