"""Options of `submit` that say where a job may run."""

from __future__ import annotations

from typing import Any

import pytest

from eventsched.cli.submitting import JobOptions
from eventsched.errors import InvalidSpec
from eventsched.resources import Resources


def test_where_a_job_may_run() -> None:
    spec = JobOptions(
        node_label=("zone=a", "ssd"),
        tolerate=("gpu", "*"),
        spot="never",
        max_price="2.50",
        anti_affinity="db",
        max_per_node=2,
    ).spec("busybox", ())
    assert spec.node_labels == {"zone": "a", "ssd": ""}
    assert spec.tolerations == ("gpu", "*")
    assert (spec.spot, spec.max_price_micros_per_h, spec.anti_affinity, spec.max_per_node) == (
        *("never", 2_500_000, "db", 2),
    )
    assert JobOptions().spec("busybox", ()).max_price_micros_per_h is None


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("A100:2", {"gpu_model": "A100", "gpus": 2}),
        ("A100:0.25", {"gpu_model": "A100", "gpu_millis": 250}),
        ("0.5", {"gpu_millis": 500}),
        ("H100:.125", {"gpu_model": "H100", "gpu_millis": 125}),
    ],
)
def test_whole_gpus_and_shares(text: str, asked: dict[str, Any]) -> None:
    assert JobOptions(gpus=text).spec("busybox", ()).resources == Resources(**asked)


@pytest.mark.parametrize("text", ["1.5", "A100:1.5", "0.0001", "A100:0.", "A100:0.x"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(InvalidSpec, match=r"--gpus: .* is not MODEL:COUNT"):
        JobOptions(gpus=text).spec("busybox", ())


@pytest.mark.parametrize(
    ("options", "named"),
    [(JobOptions(max_price="cheap"), "--max-price"), (JobOptions(node_label=("=a",)), "--node-label")],
)
def test_a_fault_names_its_option(options: JobOptions, named: str) -> None:
    with pytest.raises(InvalidSpec, match=named):
        options.spec("busybox", ())
