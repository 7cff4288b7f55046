"""The SDK as scripts and notebooks use it; the synchronous twin stands for both, it runs the other."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator

import pytest

from eventsched import Client, JobSpec, Resources, SyncClient
from eventsched.errors import (
    ClientClosed,
    DuplicateJob,
    EventschedError,
    InvalidSpec,
    NoServer,
    NotFound,
    WaitTimeout,
)
from eventsched.settings import read_dev_state

from .terminal import Terminal


@pytest.fixture
def client(terminal: Terminal) -> Iterator[SyncClient]:
    dev = read_dev_state(terminal.directory / ".eventsched")
    assert dev is not None
    with SyncClient.connect(dev.nats, tenant="sdk") as client:
        yield client


def _process(script: str, **fields: object) -> JobSpec:
    return JobSpec(driver="process", command=("sh", "-c", script), **fields)  # type: ignore[arg-type]


def _until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < deadline


def test_the_twins_have_the_same_verbs_and_parameters() -> None:
    def verbs(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert verbs(SyncClient) == verbs(Client)


def test_one_job_from_submission_to_output(client: SyncClient) -> None:
    submitted = client.submit(_process("echo out; echo err >&2; exit 3"))
    view = client.wait(submitted.job_id, timeout=20)
    assert (view.tenant, view.state, view.exit_code, view.ended) == ("sdk", "failed", 3, True)
    assert sorted(client.logs(view.job_id).splitlines()) == ["err", "out"]
    assert b"".join(chunk.data for chunk in client.follow_logs(view.job_id)).count(b"\n") == 2
    kinds = [type(recorded.event).__name__ for recorded in client.follow_events(job_id=view.job_id, follow=False)]
    assert kinds[0] == "JobSpec"
    assert {"RunAssigned", "RunStarted", "RunEnded"} <= set(kinds)
    assert client.last_seq() >= submitted.seq


def test_output_is_followed_while_the_job_runs(client: SyncClient) -> None:
    job = client.submit(_process("for i in 1 2 3; do echo $i; sleep 0.3; done"))
    seen = []
    for chunk in client.follow_logs(job.job_id):
        if not seen:
            assert client.get(job.job_id).state == "running"
        seen.append(chunk.data)
    assert b"".join(seen) == b"1\n2\n3\n"


def test_many_arrays_and_lists(client: SyncClient) -> None:
    specs: list[tuple[str, JobSpec]] = [(f"many-{index}", JobSpec(driver="fake")) for index in range(50)]
    assert [one.job_id for one in client.submit_many(specs)] == [job_id for job_id, _ in specs]  # type: ignore[union-attr]
    again = client.submit_many([*specs[:1], ("many-new", JobSpec(driver="fake"))])
    assert isinstance(again[0], DuplicateJob)
    assert not isinstance(again[1], EventschedError), "one that fails does not keep the others out"
    array = client.submit(driver="fake", array=5, name="five")
    assert client.wait(array.job_id, timeout=20).state == "succeeded"
    for job_id, _ in specs:
        client.wait(job_id, timeout=20)
    listed = client.list(tenant="sdk", states=["succeeded"])
    assert {job_id for job_id, _ in specs} <= {view.job_id for view in listed}
    assert len(client.list(tenant="sdk", limit=7)) == 7
    assert len(client.list(array=f"sdk/{array.job_id}")) == 5


def test_steering(client: SyncClient) -> None:
    job = client.submit(_process("sleep 60", hold=True))
    _until(lambda: client.get(job.job_id).reason == "held")
    client.release(job.job_id)
    client.hold(client.submit(driver="fake", name="other", hold=True).job_id)
    with pytest.raises(WaitTimeout):
        client.wait(job.job_id, timeout=0.3)
    client.abort(job.job_id, reason="seen enough")
    assert client.wait(job.job_id, timeout=20).state == "aborted"
    with pytest.raises(EventschedError, match="has ended"):
        client.abort(job.job_id)


def test_nodes_and_numbers(client: SyncClient) -> None:
    (node,) = client.nodes()
    assert client.node(node.node).capacity["cpu_millis"] == 4000
    client.cordon(node.node)
    assert client.node(node.node).cordoned
    client.uncordon(node.node)
    assert client.stats().leader == "dev"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image": "busybox", "cpus": 2}, "cpus"),
        ({"image": "busybox", "priority": "high"}, "priority"),
        ({"image": "busybox", "priority": 10**6}, "-1000"),
        ({"image": "busybox", "resources": {"memory_bytes": -1}}, "memory_bytes"),
        ({"driver": "docker"}, "image"),
        ({"driver": "process"}, "command"),
    ],
)
def test_a_bad_job_is_refused_before_it_is_sent(client: SyncClient, fields: dict[str, object], says: str) -> None:
    before = client.last_seq()
    with pytest.raises(InvalidSpec, match=says):
        client.submit(**fields)
    assert client.last_seq() == before


def test_what_is_not_there(client: SyncClient) -> None:
    client.submit(driver="fake", job_id="findable-job")
    with pytest.raises(NotFound) as missing:
        client.get("findable-jbo")
    assert "findable-job" in missing.value.hint
    with pytest.raises(NotFound):
        client.node("nowhere")
    with pytest.raises(NoServer):
        SyncClient.connect("nats://127.0.0.1:1")


def test_a_client_that_is_closed_says_so(terminal: Terminal) -> None:
    dev = read_dev_state(terminal.directory / ".eventsched")
    assert dev is not None
    client = SyncClient.connect(dev.nats)
    following = client.follow_events()
    next(following)
    client.close()
    client.close()
    uses: list[Callable[[], object]] = [
        client.stats,
        client.last_seq,
        lambda: client.submit(driver="fake"),
        lambda: client.submit_many([]),
        lambda: client.get("j"),
        lambda: next(following),
        lambda: next(client.follow_logs("j")),
    ]
    for use in uses:
        with pytest.raises(ClientClosed, match="closed"):
            use()


async def test_so_does_its_twin(terminal: Terminal) -> None:
    dev = read_dev_state(terminal.directory / ".eventsched")
    assert dev is not None
    client = await Client.connect(dev.nats)
    await client.close()
    for use in (client.stats(), client.last_seq(), client.submit(driver="fake"), client.cordon("n")):
        with pytest.raises(ClientClosed, match="closed"):
            await use


@pytest.mark.parametrize(
    ("jobs", "says"),
    [
        ([5], r"jobs\[0\] is int"),
        ([JobSpec(driver="fake"), {"driver": "fake"}], r"jobs\[1\] is dict"),
        ([("only-an-id",)], r"jobs\[0\] is tuple"),
        ([(None, JobSpec(driver="fake"))], r"jobs\[0\] is tuple"),
    ],
)
def test_what_is_no_job_is_named_and_nothing_is_sent(client: SyncClient, jobs: list[object], says: str) -> None:
    before = client.last_seq()
    with pytest.raises(InvalidSpec, match=says):
        client.submit_many(jobs)  # type: ignore[arg-type]
    assert client.last_seq() == before


def test_a_spec_with_values_of_other_types_is_refused(client: SyncClient) -> None:
    wrong = JobSpec(driver="fake", priority="high")  # type: ignore[arg-type]
    unsayable = JobSpec(driver="fake", name="\udcff")
    results = client.submit_many([("typed-1", wrong), ("typed-2", JobSpec(driver="fake")), ("typed-3", unsayable)])
    assert [isinstance(result, InvalidSpec) for result in results] == [True, False, True]
    assert "priority" in str(results[0])
    with pytest.raises(InvalidSpec, match="not both"):
        client.submit(JobSpec(driver="fake"), priority=3)
    with pytest.raises(InvalidSpec, match="limit"):
        client.list(limit=-1)
    with pytest.raises(InvalidSpec, match="exit_code"):
        client.complete(client.submit(driver="manual").job_id, exit_code=300)
    with pytest.raises(InvalidSpec, match="weight"):
        client.set_tenant("heavy", weight=1001)


def test_steering_says_what_it_acted_on(client: SyncClient) -> None:
    job = client.submit(driver="fake", hold=True)
    view = client.abort(job.job_id[:20])
    assert (view.tenant, view.job_id) == ("sdk", job.job_id)
    other = client.submit(driver="fake", hold=True, tenant="other-sdk", job_id="one-of-theirs")
    with pytest.raises(NotFound) as raised:
        client.abort(other.job_id)
    assert "other-sdk/one-of-theirs" in raised.value.hint
    assert client.abort("other-sdk/one-of-theirs").tenant == "other-sdk"


def test_things_look_well_in_a_notebook(client: SyncClient) -> None:
    job = client.submit(driver="fake", name="shown", resources=Resources(cpu_millis=500))
    view = client.wait(job.job_id, timeout=20)
    assert job.job_id in repr(view)
    assert "succeeded" in repr(view)
    assert len(repr(view)) < 200
    assert "sdk" in repr(client)
    assert "ready" in repr(client.nodes()[0])
    assert job.job_id in view._repr_html_()
