"""GPUs by NVML: the real binding against a stand-in library compiled here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml_standin.c")
ASK = """
import json, msgspec
from eventsched.agents.gpu import Gpus
from eventsched.agents.inventory import capacity
gpus = Gpus()
found = capacity(gpus, "n1", "4", "8G")
print(json.dumps({"capacity": msgspec.to_builtins(found), "busy": gpus.utilisation()}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nvml")
    target = directory / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(target), str(SOURCE)], check=True)
    return directory


def _ask(library: Path | None, **environment: str) -> dict:  # type: ignore[type-arg]
    variables = {**os.environ, **environment}
    if library is not None:
        variables["LD_LIBRARY_PATH"] = str(library)
    done = subprocess.run([sys.executable, "-c", ASK], env=variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_devices_with_models_memory_and_uuids(library: Path) -> None:
    answer = _ask(library)
    gpus = answer["capacity"]["gpus"]
    assert [gpu["model"] for gpu in gpus] == ["A100", "V100", "RTX-4090"]
    assert [gpu["variant"] for gpu in gpus] == ["A100-SXM4-80GB", "V100-SXM2-16GB", "RTX-4090"]
    assert [gpu["memory_bytes"] >> 30 for gpu in gpus] == [80, 16, 24]
    assert gpus[1]["uuid"] == "GPU-00000001-aaaa-bbbb-cccc-dddddddddddd"
    assert answer["capacity"]["cpu_millis"] == 4000
    assert answer["capacity"]["memory_bytes"] == 8 << 30


def test_utilisation_of_those_that_say(library: Path) -> None:
    busy = _ask(library)["busy"]
    assert list(busy.values()) == [40, 41], "the third does not say"


def test_no_library_means_no_gpus() -> None:
    assert _ask(None)["capacity"].get("gpus", []) == []


def test_emulated_gpus_hide_the_real_ones(library: Path) -> None:
    gpus = _ask(library, EXECUTOR_GPUS="A100:2,H100:1")["capacity"]["gpus"]
    assert [(gpu["model"], gpu["uuid"]) for gpu in gpus] == [
        ("A100", "EMU-n1-A100-0"),
        ("A100", "EMU-n1-A100-1"),
        ("H100", "EMU-n1-H100-0"),
    ]
    assert _ask(library, EXECUTOR_GPUS="none")["capacity"].get("gpus", []) == []
