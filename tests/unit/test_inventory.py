"""What a node offers and what it is called."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from eventsched.agents.gpu import Gpus, model_and_variant
from eventsched.agents.inventory import capacity, emulated_gpus, machine_id, node_id
from eventsched.agents.settings import AgentSettings
from eventsched.errors import EventschedError, SettingsError


@pytest.mark.parametrize(
    ("name", "model", "variant"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100", "A100-SXM4-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100", "H100-80GB-HBM3"),
        ("NVIDIA H200", "H200", "H200"),
        ("Tesla T4", "T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100", "V100-SXM2-16GB"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090", "RTX-4090"),
        ("NVIDIA RTX A6000", "RTX-A6000", "RTX-A6000"),
        ("NVIDIA L40S", "L40S", "L40S"),
        ("NVIDIA GH200 480GB", "GH200", "GH200-480GB"),
        ("", "GPU", ""),
    ],
)
def test_short_models_of_long_names(name: str, model: str, variant: str) -> None:
    assert model_and_variant(name) == (model, variant)


def test_the_machine_is_the_default() -> None:
    found = capacity(Gpus(), "n", environment={})
    assert found.cpu_millis == (psutil.cpu_count() or 1) * 1000
    assert found.memory_bytes == psutil.virtual_memory().total


def test_options_win_over_the_environment() -> None:
    environment = {"EXECUTOR_CPUS": "16", "EXECUTOR_MEMORY": "64", "EXECUTOR_GPUS": "A100:4"}
    found = capacity(Gpus(), "n", environment=environment)
    assert (found.cpu_millis, found.memory_bytes, len(found.gpus)) == (16_000, 64 << 30, 4)
    found = capacity(Gpus(), "n", "0.5", "512M", "none", environment)
    assert (found.cpu_millis, found.memory_bytes, found.gpus) == (500, 512 << 20, ())


@pytest.mark.parametrize(
    "environment",
    [{"EXECUTOR_CPUS": "many"}, {"EXECUTOR_MEMORY": "lots"}, {"EXECUTOR_GPUS": "A100:x"}, {"EXECUTOR_GPUS": "A100:"}],
)
def test_what_cannot_be_read_is_said(environment: dict[str, str]) -> None:
    with pytest.raises(EventschedError) as error:
        capacity(Gpus(), "n", environment=environment)
    assert error.value.message


def test_emulated_devices_have_stable_ids() -> None:
    assert emulated_gpus("n", "A100:2,A100:1") == emulated_gpus("n", "A100:3")


def test_node_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_id("mine", {}) == "mine"
    assert node_id("", {"EXECUTOR_ID": "ex-1"}) == "ex-1"
    assert node_id("", {"EVENTSCHED_NODE": "a", "EXECUTOR_ID": "b"}) == "a"
    monkeypatch.setattr("socket.gethostname", lambda: "gpu1.example.org")
    assert node_id("", {}) == "gpu1-example-org"
    with pytest.raises(SettingsError, match="not an id"):
        node_id("a.b", {})


def test_a_machine_has_an_id_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_id(tmp_path, {"EVENTSCHED_MACHINE_ID": "x"}) == "x"
    assert machine_id(tmp_path, {}) == machine_id(tmp_path, {})


@pytest.mark.parametrize("fields", [{"heartbeat_ms": 10}, {"heartbeat_ms": 5_000, "fence_after_ms": 9_000}])
def test_timers_that_cannot_work_are_refused(fields: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        AgentSettings(data=tmp_path, **fields).check()
