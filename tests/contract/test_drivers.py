"""What every driver promises, held against all four: docker and processes for real."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from eventsched.agents.drivers.base import Driver, Place, StartFailed
from eventsched.agents.drivers.docker import DockerDriver
from eventsched.agents.drivers.fake import FakeDriver, FakeEngine
from eventsched.agents.drivers.manual import ManualDriver
from eventsched.agents.drivers.process import ProcessDriver
from eventsched.agents.effects import Ended, Launch
from eventsched.heartbeat import RunUsage
from eventsched.new_ids import new_ulid
from eventsched.spec import FakeRun, JobSpec

from ..cluster import until

REAL = ("docker", "process")


class Kit:
    """A driver, how to make another one in front of the same machine, and jobs it understands."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.place = Place(new_ulid(), "node-1", directory)
        self.engine = FakeEngine()
        self.driver = self.make()
        self.numbers = iter(range(100, 10_000))

    def make(self) -> Driver:
        """A driver as a newly started agent makes it."""
        makers: dict[str, Callable[[], Driver]] = {
            "docker": lambda: DockerDriver(self.place),
            "process": lambda: ProcessDriver(self.place),
            "fake": lambda: FakeDriver(self.engine),
            "manual": lambda: ManualDriver(self.place),
        }
        return makers[self.name]()

    def launch(self, script: str, ms: int = 0, exit_code: int = 0, output: str = "", **fields: object) -> Launch:
        """A run of a shell script, or of a fake that looks the same from outside."""
        match self.name:
            case "docker":
                spec = JobSpec(image="busybox", command=("sh", "-c", script), network="none", **fields)  # type: ignore[arg-type]
            case "process":
                spec = JobSpec(driver="process", command=("sh", "-c", script), **fields)  # type: ignore[arg-type]
            case "fake":
                spec = JobSpec(
                    driver="fake", fake=FakeRun(duration_ms=ms, exit_code=exit_code, output=output), **fields
                )  # type: ignore[arg-type]
            case _:
                spec = JobSpec(driver="manual", **fields)  # type: ignore[arg-type]
        return Launch(next(self.numbers), "acme", "job", 1, (), spec)

    async def finish(self, run: int, exit_code: int = 0) -> None:
        """Manual runs end by hand."""
        await self.driver.finish(run, exit_code)


def _quiet(_: str) -> None:
    pass


@contextlib.asynccontextmanager
async def _opened(name: str, directory: Path) -> AsyncIterator[Kit]:
    """A kit with an open driver; in the end everything it ran is removed."""
    kit = Kit(name, directory)
    await kit.driver.open()
    yield kit
    for known in await kit.driver.inventory():
        await kit.driver.stop(known.launch.run, 0)
        await kit.driver.remove(known.launch.run)
    await kit.driver.leave()
    await kit.driver.close()


@pytest.fixture(params=[*REAL, "fake", "manual"])
async def kit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kit]:
    async with _opened(request.param, tmp_path) as made:
        yield made


@pytest.fixture(params=REAL)
async def real(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kit]:
    """For what fakes cannot do."""
    async with _opened(request.param, tmp_path) as made:
        yield made


async def _text(driver: Driver, run: int, skip: int = 0) -> str:
    return b"".join([data async for _, data in driver.output(run, skip)]).decode()


async def test_start_wait_remove(kit: Kit) -> None:
    launch = kit.launch("exit 0")
    await kit.driver.start(launch, _quiet)
    await kit.finish(launch.run)
    assert await kit.driver.wait(launch.run) == Ended("exited", 0)
    assert await kit.driver.wait(launch.run) == Ended("exited", 0), "it can be asked again"
    await kit.driver.remove(launch.run)
    await kit.driver.remove(launch.run)
    assert await kit.driver.inventory() == []


async def test_an_exit_code_is_passed_on(kit: Kit) -> None:
    launch = kit.launch("exit 7", exit_code=7)
    await kit.driver.start(launch, _quiet)
    await kit.finish(launch.run, 7)
    ended = await kit.driver.wait(launch.run)
    assert (ended.outcome, ended.exit_code) == ("exited", 7)


