"""JobSpec: the payload of `submitted`, and the rules its values must keep.

Decoding checks types only; `problems` checks values. The leader calls it once per submission
and records the verdict; clients call it before they send, for a faster answer.
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Literal

from msgspec import Struct, field

from eventsched.ids import ID_RULE, is_id
from eventsched.resources import Resources
from eventsched.wire import MAX_INT, ClientEvent, Int

Driver = Literal["docker", "process", "fake", "manual"]
Network = Literal["bridge", "none", "host", "sandbox"]
Sla = Literal["best_effort", "batch", "latency_sensitive"]

ARRAY_MAX = 100_000
GANG_MAX = 900
"""Members of a gang: all their assigns must fit into one atomic round."""
PARENTS_MAX = 1_000


class Volume(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A directory of the node, mounted into the container; the node's allow-list decides."""

    source: str
    target: str
    read_only: bool = False


class FakeRun(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a run of the `fake` driver behaves.

    fail: "" (run and exit), "start" (cannot start), "oom" (killed for memory).
    fail_attempts: with a failure or exit code set, only the first so many attempts fail; 0 = all.
    """

    duration_ms: Int = 0
    exit_code: Int = 0
    output: str = ""
    fail: Literal["", "start", "oom"] = ""
    fail_attempts: Int = 0


class JobSpec(ClientEvent, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a user asks for. Every field has a default; `image` is needed by the docker driver.

    image, command: the container's image and argument list; process jobs have only a command.
    driver: docker (default), process, fake or manual (finished through the API).
    env, workdir, volumes, network: as docker run has them. network is bridge, none, host
        (operators only) or sandbox (no network, one namespace shared by a tenant's runs on a node).
    resources: see `Resources`; 1 core by default.
    priority: -1000 to 1000, higher first. hold: wait until released.
    max_runtime_ms: stop the run after this long; 0 = no limit.
    queue_timeout_ms: expire the job when it has waited this long; 0 = never.
    stop_grace_ms: time between SIGTERM and SIGKILL, 60 s at most.
    retries: how often the job's own failures are tried again; backoff doubles from retry_backoff_ms.
    max_lost: how many lost, preempted or drained runs are made good before the job fails.
    on_lost: requeue (default) or fail. on_disconnect: stop (default) or keep running while
        the node is cut off (then the job is never started elsewhere by itself).
    after_ok, after_any: job ids of the same tenant that must have succeeded, or ended.
    array: make this many members, `<job>.0` to `<job>.<n-1>`; 0 = a single job.
    gang: the members of the array start together or not at all, and stand or fall together;
        `queue_timeout_ms` is then the time the gang has to form.
    estimate_ms: how long a run is expected to take, for policies; 0 = unknown (`max_runtime_ms`, if set).
    deadline_ms: when the job should have ended, counted from its submission; 0 = none. A wish for the
        order, not a limit.
    sla: best_effort (first to give way), batch, or latency_sensitive.
    rescheduled: it had to give way before, in another cluster or under another id: a score may count that.
    spot: never = only on nodes that are not spot. max_price_micros_per_h: not on dearer nodes; null = any.
    node_labels: labels a node must have, with these values ("" = any value). tolerations: taints of
        nodes it accepts ("*" = all).
    max_per_node: at most so many runs of this array (or of the jobs of the tenant with the same
        `anti_affinity`) on one node; 0 = any number, or 1 if `anti_affinity` is set.
    labels: free text, kept with the job. submitted_by: who, for the record.
    submitted_ms: when, by the logical time of a cluster whose clock is manual; ignored elsewhere.
    """

    image: str = ""
    command: tuple[str, ...] = ()
    driver: Driver = "docker"
    name: str = ""
    resources: Resources = Resources()
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    volumes: tuple[Volume, ...] = ()
    network: Network = "bridge"
    priority: Int = 0
    hold: bool = False
    max_runtime_ms: Int = 0
    queue_timeout_ms: Int = 0
    stop_grace_ms: Int = 10_000
    retries: Int = 0
    retry_backoff_ms: Int = 1_000
    max_lost: Int = 3
    on_lost: Literal["requeue", "fail"] = "requeue"
    on_disconnect: Literal["stop", "keep"] = "stop"
    after_ok: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    array: Int = 0
    gang: bool = False
    estimate_ms: Int = 0
    deadline_ms: Int = 0
    sla: Sla = "batch"
    rescheduled: bool = False
    spot: Literal["allow", "never"] = "allow"
    max_price_micros_per_h: Int | None = None
    node_labels: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    anti_affinity: str = ""
    max_per_node: Int = 0
    labels: dict[str, str] = field(default_factory=dict)
    submitted_by: str = ""
    submitted_ms: Int | None = None
    fake: FakeRun | None = None


class Problem(Struct, frozen=True, omit_defaults=True):
    """One thing wrong with a submission: a stable code, the field, and what to do about it."""

    code: str
    field: str
    detail: str

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}" if self.field else self.detail


