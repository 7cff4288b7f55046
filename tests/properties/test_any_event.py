"""Properties of the fold and the decisions, under any single event, however odd: nothing stops them."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from eventsched.events import PolicySet
from eventsched.projections.cluster.digest import decode_state, digest, encode_state
from eventsched.spec import JobSpec

from ..support import Ledger
from .test_fold import policies


@given(
    st.binary(max_size=200),
    st.sampled_from(("ev.job.t.j.submitted", "ev.admin.node_drained", "ev.run.n1", "ev.assign.n1")),
)
@settings(max_examples=400)
def test_any_bytes_are_folded(payload: bytes, subject: str) -> None:
    ledger = Ledger()
    ledger.raw(subject, payload)
    assert digest(decode_state(encode_state(ledger.state))) == digest(ledger.state)


@given(st.text(max_size=60))
@settings(max_examples=400)
def test_any_subject_is_folded(subject: str) -> None:
    ledger = Ledger()
    ledger.raw("ev." + subject, b"{}")
    ledger.raw(subject, b"{}")
    encode_state(ledger.state)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(JobSpec.__struct_fields__)


@given(st.dictionaries(fields, json_values, max_size=4))
@settings(max_examples=400)
def test_any_json_in_a_submission_is_judged(values: dict[str, object]) -> None:
    ledger = Ledger()
    ledger.lead()
    ledger.join()
    ledger.settle()
    ledger.raw("ev.job.t.j.submitted", json.dumps(values).encode())
    ledger.settle()
    assert not ledger.state.unjudged
    encode_state(ledger.state)


models = st.sampled_from(("", "A100", "a100", "H100|A100", "\u0130", " ", "any"))
amounts = st.sampled_from((0, 1, 999, 1_000, 64_000, 2**31, 2**53 - 1, 2**53, 2**63 - 1, -1))
devices = st.fixed_dictionaries(
    {"uuid": st.sampled_from(("u1", "u2", "u3", "")), "model": models},
    optional={"variant": models, "memory_bytes": amounts, "more": st.none()},
)
machines = st.fixed_dictionaries(
    {
        "type": st.just("node.joined"),
        "machine_id": st.text(max_size=3),
        "boot_id": st.just("boot"),
        "capacity": st.fixed_dictionaries(
            {"cpu_millis": amounts, "memory_bytes": amounts}, optional={"gpus": st.lists(devices, max_size=4)}
        ),
        "drivers": st.lists(st.sampled_from(("fake", "docker", "", "x")), max_size=3),
    },
    optional={
        "labels": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        "taints": st.lists(st.text(max_size=3), max_size=2),
        "price_micros_per_h": amounts,
        "spot": st.booleans(),
        "spot_risk_ppm_per_h": amounts,
        "runs": st.lists(st.integers(-1, 9), max_size=2),
    },
)
asked = st.fixed_dictionaries(
    {"driver": st.just("fake")},
    optional={
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "cpu_millis": amounts,
                "memory_bytes": amounts,
                "gpus": st.sampled_from((0, 1, 2, 4)),
                "gpu_millis": st.sampled_from((0, 1, 500, 1_000)),
                "gpu_model": models,
            },
        ),
        "estimate_ms": amounts,
        "max_price_micros_per_h": amounts,
        "array": st.sampled_from((0, 2)),
    },
)


@given(st.lists(machines, min_size=1, max_size=3), st.lists(asked, min_size=1, max_size=4), policies)
@settings(max_examples=300)
def test_any_machine_is_folded_and_decided_on(
    joins: list[dict[str, object]], jobs: list[dict[str, object]], policy: PolicySet
) -> None:
    """A join can't be taken back: one that makes deciding fail would stop every scheduler for good."""
    ledger = Ledger()
    ledger.lead()
    ledger.put("ev.admin.policy_set", policy)
    for index, join in enumerate(joins):
        ledger.raw(f"ev.node.n{index}", json.dumps(join).encode())
    for index, spec in enumerate(jobs):
        ledger.raw(f"ev.job.t.j{index}.submitted", json.dumps(spec).encode())
    ledger.settle()
    assert not ledger.state.unjudged
