"""Several services over one cluster, and one that is killed: what a client was told holds for all of them."""

from __future__ import annotations

import asyncio
import json

from ..cluster import Cluster
from ..service import QUOTA, Service, running
from .test_http_earlier import error_code

FAKE = {"driver": "fake", "command": ["x"], "hold": True}


async def test_a_write_is_read_from_another_service_with_its_sequence(cluster: Cluster) -> None:
    cluster.scheduler()
    await cluster.client()
    async with running(cluster) as here, running(cluster, name="other") as there:

        async def written_and_read(number: int) -> None:
            told = await here.post("/jobs", {**FAKE, "job_id": f"j{number}", "tenant": f"t{number % 3}"}, 201)
            query = {"min_seq": told["seq"]}
            read = await there.get(f"/jobs/j{number}", **query)
            assert (read["job_id"], read["tenant"]) == (f"j{number}", f"t{number % 3}")
            listed = await there.get("/jobs", limit=500, **query)
            assert f"j{number}" in {one["job_id"] for one in listed}

        await asyncio.gather(*(written_and_read(number) for number in range(60)))


async def test_a_key_gives_its_first_answer_after_the_service_was_killed(cluster: Cluster) -> None:
    cluster.scheduler()
    client = await cluster.client()
    header = {"Idempotency-Key": "once"}
    async with running(cluster) as service:
        first = await service.http.post("/jobs", json=FAKE, headers=header)
        assert first.status_code == 201
        asked = [asyncio.ensure_future(service.http.post("/jobs", json=FAKE, headers=header)) for _ in range(4)]
        await asyncio.sleep(0)
        await cluster.kill(service.name)
        await asyncio.gather(*asked, return_exceptions=True)
    async with running(cluster, name="next") as service:
        again = await service.http.post("/jobs", json=FAKE, headers=header)
        assert (again.status_code, again.text) == (201, first.text)
        other = await service.http.post("/jobs", json={**FAKE, "priority": 1}, headers=header)
        assert (other.status_code, error_code(other.json())) == (409, "IDEMPOTENCY_CONFLICT")
    assert len(await client.list()) == 1


async def test_pages_with_filters_lead_through_all_that_fits(cluster: Cluster) -> None:
    cluster.scheduler()
    await cluster.client()
    async with running(cluster) as service:
        rows = [
            {**FAKE, "job_id": f"j{n}", "tenant": f"t{n % 2}", "labels": {"of": f"o{n % 700}"}} for n in range(2_100)
        ]
        told = (await service.http.post("/ingest", content="".join(json.dumps(row) + "\n" for row in rows))).json()
        assert told["accepted_count"] == 2_100
        for path, expected in (
            ("/jobs?limit=500&label=of=o7", [1407, 707, 7]),
            ("/jobs?limit=2&label=of=o7", [1407, 707, 7]),
            ("/jobs?limit=1&tenant=t1&label=of=o7", [1407, 707, 7]),
            ("/jobs?limit=333", list(reversed(range(2_100)))),
            ("/jobs?limit=500&tenant=t0&status=PENDING", list(reversed(range(0, 2_100, 2)))),
            ("/jobs?limit=500&state=running", []),
        ):
            assert await _all(service, path) == expected, path


async def _all(service: Service, path: str) -> list[int]:
    """Numbers of the jobs on all pages."""
    found: list[int] = []
    while path:
        page = await service.http.get(path)
        assert page.status_code == 200, page.text
        found += [int(one["job_id"][1:]) for one in page.json()]
        path = page.links["next"]["url"] if "next" in page.links else ""
    return found


async def test_a_tick_over_many_waiting_jobs_places_what_fits(cluster: Cluster) -> None:
    cluster.scheduler("s1", *QUOTA)
    cluster.agent("n1", "--gpus", "A100:2", drivers=("manual",))
    await cluster.ready()
    async with running(cluster) as service:
        rows = [{"job_id": f"j{n}", "gpu_type": "A100", "gpus": 1, "submitted_at": n} for n in range(3_000)]
        told = (await service.http.post("/ingest", content="".join(json.dumps(row) + "\n" for row in rows))).json()
        assert told["accepted_count"] == 3_000
        assert (await service.post("/schedule?now=5000"))["count"] == 2
        assert (await service.post("/schedule?now=5001"))["scheduled"] == []
        await service.post("/jobs/j0/complete")
        assert (await service.post("/schedule?now=5002"))["count"] == 1
    async with running(cluster, name="next") as service:  # one that finds them waiting when it starts
        assert (await service.post("/schedule?now=5003"))["count"] == 0
