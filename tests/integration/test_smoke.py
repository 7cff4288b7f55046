"""`eventsched smoke` with the rights an operator and a tenant have in production."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ..cluster import Cluster, opened
from ..production import ProductionServer
from ..servers import running as running_server
from ..service import running, tokens

TOKEN = "operator-0123456789abcdef"


@pytest.fixture
async def production(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running_server(ProductionServer(tmp_path / "nats")) as server, opened(tmp_path, server) as cluster:
        yield cluster


async def _smoke(cluster: Cluster, role: str, *arguments: str) -> tuple[int, Any]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "eventsched", "smoke", "-o", "json", *arguments],
        env=cluster.server.environment(role),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


async def test_three_schedulers_one_of_them_killed_and_digests_compared(production: Cluster, tmp_path: Path) -> None:
    for name in ("s1", "s2", "s3"):
        production.scheduler(name, "--digest-every", "10")
    production.agent("n1", drivers=("fake",))
    await production.ready()
    async with running(production, "--tokens", str(tokens(tmp_path, (TOKEN, "operator", "")))) as service:
        code, found = await _smoke(production, "operator", service.url, "--token", TOKEN)
        checks = {one["check"]: one for one in found["checks"]}
        assert code == 0, [one for one in found["checks"] if not one["ok"]]
        assert checks["schedulers"]["detail"].count("standby") == 2
        assert "http job" in checks
        await production.kill("s1")
        code, found = await _smoke(production, "operator", service.url, "--token", TOKEN)
        checks = {one["check"]: one for one in found["checks"]}
        assert code == 0, [one for one in found["checks"] if not one["ok"]]
        assert "recorded digests agree" in checks["fold"]["detail"]
        code, found = await _smoke(production, "operator", service.url)
        failed = {one["check"]: one["detail"] for one in found["checks"] if not one["ok"]}
        assert code == 1
        assert list(failed) == ["ready"]
        assert "401 UNAUTHORIZED" in failed["ready"]
