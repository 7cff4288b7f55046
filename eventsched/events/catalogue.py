"""Which subject carries which Struct: the wire contract in one table, with an example each.

The documentation page, the JSON Schema and the wire goldens are generated from it.
"""

from __future__ import annotations

from msgspec import Raw

from eventsched.events import admin, decisions, jobs, nodes, runs
from eventsched.resources import Capacity, Gpu, Resources
from eventsched.spec import JobSpec
from eventsched.wire import Decision, Event

JOB_VERBS: dict[str, type[Event]] = {
    "submitted": JobSpec,
    "abort_requested": jobs.AbortRequested,
    "hold_requested": jobs.HoldRequested,
    "release_requested": jobs.ReleaseRequested,
    "requeue_requested": jobs.RequeueRequested,
    "complete_requested": jobs.CompleteRequested,
    "keyed": jobs.Keyed,
}
ADMIN_KINDS: dict[str, type[Event]] = {
    "cluster_created": admin.ClusterCreated,
    "timers_set": admin.TimersSet,
    "clock_set": admin.ClockSet,
    "policy_set": admin.PolicySet,
    "tenant_set": admin.TenantSet,
    "price_set": admin.PriceSet,
    "node_cordoned": admin.NodeCordoned,
    "node_uncordoned": admin.NodeUncordoned,
    "node_drained": admin.NodeDrained,
}
DECIDE_KINDS: dict[str, type[Decision]] = {
    "admitted": decisions.Admitted,
    "concluded": decisions.Concluded,
    "policy_judged": decisions.PolicyJudged,
    "ticked": decisions.Ticked,
    "digest_recorded": decisions.DigestRecorded,
    "fold_raised": decisions.FoldRaised,
}
DECIDE_KIND_OF: dict[type[Event], str] = {struct: kind for kind, struct in DECIDE_KINDS.items()}

