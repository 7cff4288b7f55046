"""The verb submit."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from eventsched.cli.common import BIG, Output, Where, connected, number, pairs, print_chunk, print_json, user
from eventsched.cli.exits import OUR_FAULT, complain, end_of, exit_code_of
from eventsched.cli.job_files import FileFormat, JobFile, open_jobs
from eventsched.cli.patience import saying_why
from eventsched.cli.submit_file import IN_MEMORY, FileReport, submit_file
from eventsched.client import Client, Submitted
from eventsched.errors import EventschedError, InvalidSpec, UsageError
from eventsched.spec import Driver, JobSpec, Network
from eventsched.submissions import make_spec
from eventsched.units import parse_cpus_millis, parse_duration_ms, parse_gpus, parse_memory, parse_money_micros
from eventsched.views import JobView
from eventsched.visible import visible

_AS_TYPED = (
    *("name", "driver", "workdir", "network", "priority", "hold", "retries", "array"),
    *("on_lost", "on_disconnect", "after_ok", "after_any", "gang", "sla", "spot", "anti_affinity", "max_per_node"),
)


Count = Annotated[int | None, number(0, BIG)]


@Parameter(name="*")
@dataclass(frozen=True)
class JobOptions:
    """What a job asks for, option by option (see `JobSpec`, which has the defaults: None = not given)."""

    name: Annotated[str, Parameter(name=["--name", "-n"], help="a name; the job's id begins with it")] = ""
    priority: Annotated[int | None, number(-BIG, BIG), Parameter(help="-1000 to 1000, higher first")] = None
    cpus: Annotated[str, Parameter(help="cores, e.g. 2 or 0.5; 1 by default")] = ""
    memory: Annotated[str, Parameter(help="hard limit, e.g. 512M or 4G")] = ""
    gpus: Annotated[str, Parameter(help="e.g. A100:2, 1 for any model, or A100:0.25 for a share of one")] = ""
    env: Annotated[tuple[str, ...], Parameter(name=["--env", "-e"], help="NAME=VALUE; may be repeated")] = ()
    workdir: Annotated[str, Parameter(help="the working directory; the image's by default")] = ""
    volume: Annotated[tuple[str, ...], Parameter(help="SOURCE:TARGET[:ro]; may be repeated")] = ()
    network: Annotated[Network | None, Parameter(help="bridge by default")] = None
    driver: Annotated[Driver | None, Parameter(help="docker by default")] = None
    max_runtime: Annotated[str, Parameter(help="stop it after 90s, 10m, 1h30m, …")] = ""
    queue_timeout: Annotated[str, Parameter(help="expire it when it has waited this long")] = ""
    grace: Annotated[str, Parameter(help="time between SIGTERM and SIGKILL; 10s")] = ""
    retries: Annotated[Count, Parameter(help="how often its own failures are tried again")] = None
    backoff: Annotated[str, Parameter(help="wait before the first retry, doubling; 1s")] = ""
    on_lost: Annotated[
        Literal["requeue", "fail"] | None, Parameter(help="when its node is lost; requeue by default")
    ] = None
    on_disconnect: Annotated[
        Literal["stop", "keep"] | None, Parameter(help="when its node is cut off; stop by default")
    ] = None
    after_ok: Annotated[tuple[str, ...], Parameter(help="start after this job succeeded; may be repeated")] = ()
    after_any: Annotated[tuple[str, ...], Parameter(help="start after this job ended; may be repeated")] = ()
    array: Annotated[Count, Parameter(help="make an array of so many members")] = None
    gang: Annotated[bool, Parameter(negative=(), help="its members start together or not at all")] = False
    estimate: Annotated[str, Parameter(help="how long it will probably run, for backfill and srsf")] = ""
    deadline: Annotated[str, Parameter(help="when it should have ended, from now, for the order edf")] = ""
    sla: Annotated[
        Literal["best_effort", "batch", "latency_sensitive"] | None, Parameter(help="who gives way first; batch")
    ] = None
    node_label: Annotated[
        tuple[str, ...], Parameter(help="only on nodes with it: NAME=VALUE, or NAME for any value; may be repeated")
    ] = ()
    tolerate: Annotated[tuple[str, ...], Parameter(help="a node's taint it accepts, * = all; may be repeated")] = ()
    spot: Annotated[Literal["allow", "never"] | None, Parameter(help="may it run on spot nodes; allow")] = None
    max_price: Annotated[str, Parameter(help="only on nodes that cost no more an hour, e.g. 2.50")] = ""
    anti_affinity: Annotated[str, Parameter(help="jobs with the same word keep off each other's nodes")] = ""
    max_per_node: Annotated[Count, Parameter(help="so many of its array, or anti-affinity, on one node")] = None
    label: Annotated[tuple[str, ...], Parameter(help="of the job, NAME=VALUE; may be repeated")] = ()
    hold: Annotated[bool, Parameter(negative=(), help="wait until released")] = False
    duration: Annotated[str, Parameter(help="how long a fake job runs")] = ""

    def given(self) -> list[str]:
        """The options that were given, as typed."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return [
            "--" + name.replace("_", "-")
            for name, value in values.items()
            if value is not None and value is not False and value not in ("", ())
        ]

    def spec(self, image: str, command: tuple[str, ...]) -> JobSpec:
        """The job. Raises InvalidSpec naming the option."""
        if self.driver not in (None, "docker") and image:
            image, command = "", (image, *command)
        asked: dict[str, Any] = {name: getattr(self, name) for name in _AS_TYPED if getattr(self, name) is not None}
        asked |= {
            "image": image,
            "command": command,
            "resources": _resources(self.cpus, self.memory, self.gpus),
            "env": pairs(self.env, "--env"),
            "labels": pairs(self.label, "--label"),
            "node_labels": _node_labels(self.node_label),
            "tolerations": self.tolerate,
            "volumes": [_volume(text) for text in self.volume],
            "submitted_by": user(),
        }
        times = (
            ("max_runtime_ms", "--max-runtime", self.max_runtime),
            ("estimate_ms", "--estimate", self.estimate),
            ("deadline_ms", "--deadline", self.deadline),
            ("queue_timeout_ms", "--queue-timeout", self.queue_timeout),
            ("stop_grace_ms", "--grace", self.grace),
            ("retry_backoff_ms", "--backoff", self.backoff),
        )
        asked |= {key: parse_duration_ms(text, option) for key, option, text in times if text}
        if self.max_price:
            asked["max_price_micros_per_h"] = parse_money_micros(self.max_price, "--max-price")
        if self.duration:
            asked["fake"] = {"duration_ms": parse_duration_ms(self.duration, "--duration")}
        return make_spec(**asked)


