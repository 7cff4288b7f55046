"""Options and fixtures for all tiers."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from eventsched.nats_server import NatsServer
from eventsched.telemetry import configure_logging

from .cluster import Cluster, opened
from .engine import Daemon
from .servers import TestServer, running
from .turns import turn

settings.register_profile("eventsched", derandomize=True, deadline=None)
settings.load_profile("eventsched")
providers._get_local_constants = providers.Constants
"""Else Hypothesis mixes in numbers from whatever modules happen to be loaded: other examples in each run."""
FAILED = pytest.StashKey[bool]()
configure_logging(level="error")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="play only this seed of the simulation")
    parser.addoption("--seeds", type=int, default=None, help="play so many seeds of the simulation")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked slow, unless it is asked for."""
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A real nats-server over a directory of its own, on a free port."""
    async with running(TestServer(tmp_path / "nats")) as server:
        yield server


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Cluster]:
    """An empty real cluster; tests start what they need. What its processes said is shown on failure.

    Under the mark `calm` its timers are the ordinary ones.
    """
    calm = request.node.get_closest_marker("calm") is not None
    async with opened(tmp_path, nats_server, calm=calm) as made:
        yield made
    if request.node.stash.get(FAILED, False):
        print(made.words())


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    """A container engine of the test's own, to be ended and started again; busybox is in it."""
    made = Daemon(Path(tempfile.mkdtemp(prefix="es-daemon-")))  # short: it holds a socket
    await made.start()
    await made.load_busybox()
    yield made
    await made.clean_up()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Each test in its turn; time spent waiting for it does not count."""
    with turn(item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fixtures that end after a test may ask whether it failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report