EXAMPLES: tuple[tuple[str, Event], ...] = (
    ("ev.admin.cluster_created", admin.ClusterCreated(cluster_id="01k9zq3v4m8r5t6w7x8y9z0abc")),
    (
        "ev.admin.cluster_created",
        admin.ClusterCreated(cluster_id="01k9zq3v4m8r5t6w7x8y9z0abd", quota_default="nothing"),
    ),
    ("ev.leader", decisions.LeaderClaimed(leader="sched-a", nonce="5f2c", version="0.1.0")),
    (
        "ev.node.n1",
        nodes.NodeJoined(
            machine_id="9d3f",
            boot_id="c1a0",
            capacity=Capacity(
                cpu_millis=8000,
                memory_bytes=34359738368,
                gpus=(Gpu(uuid="GPU-1b2c", model="A100", variant="A100-SXM4-80GB", memory_bytes=85899345920),),
            ),
            drivers=("docker", "process"),
            runs=(17,),
            leash=True,
            fence_after_ms=20000,
            stop_ms=12000,
            version="0.1.0",
        ),
    ),
    ("ev.node.n1", nodes.NodeLeaving(session=3)),
    ("ev.node.n1", nodes.NodeLeft(session=3)),
    ("ev.assign.n1", decisions.SessionOpened(epoch=2, round=1, basis=3, now_ms=1764000000000, session=3, runs=(17,))),
    ("ev.assign.n1", decisions.SessionRefused(epoch=2, round=2, session=9, reason="name_taken", detail="machine 9d3f")),
    ("ev.job.acme.j1.submitted", JobSpec(image="busybox", command=("echo", "hi"))),
    (
        "ev.job.acme.train.submitted",
        JobSpec(
            image="pytorch/pytorch:2.9",
            command=("python", "train.py"),
            resources=Resources(cpu_millis=4000, memory_bytes=17179869184, gpus=2, gpu_model="A100"),
            env={"EPOCHS": "3"},
            priority=10,
            max_runtime_ms=3600000,
            retries=2,
            after_ok=("prepare",),
            labels={"team": "vision"},
        ),
    ),
    ("ev.job.acme.j1.abort_requested", jobs.AbortRequested(reason="wrong data", by="ana")),
    ("ev.job.acme.j1.hold_requested", jobs.HoldRequested(by="ana")),
    ("ev.job.acme.j1.release_requested", jobs.ReleaseRequested(by="ana")),
    ("ev.job.acme.sweep.requeue_requested", jobs.RequeueRequested(member=4, by="ana")),
    ("ev.job.acme.j2.complete_requested", jobs.CompleteRequested(exit_code=0)),
    ("ev.job.acme.k-5d41402a.keyed", jobs.Keyed(job_id="j3", body_hash="7d793037")),
    (
        "ev.decide.admitted",
        decisions.Admitted(
            epoch=2,
            round=3,
            basis=8,
            now_ms=1764000000100,
            upto=8,
            rejected=(
                decisions.Rejection(seq=7, code="missing_field", path="image", detail="needed by the docker driver"),
            ),
        ),
    ),
    (
        "ev.assign.n1",
        decisions.RunAssigned(
            epoch=2,
            round=4,
            basis=9,
            now_ms=1764000000200,
            policy="best-fit/1",
            session=3,
            tenant="acme",
            job="j1",
            cpu_millis=1000,
            score=-125,
            runner_up="n2",
            feasible=2,
            spec=Raw(b'{"image":"busybox","command":["echo","hi"]}'),
        ),
    ),
    ("ev.run.n1", runs.RunStarting(run=10, phase="pulling")),
    ("ev.run.n1", runs.RunStarted(run=10)),
    ("ev.run.n1", runs.RunEnded(run=10, outcome="exited", exit_code=0, log_chunks=1)),
    ("ev.assign.n1", decisions.StopOrdered(epoch=2, round=5, basis=13, now_ms=1764000000900, run=17, reason="aborted")),
    ("ev.assign.n1", decisions.FinishOrdered(epoch=2, round=6, basis=14, now_ms=1764000001000, run=18, exit_code=0)),
    (
        "ev.assign.n1",
        decisions.NodeSuspected(
            epoch=2, round=7, basis=15, now_ms=1764000020000, session=3, hb_seq=40, silent_ms=12000
        ),
    ),
    ("ev.assign.n1", decisions.NodeRecovered(epoch=2, round=8, basis=16, now_ms=1764000022000, session=3, hb_seq=41)),
    (
        "ev.assign.n1",
        decisions.NodeLost(
            epoch=2, round=9, basis=17, now_ms=1764000070000, session=3, hb_seq=41, silent_ms=45001, marker_seq=44
        ),
    ),
    (
        "ev.decide.concluded",
        decisions.Concluded(
            epoch=2,
            round=10,
            basis=18,
            now_ms=1764000080000,
            jobs=(decisions.Conclusion(tenant="acme", job="j3", state="expired", reason="queue_timeout"),),
        ),
    ),
    ("ev.admin.node_cordoned", admin.NodeCordoned(node="n1", by="ops")),
    ("ev.admin.node_uncordoned", admin.NodeUncordoned(node="n1", by="ops")),
    ("ev.admin.node_drained", admin.NodeDrained(node="n1", deadline_ms=3600000, by="ops")),
    ("ev.admin.policy_set", admin.PolicySet(name="first-fit", by="ops")),
    ("ev.admin.tenant_set", admin.TenantSet(tenant="acme", gpu_models={"A100": 4}, runs=100, weight=2, by="ops")),
    (
        "ev.admin.tenant_set",
        admin.TenantSet(
            tenant="acme",
            gpus=8,
            cohort="research",
            borrow_percent=50,
            lend_percent=75,
            budget_micros=250_000_000,
            budget_period_ms=86_400_000,
            by="ops",
        ),
    ),
    (
        "ev.admin.price_set",
        admin.PriceSet(
            core_micros_per_h=40_000, gib_micros_per_h=5_000, gpu_micros_per_h=900_000, gpu_models={"A100": 2_500_000}
        ),
    ),
    (
        "ev.decide.policy_judged",
        decisions.PolicyJudged(
            epoch=2, round=11, basis=23, now_ms=1764000090000, request=23, name="first-fit", version=1
        ),
    ),
    ("ev.admin.timers_set", admin.TimersSet(suspect_after_ms=6000, lost_after_ms=45000, by="ops")),
    ("ev.admin.clock_set", admin.ClockSet(now_ms=60000)),
    ("ev.decide.ticked", decisions.Ticked(epoch=2, round=12, basis=30, now_ms=60000, clock=30)),
    ("ev.decide.digest_recorded", decisions.DigestRecorded(epoch=2, at_seq=20, digest="b5c1")),
    ("ev.decide.fold_raised", decisions.FoldRaised(epoch=2, fold_version=2)),
    (
        "ev.assign.n1",
        decisions.StopOrdered(
            epoch=2,
            round=12,
            basis=24,
            now_ms=1764000095000,
            run=19,
            reason="preempted",
            detail="in favour of acme/j2 (priority 10)",
            in_favour_of="acme/j2",
        ),
    ),
)
"""One or more examples of every event, in the order they might appear in a log."""