async def submit(
    image: str = "",
    /,
    *command: str,
    file: Annotated[
        Path | None,
        Parameter(
            name=["--file", "-f"], allow_leading_hyphen=True, help="jobs: .ndjson, .csv, .json, .toml; - = stdin"
        ),
    ] = None,
    file_format: Annotated[
        FileFormat | None, Parameter(name="--format", help="of the file, where its name does not tell; json for stdin")
    ] = None,
    job_id: Annotated[str, Parameter(name="--id", help="the job's id; made when not given")] = "",
    options: JobOptions = JobOptions(),
    wait: Annotated[bool, Parameter(negative=(), help="wait for the end; exit with the job's exit code")] = False,
    logs: Annotated[bool, Parameter(negative=(), help="print the output as it comes, and wait")] = False,
    output: Output = "table",
    where: Where = Where(),
) -> int:
    """Submit a job: an image and a command.

    eventsched submit busybox -- echo hi
    eventsched submit --driver process -- sleep 5
    eventsched submit -f jobs.ndjson

    What a job asks for stands in the file, if there is one; of the options, only --format, --tenant (for
    jobs that name none), --wait, --logs and --output go with it. Of .ndjson and .csv each row has its own
    fate; the exit code is 1 when one was refused.
    """
    if file is not None:
        _refuse_beside_a_file(file, [*(["IMAGE"] if image or command else []), *(["--id"] if job_id else [])], options)
        with open_jobs(file, file_format) as jobs:
            return await _submit_file(jobs, wait, logs, output, where)
    if file_format is not None:
        raise UsageError("--format: goes with --file", "e.g. `eventsched submit -f - --format csv`")
    if not image and options.driver in (None, "docker"):
        raise UsageError("image: none is given", "e.g. `eventsched submit busybox -- echo hello`, or -f FILE")
    spec = options.spec(image, command)
    if logs and spec.array:
        raise UsageError(
            "--logs: an array has no output of its own",
            "submit it with --wait; `eventsched logs ARRAY.0` prints a member's",
        )
    if not (wait or logs):
        async with connected(where) as client:
            _show(await client.submit(spec, job_id=job_id), output)
            return 0
    try:
        async with connected(where) as client:
            done = await client.submit(spec, job_id=job_id)
            _show(done, output, brief=True)
            return await _wait_all(client, [done], logs, output)
    except UsageError:
        raise
    except EventschedError as error:
        complain(error)
        return OUR_FAULT


