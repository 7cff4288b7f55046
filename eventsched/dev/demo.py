"""The demo: a small real workload, one of each kind, shown as it happens."""

from __future__ import annotations

import asyncio
import sys
import time

from msgspec import Struct
from rich.console import Console
from rich.live import Live

from eventsched.cli.tables import jobs_table
from eventsched.client import Client
from eventsched.errors import EventschedError
from eventsched.new_ids import new_job_id
from eventsched.resources import Resources
from eventsched.spec import FakeRun, JobSpec
from eventsched.views import JobView
from eventsched.visible import visible

IMAGE = "busybox"
POLL_S = 0.25
SMALL = Resources(cpu_millis=100, memory_bytes=0)


class DemoJob(Struct):
    """One job of the demo, and how it is to end."""

    title: str
    spec: JobSpec
    state: str = "succeeded"
    reason: str = ""
    attempts: int = 1
    abort: bool = False


def workload(driver: str) -> list[DemoJob]:
    """The demo's jobs for a driver; the memory limit needs docker."""
    jobs = [
        DemoJob("hello", _job(driver, "hello", "echo hello from $EVENTSCHED_NODE")),
        DemoJob("output", _job(driver, "output", "for i in 1 2 3 4; do echo step $i of 4; sleep 1; done", 4_000)),
        DemoJob("retried", _job(driver, "retried", 'test "$EVENTSCHED_ATTEMPT" -ge 2', retries=1), attempts=2),
        DemoJob("aborted", _job(driver, "aborted", "sleep 300", 300_000), "aborted", "aborted", abort=True),
        DemoJob("array", _job(driver, "array", "echo member $EVENTSCHED_ARRAY_INDEX", array=20), attempts=0),
    ]
    if driver == "docker":
        hog = 'x=$(head -c 200000000 /dev/zero | tr "\\0" x); echo $x | wc -c'
        limited = Resources(cpu_millis=100, memory_bytes=32 * 1024 * 1024)
        jobs.insert(3, DemoJob("memory", _job(driver, "memory", hog, resources=limited), "failed", "out_of_memory"))
    return jobs


def _job(
    driver: str, name: str, script: str, ms: int = 0, retries: int = 0, array: int = 0, resources: Resources = SMALL
) -> JobSpec:
    command = ("sh", "-c", script)
    match driver:
        case "docker":
            return JobSpec(image=IMAGE, command=command, name=name, resources=resources, retries=retries, array=array)
        case "process":
            return JobSpec(
                driver="process", command=command, name=name, resources=resources, retries=retries, array=array
            )
    fake = FakeRun(duration_ms=ms, exit_code=1 if retries else 0, fail_attempts=1, output=f"{name}\n")
    return JobSpec(driver="fake", name=name, fake=fake, resources=resources, retries=retries, array=array)


class Demo:
    """One showing."""

    def __init__(self, client: Client, driver: str) -> None:
        self._client = client
        self._jobs = workload("fake" if driver == "manual" else driver)
        self._ids: list[str] = []
        self._aborted: dict[str, None] = {}
        self._printed: dict[str, str] = {}

    async def show(self) -> list[JobView]:
        """Submit, show until all have ended; how they ended, in order."""
        self._ids = [new_job_id(f"demo-{job.title}") for job in self._jobs]
        results = await self._client.submit_many(
            [(job_id, job.spec) for job_id, job in zip(self._ids, self._jobs, strict=True)]
        )
        for result in results:
            if isinstance(result, EventschedError):
                raise result
        screen = Console()
        if not screen.is_terminal:
            return await self._follow(self._print_changes)
        with Live(console=screen, auto_refresh=False) as live:
            return await self._follow(
                lambda views: live.update(jobs_table(views, int(time.time() * 1000)), refresh=True)
            )

    async def _follow(self, draw: object) -> list[JobView]:
        assert callable(draw)
        while True:
            views = [await self._client.get(job_id, tenant=self._client.tenant) for job_id in self._ids]
            draw(views)
            for job, view in zip(self._jobs, views, strict=True):
                if job.abort and view.state == "running" and view.job_id not in self._aborted:
                    self._aborted[view.job_id] = None
                    await self._client.abort(view.job_id, reason="as the demo wants it", tenant=view.tenant)
            if all(view.ended for view in views):
                return views
            await asyncio.sleep(POLL_S)

    def _print_changes(self, views: list[JobView]) -> None:
        for view in views:
            members = " ".join(f"{count} {state}" for state, count in view.members.items())
            text = f"{view.state:<10} {members or view.reason}"
            if self._printed.get(view.job_id) != text:
                self._printed[view.job_id] = text
                print(visible(f"  {view.job_id:<22} {text}".rstrip()), flush=True)

    def judge(self, views: list[JobView]) -> list[str]:
        """What did not end as it should have, in words; [] when all is well."""
        wrong = []
        for job, view in zip(self._jobs, views, strict=True):
            if (view.state, view.reason) != (job.state, job.reason):
                wrong.append(
                    f"{view.job_id} is {view.state} ({view.reason} {view.detail}), expected {job.state} {job.reason}"
                )
            elif job.attempts and view.attempt != job.attempts:
                wrong.append(f"{view.job_id} took {view.attempt} attempts, expected {job.attempts}")
        return wrong


async def run_demo(client: Client, driver: str) -> int:
    """Show the demo; 0 when every job ended as it should."""
    demo = Demo(client, driver)
    print(
        "demo: a hello, output over some seconds, a failure that is retried,"
        f"{' one over its memory limit,' if driver == 'docker' else ''} one aborted, an array of 20"
    )
    wrong = demo.judge(await demo.show())
    for line in wrong:
        print(visible(f"error: {line}"), file=sys.stderr)
    if not wrong:
        print("demo: all of them ended as they should")
    return 1 if wrong else 0
