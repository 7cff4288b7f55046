"""What only the docker driver does: limits, isolation, images, volumes, networks, GPUs, the engine's death."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventsched.agents.drivers.base import Place, StartFailed
from eventsched.agents.drivers.containers import DockerLimits, container_config
from eventsched.agents.drivers.docker import DockerDriver
from eventsched.agents.drivers.pause import pause_program
from eventsched.agents.effects import Ended, Launch
from eventsched.new_ids import new_ulid
from eventsched.resources import Resources
from eventsched.spec import JobSpec, Volume


class Box:
    def __init__(self, directory: Path, limits: DockerLimits) -> None:
        self.driver = DockerDriver(Place(new_ulid(), "node-1", directory), limits)
        self.numbers = iter(range(1, 1000))

    async def start(
        self, script: str = "true", tenant: str = "acme", gpus: tuple[str, ...] = (), **fields: object
    ) -> Launch:
        spec = JobSpec(**{"image": "busybox", "command": ("sh", "-c", script), "network": "none", **fields})  # type: ignore[arg-type]
        launch = Launch(next(self.numbers), tenant, "job", 1, gpus, spec)
        await self.driver.start(launch, self.progress.append)
        return launch

    progress: list[str] = []

    async def run(self, script: str = "true", **fields: object) -> tuple[Ended, str]:
        launch = await self.start(script, **fields)  # type: ignore[arg-type]
        ended = await self.driver.wait(launch.run)
        return ended, b"".join([data async for _, data in self.driver.output(launch.run, 0)]).decode()

    async def inspect(self, run: int) -> dict:  # type: ignore[type-arg]
        return await self.driver._container(run).show()  # type: ignore[no-any-return]


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content\n")
    box = Box(tmp_path, DockerLimits((f"{tmp_path}/data:ro", f"{tmp_path}/scratch"), pull_stall_s=3))
    await box.driver.open()
    yield box
    for known in await box.driver.inventory():
        await box.driver.stop(known.launch.run, 0)
        await box.driver.remove(known.launch.run)
    await box.driver.leave()
    await box.driver.close()


async def test_over_its_memory_limit(box: Box) -> None:
    ended, _ = await box.run(
        'x=$(head -c 200000000 /dev/zero | tr "\\0" x); echo $x | wc -c', resources=Resources(memory_bytes=16 << 20)
    )
    assert (ended.outcome, ended.reason) == ("oom", "out_of_memory")
    assert "16777216" in ended.detail


async def test_limits_and_privileges_as_docker_enforces_them(box: Box) -> None:
    launch = await box.start(
        "sleep 60", resources=Resources(cpu_millis=500, memory_bytes=64 << 20, pids_max=32), workdir="/tmp"
    )
    details = await box.inspect(launch.run)
    host = details["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (
        500_000_000,
        64 << 20,
        64 << 20,
        32,
    )
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert "NET_RAW" not in host["CapAdd"]
    assert "SYS_ADMIN" not in host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["RestartPolicy"]["Name"] == "no"
    assert details["Config"]["WorkingDir"] == "/tmp"
    assert details["Name"] == f"/es-{box.driver._place.cluster8}-{launch.run}"
    labels = details["Config"]["Labels"]
    assert (labels["eventsched.run"], labels["eventsched.node"], labels["eventsched.tenant"]) == (
        str(launch.run),
        "node-1",
        "acme",
    )


async def test_a_fork_bomb_stays_inside(box: Box) -> None:
    _, text = await box.run("for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait", resources=Resources(pids_max=4))
    assert "fork" in text


async def test_an_image_that_cannot_be_had_is_named_in_time(box: Box) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(StartFailed) as failure:
        await box.start(image="no.such.registry.invalid/some/image:1")
    assert failure.value.reason in ("image_missing", "image_pull_failed")
    assert "no.such.registry.invalid/some/image:1" in failure.value.detail
    assert asyncio.get_running_loop().time() - began < 20
    assert "pulling" in box.progress


async def test_a_pull_that_stalls_is_given_up(box: Box) -> None:
    """A registry that takes the connection and then says nothing."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StartFailed) as failure:
        await box.start(image=f"127.0.0.1:{port}/some/image:1")
    assert (failure.value.reason, "no progress for 3 s" in failure.value.detail) == ("image_pull_failed", True)
    for writer in held:
        writer.close()
    server.close()