async def _submit_file(jobs: JobFile, wait: bool, logs: bool, output: str, where: Where) -> int:
    waits = wait or logs
    try:
        async with connected(where) as client:
            with SpooledTemporaryFile(IN_MEMORY) as refused:
                report = FileReport(jobs, refused, as_json=output == "json", brief=waits, keep=waits)
                await submit_file(client, jobs, report, logs=logs)
                code = report.finish()
            if not waits:
                return code
            waited = await _wait_all(client, report.kept, logs, output)
            return waited or (OUR_FAULT if code else 0)
    except EventschedError as error:
        code = complain(error)
        return OUR_FAULT if waits and not isinstance(error, UsageError) else code


def _refuse_beside_a_file(file: Path, others: list[str], options: JobOptions) -> None:
    found = [*others, *options.given()]
    if found:
        raise UsageError(
            f"{', '.join(found)}: not together with --file {file}", "write it into the file, job by job (see JobSpec)"
        )


def _resources(cpus: str, memory: str, gpus: str) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if cpus:
        asked["cpu_millis"] = parse_cpus_millis(cpus, "--cpus")
    if memory:
        asked["memory_bytes"] = parse_memory(memory, "--memory")
    if gpus:
        asked |= _gpus(gpus)
    return asked


def _gpus(text: str) -> dict[str, Any]:
    """Whole devices, or a share of one."""
    share = re.fullmatch(r"(?:(?P<model>[^:]+):)?0?\.(?P<part>[0-9]{1,3})", text.strip())
    if share is None:
        model, count = parse_gpus(text, "--gpus")
        return {"gpu_model": model, "gpus": count}
    return {"gpu_model": share["model"] or "", "gpu_millis": int(share["part"].ljust(3, "0"))}


def _node_labels(texts: tuple[str, ...]) -> dict[str, str]:
    """A name alone asks for any value, which a spec says as ""."""
    return pairs((text if "=" in text else f"{text}=" for text in texts), "--node-label")


def _volume(text: str) -> dict[str, Any]:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not target or mode not in ("", "ro", "rw"):
        raise InvalidSpec(f"--volume: {text!r} is not SOURCE:TARGET or SOURCE:TARGET:ro", "e.g. /data:/data:ro")
    return {"source": source, "target": target, "read_only": mode == "ro"}


def _show(done: Submitted, output: str, brief: bool = False) -> None:
    if output == "json" and not brief:
        print_json(done)
    elif output != "json":
        print(f"submitted {done.tenant}/{done.job_id}", file=sys.stderr if brief else sys.stdout)
        if not brief:
            print(f"  eventsched job {done.job_id}\n  eventsched logs -f {done.job_id}")


async def _wait_all(client: Client, results: list[Submitted], logs: bool, output: str) -> int:
    views: list[JobView] = []
    code = 0
    for result in results:
        async with saying_why(client, result.job_id, result.tenant):
            if logs:
                async for chunk in client.follow_logs(result.job_id, tenant=result.tenant):
                    print_chunk(chunk)
            view = await client.wait(result.job_id, tenant=result.tenant)
        views.append(view)
        code = code or exit_code_of(view)
        if output != "json":
            print(visible(end_of(view)), file=sys.stderr)
    if output == "json":
        print_json(views[0] if len(views) == 1 else views)
    return code
