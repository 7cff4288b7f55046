"""Edges of the HTTP service that once gave way, over a real cluster."""

from __future__ import annotations

from ..cluster import Cluster
from ..service import running
from .test_http_earlier import error_code

FAKE = {"driver": "fake", "command": ["x"]}
HELD = {"driver": "fake", "hold": True}


async def test_pages_of_large_jobs_fit_in_a_message(cluster: Cluster) -> None:
    cluster.scheduler()
    async with running(cluster) as service:
        jobs = [{**HELD, "command": ["x" * 2_500], "job_id": f"j{index}"} for index in range(600)]
        for start in (0, 300):
            answer = await service.post("/jobs/batch", jobs[start : start + 300])
            assert len(answer["accepted"]) == 300
        assert [one["job_id"] for one in await service.get("/jobs", limit=1)] == ["j599"]
        whole = await service.http.get("/jobs")
        assert len(whole.json()) == 500
        rest = await service.http.get(whole.links["next"]["url"])
        assert [one["job_id"] for one in whole.json() + rest.json()] == [f"j{index}" for index in range(599, -1, -1)]
        assert "next" not in rest.links
        picked = await service.get("/jobs", status="PENDING", limit=500)
        assert len(picked) == 500


async def test_a_policy_is_refused_with_the_field_whatever_its_parameters_are_called(cluster: Cluster) -> None:
    cluster.scheduler()
    async with running(cluster) as service:
        for params in ({"name": "x"}, {"self": 1}, {"aging": "much"}):
            said = await service.http.put("/policy", json={"name": "fgd", "params": params})
            assert (said.status_code, error_code(said.json())) == (422, "VALIDATION_ERROR"), (params, said.text)
        unknown = await service.http.put("/policy", json={"name": "best-guess"})
        assert (unknown.status_code, error_code(unknown.json())) == (422, "VALIDATION_ERROR")
        told = await service.http.put("/policy", json={"name": "best-fit"})
        assert (told.status_code, told.json()["name"], told.json()["current"]) == (200, "best-fit", True)
        assert (await service.get("/policy"))["name"] == "best-fit"
