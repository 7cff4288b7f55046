"""What the documentation says holds for whatever is thrown at the service: schemathesis over a real cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

from ..cluster import Cluster
from ..service import running

EXAMPLES_EACH = 15
SLOW = ("min_seq", "follow")
"""Parameters that make the service wait, as they should."""


async def test_no_request_finds_a_500_or_a_status_nobody_wrote_down(cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.agent("n1", "--cpus", "64", drivers=("fake", "manual"))
    await cluster.ready()
    async with running(cluster) as service:
        await service.post("/jobs", {"driver": "manual", "job_id": "j1"}, 201)
        asked = await asyncio.to_thread(_try_everything, service.url)
        assert len(asked) >= 25
        assert {"/jobs", "/ingest", "/events", "/policy"} <= {path for _, path in asked}
        assert min(asked.values()) > 0
        await service.answers()
    assert "request_failed" not in cluster.log("api").read_text()


def _try_everything(url: str) -> dict[tuple[str, str], int]:
    """How many requests were made of each operation; raises at the first answer that is not as documented."""
    asked: dict[tuple[str, str], int] = {}
    for found in schemathesis.openapi.from_url(f"{url}/schema/openapi.json").get_all_operations():
        operation = found.ok()
        _try(operation, asked)
    return asked


def _try(operation: Any, asked: dict[tuple[str, str], int]) -> None:
    key = operation.method, operation.path

    @settings(
        max_examples=EXAMPLES_EACH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def once(case: Any) -> None:
        case.query = {name: value for name, value in (case.query or {}).items() if name not in SLOW}
        if asked.get(key, 0) % 2 and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = "j1"
        asked[key] = asked.get(key, 0) + 1
        case.validate_response(case.call(timeout=30), checks=[not_a_server_error, status_code_conformance])

    once()
