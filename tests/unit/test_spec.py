"""The rules for a job's values: each names the field and the range."""

from __future__ import annotations

import pytest

from eventsched.resources import Resources
from eventsched.spec import RANGES, FakeRun, JobSpec, Volume, problems

OK = JobSpec(image="busybox", command=("true",))


def test_a_plain_job_is_fine() -> None:
    assert problems(OK) == []
    assert problems(JobSpec(driver="process", command=("true",))) == []
    assert problems(JobSpec(driver="fake")) == []
    assert problems(JobSpec(driver="manual")) == []


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        (JobSpec(), "missing_field", "image"),
        (JobSpec(image="-x"), "bad_value", "image"),
        (JobSpec(image="a b"), "bad_value", "image"),
        (JobSpec(driver="process"), "missing_field", "command"),
        (JobSpec(driver="process", image="busybox", command=("a",)), "bad_value", "image"),
        (JobSpec(image="x", fake=FakeRun()), "bad_value", "fake"),
        (JobSpec(driver="fake", volumes=(Volume("/a", "/b"),)), "bad_value", "volumes"),
        (JobSpec(image="x", resources=Resources(gpu_model="A100")), "bad_value", "resources.gpu_model"),
        (JobSpec(image="x", resources=Resources(memory_bytes=1024)), "out_of_range", "resources.memory_bytes"),
        (JobSpec(image="x", resources=Resources(cpu_millis=0)), "out_of_range", "resources.cpu_millis"),
        (JobSpec(image="x", priority=1001), "out_of_range", "priority"),
        (JobSpec(image="x", array=100_001), "out_of_range", "array"),
        (JobSpec(image="x", retries=-1), "out_of_range", "retries"),
        (JobSpec(image="x", stop_grace_ms=60_001), "out_of_range", "stop_grace_ms"),
        (JobSpec(driver="fake", fake=FakeRun(exit_code=256)), "out_of_range", "fake.exit_code"),
        (JobSpec(image="x", command=("a\x00b",)), "bad_value", "command"),
        (JobSpec(image="x", env={"A=B": "1"}), "bad_value", "env"),
        (JobSpec(image="x", env={"A": "\x00"}), "bad_value", "env"),
        (JobSpec(image="x", workdir="tmp"), "bad_value", "workdir"),
        (JobSpec(image="x", volumes=(Volume("/data/../etc", "/b"),)), "bad_value", "volumes"),
        (JobSpec(image="x", volumes=(Volume("data", "/b"),)), "bad_value", "volumes"),
        (JobSpec(image="x", after_ok=("a.5",)), "bad_value", "after_ok"),
        (JobSpec(image="x", after_any=("j",) * 1001), "out_of_range", "after_any"),
    ],
)
def test_each_rule_names_its_field(spec: JobSpec, code: str, field: str) -> None:
    found = problems(spec)
    assert (code, field) in [(one.code, one.field) for one in found]
    assert all(one.detail for one in found)


@pytest.mark.parametrize("path", list(RANGES))
def test_both_ends_of_every_range_are_allowed_and_nothing_beyond(path: str) -> None:
    low, high = RANGES[path]
    for value, fine in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        found = [one for one in problems(_with(path, value)) if one.field == path and one.code == "out_of_range"]
        assert (not found) == fine, (path, value)


def _with(path: str, value: int) -> JobSpec:
    outer, _, inner = path.rpartition(".")
    if outer == "resources":
        fields = {inner: value} if inner != "gpus" else {"gpus": value}
        return JobSpec(driver="fake", resources=Resources(**fields))
    if outer == "fake":
        return JobSpec(driver="fake", fake=FakeRun(**{inner: value}))
    return JobSpec(driver="fake", **{inner: value})


@pytest.mark.parametrize("image", ["busybox", "busybox:1.36", "ghcr.io/a/b:tag", "host:5000/a_b/c@sha256:" + "0" * 64])
def test_names_of_images_people_use(image: str) -> None:
    assert problems(JobSpec(image=image)) == []