async def test_a_stop_ends_it_and_says_so(kit: Kit) -> None:
    launch = kit.launch("sleep 60", ms=60_000)
    await kit.driver.start(launch, _quiet)
    began = time.monotonic()
    await kit.driver.stop(launch.run, 5_000)
    assert (await kit.driver.wait(launch.run)).outcome == "stopped"
    assert time.monotonic() - began < 4, "SIGTERM is enough for a sleep"


async def test_it_was_stopped_whoever_asks_and_however_often(kit: Kit) -> None:
    """The docker driver's inventory used up the mark, so that the end was then reported as the job's own."""
    launch = kit.launch("sleep 60", ms=60_000)
    await kit.driver.start(launch, _quiet)
    await kit.driver.stop(launch.run, 5_000)
    for _ in range(2):
        (known,) = await kit.driver.inventory()
        assert known.ended is not None
        assert known.ended.outcome == "stopped"
        assert (await kit.driver.wait(launch.run)).outcome == "stopped"


async def test_a_stop_after_the_end_changes_nothing(kit: Kit) -> None:
    launch = kit.launch("exit 3", exit_code=3)
    await kit.driver.start(launch, _quiet)
    await kit.finish(launch.run, 3)
    before = await kit.driver.wait(launch.run)
    await kit.driver.stop(launch.run, 1_000)
    assert await kit.driver.wait(launch.run) == before
    assert before.outcome == "exited"


async def test_a_run_is_started_once(kit: Kit) -> None:
    launch = kit.launch("sleep 60", ms=60_000)
    await kit.driver.start(launch, _quiet)
    with pytest.raises(StartFailed):
        await kit.driver.start(launch, _quiet)
    assert len(await kit.driver.inventory()) == 1


async def test_whoever_comes_next_finds_what_runs_and_what_has_ended(kit: Kit) -> None:
    long, short = kit.launch("sleep 60", ms=60_000), kit.launch("exit 4", exit_code=4)
    for launch in (long, short):
        await kit.driver.start(launch, _quiet)
    await kit.finish(short.run, 4)
    await kit.driver.wait(short.run)
    other = kit.make()
    await other.open()
    known = {one.launch.run: one for one in await other.inventory()}
    assert {run: one.launch for run, one in known.items()} == {long.run: long, short.run: short}
    assert known[long.run].ended is None
    assert known[short.run].ended is not None
    assert known[short.run].ended.exit_code == 4  # type: ignore[union-attr]
    waiting = asyncio.ensure_future(other.wait(long.run))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await other.stop(long.run, 1_000)
    assert (await waiting).outcome == "stopped"
    await other.close()


