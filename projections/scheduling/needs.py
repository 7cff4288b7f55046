"""What a job needs from a node, reduced to what placement compares: equal needs share every answer."""

from __future__ import annotations

from typing import NamedTuple

from eventsched.projections.cluster.state import Job
from eventsched.spec import JobSpec

DAY_S = 86_400


class Looks(NamedTuple):
    """What a policy looks at beyond what every policy must: each makes more classes of jobs.

    strict_sla: latency_sensitive jobs never go on spot nodes. sla, estimate: a score depends on it.
    """

    strict_sla: bool = False
    sla: bool = False
    estimate: bool = False


PLAIN = Looks()


class Need(NamedTuple):
    """A job's class.

    gpus: whole devices; gpu_millis: instead, a share of one. gpu_models: names of which one must do, in
        order of preference; () = any.
    on_demand: not on spot nodes. max_price: in micros per hour, -1 = any.
    group, per_node: at most so many runs of the group on one node; "" = any number.
    sla, estimate_s: only where the policy's score looks at them, else "" and 0.
    """

    driver: str
    cpu_millis: int
    memory_bytes: int
    gpus: int
    gpu_millis: int
    gpu_models: tuple[str, ...]
    labels: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[str, ...] = ()
    on_demand: bool = False
    max_price: int = -1
    group: str = ""
    per_node: int = 0
    sla: str = ""
    estimate_s: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The device names to look under: the models, or "" for any."""
        return self.gpu_models or ("",)


def need_of(job: Job, looks: Looks = PLAIN) -> Need:
    """The class of a job."""
    spec = job.spec
    asked = spec.resources
    group = group_of(job)
    return Need(
        spec.driver,
        asked.cpu_millis,
        asked.memory_bytes,
        asked.gpus,
        asked.gpu_millis,
        models_of(asked.gpu_model) if asked.gpus or asked.gpu_millis else (),
        tuple(sorted(spec.node_labels.items())) if spec.node_labels else (),
        tuple(sorted(spec.tolerations)) if spec.tolerations else (),
        spec.spot == "never" or (looks.strict_sla and spec.sla == "latency_sensitive"),
        -1 if spec.max_price_micros_per_h is None else spec.max_price_micros_per_h,
        group,
        (spec.max_per_node or 1) if group else 0,
        spec.sla if looks.sla else "",
        estimate_of(spec) if looks.estimate else 0,
    )


def models_of(text: str) -> tuple[str, ...]:
    """The models of a request (`A100|H100`), without case; () = any will do."""
    models = tuple(dict.fromkeys(text.lower().split("|")))
    return () if models == ("",) or "any" in models else models


def group_of(job: Job) -> str:
    """The runs that count together for `max_per_node`; "" when nothing is limited."""
    spec = job.spec
    if spec.anti_affinity:
        return f"jobs {job.tenant}/{spec.anti_affinity}"
    if not spec.max_per_node:
        return ""
    return f"array {job.parent_key if job.member >= 0 else job.key}"


def estimate_of(spec: JobSpec) -> int:
    """Seconds a run is expected to take, in steps of about an eighth; an hour when nobody says."""
    seconds = min((spec.estimate_ms or spec.max_runtime_ms or 3_600_000) // 1000, 3_650 * DAY_S)
    step = max(0, seconds.bit_length() - 4)
    return max(1, seconds >> step << step)