DAY_MS = 86_400_000
RANGES: dict[str, tuple[int, int]] = {
    "resources.cpu_millis": (1, 100_000_000),
    "resources.memory_bytes": (0, MAX_INT),
    "resources.gpus": (0, 1_024),
    "resources.gpu_millis": (0, 999),
    "resources.pids_max": (0, 4_194_304),
    "priority": (-1_000, 1_000),
    "max_runtime_ms": (0, 3_650 * DAY_MS),
    "queue_timeout_ms": (0, 3_650 * DAY_MS),
    "stop_grace_ms": (0, 60_000),
    "retries": (0, 1_000),
    "retry_backoff_ms": (0, DAY_MS),
    "max_lost": (0, 1_000),
    "array": (0, ARRAY_MAX),
    "estimate_ms": (0, 3_650 * DAY_MS),
    "deadline_ms": (0, 3_650 * DAY_MS),
    "max_per_node": (0, ARRAY_MAX),
    "fake.duration_ms": (0, 3_650 * DAY_MS),
    "fake.exit_code": (0, 255),
    "fake.fail_attempts": (0, 1_000),
}
"""Allowed range of every number, both ends included; shown in errors and in the docs."""

DOCKER_MEMORY_MIN = 6 * 1024 * 1024
_ENV_NAME = re.compile(r"[^=\x00]+")
_IMAGE = re.compile(r"[\w][\w.:/@+-]{0,511}", re.ASCII)


def problems(spec: JobSpec) -> list[Problem]:
    """Everything wrong with the values of `spec`, in a fixed order; [] when it is acceptable.

    Says nothing of parents that do not exist: only the state knows them.
    """
    found: list[Problem] = []
    _check_what_runs(spec, found)
    _check_ranges(spec, found)
    _check_environment(spec, found)
    if spec.after_ok or spec.after_any:
        _check_parents(spec, found)
    _check_placement(spec, found)
    return found


def _check_what_runs(spec: JobSpec, found: list[Problem]) -> None:
    if spec.driver == "docker":
        if not spec.image:
            found.append(Problem("missing_field", "image", 'needed by the docker driver, e.g. "image":"busybox"'))
        elif not _IMAGE.fullmatch(spec.image):
            found.append(Problem("bad_value", "image", "is not the name of a container image"))
    elif spec.image:
        found.append(
            Problem("bad_value", "image", f"the {spec.driver} driver runs no image; leave it out or use driver docker")
        )
    if spec.driver == "process" and not spec.command:
        found.append(Problem("missing_field", "command", 'needed by the process driver, e.g. "command":["sleep","1"]'))
    if spec.driver != "fake" and spec.fake is not None:
        found.append(Problem("bad_value", "fake", "only the fake driver reads it"))
    if spec.driver != "docker" and spec.volumes:
        found.append(Problem("bad_value", "volumes", "only the docker driver mounts volumes"))
    _check_gpus(spec.resources, found)
    if spec.driver == "docker" and 0 < spec.resources.memory_bytes < DOCKER_MEMORY_MIN:
        found.append(
            Problem(
                "out_of_range", "resources.memory_bytes", "docker needs at least 6 MiB (6291456), or 0 for no limit"
            )
        )