async def test_volumes_come_from_the_allow_list_only(box: Box, tmp_path: Path) -> None:
    source = str(tmp_path / "data")
    ended, text = await box.run("cat /in/file; touch /in/x", volumes=(Volume(source, "/in", True),))
    assert "content" in text
    assert ended.exit_code != 0, "read-only is read-only"
    (tmp_path / "escape").symlink_to("/etc")
    (tmp_path / "data-not").mkdir()
    for volume in (
        Volume(source, "/in"),
        Volume("/etc", "/in", True),
        Volume(str(tmp_path / "escape"), "/in", True),
        Volume(str(tmp_path / "data-not"), "/in", True),
    ):
        with pytest.raises(StartFailed) as failure:
            await box.start(volumes=(volume,))
        assert failure.value.reason == "volume_refused"
    (tmp_path / "scratch").mkdir()
    ended, _ = await box.run("touch /out/made", volumes=(Volume(str(tmp_path / "scratch"), "/out"),))
    assert ended.exit_code == 0
    assert (tmp_path / "scratch" / "made").exists()


async def test_networks(box: Box) -> None:
    _, bridge = await box.run("ls /sys/class/net", network="bridge")
    _, none = await box.run("ls /sys/class/net", network="none")
    assert "eth0" in bridge
    assert none.split() == ["lo"]
    with pytest.raises(StartFailed) as failure:
        await box.start(network="host")
    assert failure.value.reason == "network_refused"


async def test_a_sandbox_is_one_namespace_per_tenant_and_has_no_network(box: Box) -> None:
    async def namespace(tenant: str) -> str:
        launch = await box.start("readlink /proc/self/ns/net; ls /sys/class/net", tenant=tenant, network="sandbox")
        await box.driver.wait(launch.run)
        text = b"".join([data async for _, data in box.driver.output(launch.run, 0)]).decode()
        assert text.split()[1:] == ["lo"]
        return text.split()[0]

    first = await namespace("acme")
    assert await namespace("acme") == first
    assert await namespace("other") != first
    keepers = await box.driver._docker.containers.list(filters=json.dumps({"label": ["eventsched.sandbox=acme"]}))
    mine = [one for one in keepers if one["Labels"]["eventsched.cluster"] == box.driver._place.cluster]
    await mine[0].delete(force=True)
    assert await namespace("acme"), "a keeper that was removed is made again"
    await box.driver.leave()
    labels = [f"eventsched.cluster={box.driver._place.cluster}", "eventsched.sandbox"]
    assert await box.driver._docker.containers.list(all=1, filters=json.dumps({"label": labels})) == []


def test_the_pause_program_runs_and_stays(tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "pause"
    path.write_bytes(pause_program())
    path.chmod(0o755)
    process = subprocess.Popen([str(path)])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.kill()
    assert process.wait() == -9
    assert pause_program("aarch64")[18:20] == b"\xb7\x00"


async def test_gpus_are_asked_of_the_engine_as_exact_devices(box: Box) -> None:
    launch = Launch(1, "t", "j", 1, ("GPU-aa", "GPU-bb"), JobSpec(image="busybox", network="none"))
    config = container_config(launch, Place(new_ulid(), "node-1", Path()), DockerLimits(), "none")
    assert config["HostConfig"]["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-aa", "GPU-bb"], "Capabilities": [["gpu"]]}
    ]
    assert "NVIDIA_VISIBLE_DEVICES=GPU-aa,GPU-bb" in config["Env"]
    emulated = await box.start("echo $CUDA_VISIBLE_DEVICES", gpus=("EMU-n-A100-0",))
    assert (await box.driver.wait(emulated.run)).exit_code == 0
    with pytest.raises(StartFailed) as failure:
        await box.start(gpus=("GPU-aa",))
    assert failure.value.reason == "engine_error", "this engine has no GPUs, and says so"


async def test_standard_error_is_told_apart(box: Box) -> None:
    launch = await box.start("echo out; echo err >&2")
    await box.driver.wait(launch.run)
    found = [(stream, data) async for stream, data in box.driver.output(launch.run, 0)]
    assert sorted(found) == [("stderr", b"err\n"), ("stdout", b"out\n")]


async def test_a_container_somebody_else_removed_is_lost(box: Box) -> None:
    launch = await box.start("sleep 60")
    waiting = asyncio.ensure_future(box.driver.wait(launch.run))
    await asyncio.sleep(0.2)
    await box.driver._container(launch.run).delete(force=True)
    ended = await asyncio.wait_for(waiting, 10)
    assert ended.outcome in ("lost", "exited")
    assert ended.exit_code != 0


async def test_no_engine_is_a_clear_error(tmp_path: Path) -> None:
    driver = DockerDriver(Place("c" * 26, "n", tmp_path), socket_path=str(tmp_path / "nothing.sock"))
    with pytest.raises(Exception, match="no container engine answers at") as failure:
        await driver.open()
    assert "--driver process" in failure.value.hint  # type: ignore[attr-defined]


async def test_the_socket_comes_from_docker_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
    driver = DockerDriver(Place("c" * 26, "n", tmp_path))
    await driver.open()
    await driver.close()
