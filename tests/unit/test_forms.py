"""The forms a job may be written in: each is read, and what is wrong is named as the writer knows it."""

from __future__ import annotations

from typing import Any

import pytest

from eventsched.forms import BadForm, read_form
from eventsched.resources import Resources

FLAT = {
    "docker_image": "alpine:latest",
    "command": ["echo", "Hello World!"],
    "cpu_cores": 1,
    "memory_gb": 1,
    "gpu_type": None,
}
BY_HAND = {"job_id": "j1", "tenant_id": "t1", "gpu_type": "A100", "gpus": 1, "priority": 5, "submitted_at": 0}
NESTED = {
    "jobId": "job-7",
    "priority": 7,
    "resourceRequest": {"cpu": 8, "memory_gb": 32, "gpuType": "A100", "gpuCount": 1},
    "slaType": "LATENCY_SENSITIVE",
    "maxTolerableCost": 1.5,
    "isRescheduled": False,
}
OURS = {"image": "busybox", "command": ["true"], "tenant": "acme", "resources": {"gpus": 2, "gpu_model": "A100|H100"}}


def test_flat() -> None:
    read = read_form(FLAT)
    assert (read.form, read.job_id, read.tenant) == ("flat", "", "")
    assert read.spec.image == "alpine:latest"
    assert read.spec.resources == Resources(cpu_millis=1000, memory_bytes=2**30)
    assert read_form({**FLAT, "gpu_type": "any"}).spec.resources.gpus == 1
    assert read_form({**FLAT, "gpu_type": "T4", "gpu_count": 3}).spec.resources.gpu_model == "T4"
    assert read_form({**FLAT, "cpu_cores": 0.5}).spec.resources.cpu_millis == 500


def test_finished_by_hand() -> None:
    read = read_form({**BY_HAND, "max_runtime": 60})
    assert (read.form, read.job_id, read.tenant, read.spec.driver) == ("by_hand", "j1", "t1", "manual")
    assert read.spec.resources == Resources(cpu_millis=1, gpus=1, gpu_model="A100")
    assert (read.spec.priority, read.spec.submitted_ms, read.spec.max_runtime_ms) == (5, 0, 60_000)


def test_what_is_finished_by_hand_may_ask_for_more_than_gpus() -> None:
    asked = read_form({**BY_HAND, "cpu_cores": 8, "memory_gb": 1}).spec.resources
    assert asked == Resources(cpu_millis=8000, memory_bytes=2**30, gpus=1, gpu_model="A100")
    counted = {name: value for name, value in BY_HAND.items() if name != "gpus"}
    assert read_form({**counted, "gpu_count": 2}).spec.resources.gpus == 2


def test_nested() -> None:
    read = read_form(NESTED)
    assert (read.form, read.job_id, read.spec.driver, read.spec.sla) == ("nested", "job-7", "fake", "latency_sensitive")
    assert read.spec.resources == Resources(cpu_millis=8000, memory_bytes=32 * 2**30, gpus=1, gpu_model="A100")
    assert read.spec.max_price_micros_per_h == 90_000_000
    assert read.spec.estimate_ms == 10_000
    assert not read.spec.rescheduled
    assert read_form({**NESTED, "isRescheduled": True}).spec.rescheduled
    no_gpu = {**NESTED, "resourceRequest": {"cpu": 1, "memory_gb": 1, "gpuType": None, "gpuCount": 0}}
    assert read_form(no_gpu).spec.resources.gpus == 0


def test_ours() -> None:
    read = read_form(OURS)
    assert (read.form, read.tenant, read.spec.resources.gpus) == ("ours", "acme", 2)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], [""]),
        ("x", [""]),
        ({"imge": "busybox"}, ["imge"]),
        ({"imge": "busybox", "comand": []}, ["imge", "comand"]),
        ({"docker_image": "a", "image": "b"}, ["docker_image"]),
        ({**NESTED, "cpu_cores": 1}, ["jobId"]),
        ({**FLAT, "cpu_cores": 0}, ["cpu_cores"]),
        ({**FLAT, "cpu_cores": -1}, ["cpu_cores"]),
        ({**FLAT, "cpu_cores": "two"}, ["cpu_cores"]),
        ({**FLAT, "memory_gb": 1e300}, ["memory_gb"]),
        ({**FLAT, "memory_gb": 0.001}, ["memory_gb"]),
        ({**FLAT, "docker_image": "no image"}, ["docker_image"]),
        ({**FLAT, "command": "echo hi"}, ["command"]),
        ({**FLAT, "job_id": ""}, ["job_id"]),
        ({**FLAT, "job_id": "a.b"}, ["job_id"]),
        ({**FLAT, "tenant_id": "a b"}, ["tenant_id"]),
        ({**BY_HAND, "gpus": 0}, ["gpus"]),
        ({**BY_HAND, "gpus": -3}, ["gpus"]),
        ({**BY_HAND, "gpus": 1.5}, ["gpus"]),
        ({**BY_HAND, "gpu_type": None}, ["gpu_type"]),
        ({**BY_HAND, "submitted_at": "today"}, ["submitted_at"]),
        ({**BY_HAND, "submitted_at": -1}, ["submitted_at"]),
        ({**BY_HAND, "priority": 10**6}, ["priority"]),
        ({**BY_HAND, "gpu_count": 1}, ["gpu_count"]),
        ({**FLAT, "gpu_type": "T4", "gpu_count": -1}, ["gpu_count"]),
        ({**FLAT, "gpu_type": "T4", "gpu_count": 10**18}, ["gpu_count"]),
        ({**FLAT, "timeout_s": -1}, ["timeout_s"]),
        ({**FLAT, "timeout_s": 10**18}, ["timeout_s"]),
        ({**FLAT, "max_runtime": -1}, ["max_runtime"]),
        ({**FLAT, "max_runtime": 10**18}, ["max_runtime"]),
        ({**FLAT, "max_runtime": 5, "timeout_s": 5}, ["timeout_s"]),
        ({**FLAT, "tenant": "a", "tenant_id": "a"}, ["tenant_id"]),
        ({**FLAT, "tenant": "a b"}, ["tenant"]),
        ({**OURS, "tenant_id": "acme"}, ["tenant_id"]),
        ({**OURS, "tenant": "a b"}, ["tenant"]),
        ({**BY_HAND, "submitted_at": 10**18}, ["submitted_at"]),
        ({**NESTED, "jobId": "a.b"}, ["jobId"]),
        ({**NESTED, "job_id": "j"}, ["jobId"]),
        ({**NESTED, "tenantId": "a", "tenant": "b"}, ["tenantId"]),
        ({**NESTED, "tenantId": "a b"}, ["tenantId"]),
        ({**NESTED, "resourceRequest": {"cpu": 1, "gpuCount": -1}}, ["resourceRequest.gpuCount"]),
        ({**NESTED, "maxTolerableCost": float("inf")}, ["maxTolerableCost"]),
        ({**NESTED, "slaType": "GOLD"}, ["slaType"]),
        ({**NESTED, "resourceRequest": {"cpu": 1, "gpus": 1}}, ["resourceRequest.gpus"]),
        ({"jobId": "x", "priority": 1}, ["resourceRequest"]),
        ({"image": "busybox", "resources": {"cpus": 1}}, ["resources.cpus"]),
        ({}, ["image"]),
    ],
)
def test_what_is_wrong_is_named(body: Any, fields: list[str]) -> None:
    with pytest.raises(BadForm) as caught:
        read_form(body)
    assert [problem.field for problem in caught.value.problems] == fields, str(caught.value)
    assert caught.value.message