def _check_gpus(asked: Resources, found: list[Problem]) -> None:
    if asked.gpu_model and not asked.gpus and not asked.gpu_millis:
        found.append(Problem("bad_value", "resources.gpu_model", "set resources.gpus too: no GPU is asked for"))
    if asked.gpus and asked.gpu_millis:
        found.append(Problem("bad_value", "resources.gpu_millis", "a share of one GPU excludes whole resources.gpus"))
    if "" in asked.gpu_model.split("|")[1:]:
        found.append(Problem("bad_value", "resources.gpu_model", "write models as A100 or A100|H100"))


def _check_placement(spec: JobSpec, found: list[Problem]) -> None:
    if spec.gang and not 1 < spec.array <= GANG_MAX:
        text = f"a gang is an array of 2 to {GANG_MAX} members, not {spec.array}"
        found.append(Problem("out_of_range", "array", text))
    if spec.submitted_ms is not None and spec.submitted_ms < 0:
        found.append(Problem("out_of_range", "submitted_ms", f"{spec.submitted_ms} is below 0"))
    cap = spec.max_price_micros_per_h
    if cap is not None and cap < 0:
        found.append(Problem("out_of_range", "max_price_micros_per_h", f"{cap} is below 0"))
    if spec.max_per_node and not spec.array and not spec.anti_affinity:
        found.append(Problem("bad_value", "max_per_node", "counts members of an array, or jobs with anti_affinity set"))
    if len(spec.anti_affinity) > 64:
        found.append(Problem("bad_value", "anti_affinity", "at most 64 characters"))


_ALWAYS = {path: limits for path, limits in RANGES.items() if not path.startswith("fake.")}
_values = attrgetter(*_ALWAYS)


_PLAIN_FAKE = FakeRun()
_acceptable: dict[tuple[int, ...], None] = {}
"""Values of jobs that were in range: most jobs are like others in this, and are judged at a tenth of the price."""
_ACCEPTABLE_MAX = 4_096


def _check_ranges(spec: JobSpec, found: list[Problem]) -> None:
    always = _values(spec)
    plain = spec.fake in (None, _PLAIN_FAKE)
    if plain and always in _acceptable:
        return
    values = dict(zip(_ALWAYS, always, strict=True))
    if spec.fake is not None:
        values |= {path: attrgetter(path)(spec) for path in RANGES if path not in _ALWAYS}
    before = len(found)
    for path, value in values.items():
        low, high = RANGES[path]
        if not low <= value <= high:
            found.append(Problem("out_of_range", path, f"{value} is not between {low} and {high}"))
    if plain and len(found) == before and len(_acceptable) < _ACCEPTABLE_MAX:
        _acceptable[always] = None


def _check_environment(spec: JobSpec, found: list[Problem]) -> None:
    if spec.command and any("\x00" in part for part in spec.command):
        found.append(Problem("bad_value", "command", "holds a NUL character"))
    for name, value in spec.env.items():
        if not _ENV_NAME.fullmatch(name) or "\x00" in value:
            found.append(
                Problem(
                    "bad_value",
                    "env",
                    f"{name[:80]!r} is no name of a variable, or its value holds a NUL character",
                )
            )
    if spec.workdir and (not spec.workdir.startswith("/") or "\x00" in spec.workdir):
        found.append(Problem("bad_value", "workdir", "must be an absolute path"))
    for volume in spec.volumes:
        if not volume.source.startswith("/") or not volume.target.startswith("/") or ".." in volume.source.split("/"):
            found.append(Problem("bad_value", "volumes", "source and target must be absolute paths without '..'"))


def _check_parents(spec: JobSpec, found: list[Problem]) -> None:
    for name, parents in (("after_ok", spec.after_ok), ("after_any", spec.after_any)):
        if len(parents) > PARENTS_MAX:
            found.append(Problem("out_of_range", name, f"{len(parents)} parents; at most {PARENTS_MAX}"))
        for parent in parents:
            if not is_id(parent):
                found.append(Problem("bad_value", name, f"{parent[:80]!r} is not a job id ({ID_RULE})"))
                break