async def test_runs_of_others_are_not_ours(kit: Kit, tmp_path: Path) -> None:
    launch = kit.launch("sleep 60", ms=60_000)
    await kit.driver.start(launch, _quiet)
    stranger = Kit(kit.name, tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    await stranger.driver.open()
    assert await stranger.driver.inventory() == []
    await stranger.driver.stop(launch.run, 0)
    assert (await kit.driver.inventory())[0].ended is None
    await stranger.driver.close()


async def test_waiting_for_a_run_nobody_knows_is_honest(kit: Kit) -> None:
    assert (await kit.driver.wait(99_999)).outcome == "lost"


async def test_output_is_there_from_any_byte_and_ends_with_the_run(kit: Kit) -> None:
    if kit.name == "manual":
        launch = kit.launch("")
        await kit.driver.start(launch, _quiet)
        await kit.finish(launch.run)
        assert await _text(kit.driver, launch.run) == ""
        return
    launch = kit.launch("echo one; echo two", output="one\ntwo\n")
    await kit.driver.start(launch, _quiet)
    assert await _text(kit.driver, launch.run) == "one\ntwo\n"
    assert await _text(kit.driver, launch.run, 4) == "two\n"
    assert await kit.driver.has_output(launch.run)


async def test_many_at_once(kit: Kit) -> None:
    launches = [kit.launch("exit 0") for _ in range(8)]
    await asyncio.gather(*(kit.driver.start(launch, _quiet) for launch in launches))
    for launch in launches:
        await kit.finish(launch.run)
    ends = await asyncio.gather(*(kit.driver.wait(launch.run) for launch in launches))
    assert [(end.outcome, end.exit_code) for end in ends] == [("exited", 0)] * 8


async def test_what_a_job_was_given_is_for_the_agent_s_eyes_only(kit: Kit, tmp_path: Path) -> None:
    launch = kit.launch("sleep 60", ms=60_000, env={"TOKEN": "open-sesame"})
    await kit.driver.start(launch, _quiet)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    telling = [path for path in files if b"open-sesame" in path.read_bytes()]
    assert bool(telling) == (kit.name in ("process", "manual"))
    assert [oct(path.stat().st_mode & 0o777) for path in telling] == ["0o600"] * len(telling)


async def test_output_comes_while_it_runs(real: Kit) -> None:
    launch = real.launch("echo first; sleep 60")
    await real.driver.start(launch, _quiet)
    source = real.driver.output(launch.run, 0)
    async with asyncio.timeout(3):
        _, data = await anext(source)
    assert data == b"first\n"
    await real.driver.stop(launch.run, 0)
    await source.aclose()  # type: ignore[attr-defined]


async def test_the_environment_tells_a_run_who_it_is(real: Kit) -> None:
    launch = real.launch("env", env={"MINE": "yes"})
    await real.driver.start(launch, _quiet)
    lines = (await _text(real.driver, launch.run)).splitlines()
    for line in ("MINE=yes", f"EVENTSCHED_FENCE={launch.run}", "EVENTSCHED_JOB=job", "EVENTSCHED_NODE=node-1"):
        assert line in lines
    assert not any("PASSWORD" in line for line in lines)


async def test_a_command_that_is_not_there(real: Kit) -> None:
    spec = real.launch("").spec
    fields = {"driver": spec.driver, "image": spec.image, "command": ("no-such-command",), "network": spec.network}
    launch = Launch(next(real.numbers), "acme", "job", 1, (), JobSpec(**fields))  # type: ignore[arg-type]
    try:
        await real.driver.start(launch, _quiet)
    except StartFailed as failure:
        assert failure.reason == "command_not_found"  # noqa: PT017
        assert "no-such-command" in failure.detail  # noqa: PT017
    else:
        ended = await real.driver.wait(launch.run)
        assert (ended.outcome, ended.exit_code, ended.reason) == ("exited", 127, "command_not_found")


async def test_a_signal_nobody_here_sent(real: Kit) -> None:
    launch = real.launch("kill -9 $$")
    await real.driver.start(launch, _quiet)
    ended = await real.driver.wait(launch.run)
    assert (ended.outcome, ended.reason) == ("exited", "killed")


async def test_what_ignores_sigterm_is_killed_after_its_grace(real: Kit) -> None:
    launch = real.launch("trap '' TERM; echo ready; while true; do sleep 1; done")
    await real.driver.start(launch, _quiet)
    source = real.driver.output(launch.run, 0)
    await anext(source)
    began = time.monotonic()
    await real.driver.stop(launch.run, 1_000)
    ended = await real.driver.wait(launch.run)
    assert (ended.outcome, ended.exit_code) == ("stopped", 137)
    assert 0.9 < time.monotonic() - began < 5
    await source.aclose()  # type: ignore[attr-defined]


async def test_usage_of_what_runs(real: Kit) -> None:
    launch = real.launch("while true; do :; done")
    await real.driver.start(launch, _quiet)
    await real.driver.usage([launch.run])

    async def busy() -> RunUsage | None:
        usage = (await real.driver.usage([launch.run])).get(launch.run)
        return usage if usage is not None and usage.cpu_percent > 10 else None

    assert (await until(busy, what="its use of the processor")).memory_bytes > 0
