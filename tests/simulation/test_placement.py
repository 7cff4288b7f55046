"""The inflation protocol, and readers of its files; what comes out is held against published numbers elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eventsched.errors import InvalidSpec
from eventsched.projections.bench import simulating
from eventsched.projections.bench.deciding import measure
from eventsched.projections.simulation.command import placement
from eventsched.projections.simulation.placement import arrivals, gpu_millis
from eventsched.projections.simulation.readers.openb import read_nodes, read_pods
from eventsched.projections.simulation.readers.source import Source

DATA = Path(__file__).parents[1] / "data/openb"
NODES = DATA / "openb_node_list_gpu_node.csv.gz"


def _pods(workload: str) -> Path:
    return DATA / f"openb_pod_list_{workload}.csv.gz"


def test_arrivals_ask_for_thirty_percent_more_than_there_is() -> None:
    pods = read_pods(Source(_pods("default")))
    capacity = sum(len(node.capacity.gpus) for node in read_nodes(Source(NODES)).values()) * 1000
    asked = arrivals(pods, capacity, seed=1)
    total = sum(gpu_millis(one) for one in asked)
    assert (len(pods), capacity) == (8_152, 6_212_000)
    assert 1.3 * capacity <= total < 1.3 * capacity + 8_000
    assert asked == arrivals(pods, capacity, seed=1) != arrivals(pods, capacity, seed=2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,cpu_milli,memory_mib,num_gpu\n", "pods.csv: line 1: no column 'gpu_milli'"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli,colour\n", "pods.csv, line 1, colour: unknown column"),
        (
            "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,0,0\nb,x,1,0,0\n",
            "pods.csv, line 3, cpu_milli: 'x' is not a number",
        ),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,1,1001\n", "gpu_milli: 1001 is not between 0 and 1000"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,2,500\n", "several GPUs can only be asked for whole"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1\n", "line 2: 2 values for 5 columns"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,-1,1,0,0\n", "cpu_milli: -1 is not between"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text(text)
    with pytest.raises(InvalidSpec, match=r"pods\.csv") as caught:
        read_pods(Source(path))
    assert says in caught.value.message


def test_bad_nodes_and_files(tmp_path: Path) -> None:
    header = "sn,cpu_milli,memory_mib,gpu,model\n"
    path = tmp_path / "nodes.csv"
    for text, says in (
        ("a,1,1,0,\na,1,1,0,\n", "nodes.csv, line 3, sn: 'a' stands twice"),
        ("a,1,1,2,\n", "model: is empty"),
        ("a b,1,1,0,\n", "line 2, sn: 'a b' is not an id"),
    ):
        path.write_text(header + text)
        with pytest.raises(InvalidSpec) as caught:
            read_nodes(Source(path))
        assert says in caught.value.message
    with pytest.raises(InvalidSpec, match="No such file"):
        Source(tmp_path / "none.csv")
    whole = NODES.read_bytes()
    for damaged in (b"\x1f\x8b\x08rubbish", whole[:-20], whole[:500] + bytes(20) + whole[520:]):
        (tmp_path / "broken.csv.gz").write_bytes(damaged)
        with pytest.raises(InvalidSpec, match="cannot be unpacked"):
            Source(tmp_path / "broken.csv.gz")


def test_faulty_rows_may_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    nodes.write_text("sn,cpu_milli,memory_mib,gpu,model\nn,64000,64000,2,T4\n")
    pods.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1000,1,1,1000\nb,x,1,0,0\n")
    with pytest.raises(InvalidSpec, match="line 3, cpu_milli"):
        placement(nodes=nodes, pods=pods, policy=["fgd"], seeds=1)
    placement(nodes=nodes, pods=pods, policy=["fgd"], seeds=1, skip_bad_rows=True, output="json")
    said = capsys.readouterr()
    assert json.loads(said.out)["fgd"]["allocation_mean"] == 100
    assert "line 3, cpu_milli" in said.err


def test_the_decision_benchmark_measures_a_nearly_full_cluster() -> None:
    with pytest.raises(InvalidSpec, match="no policy 'nope'"):
        measure(nodes=60, policy="nope", load=85, steps=300)
    with pytest.raises(InvalidSpec, match="no job runs"):
        measure(nodes=1, policy="fgd", load=1, steps=1)
    found = measure(nodes=60, policy="fgd", load=85, steps=300)
    assert list(found)[:3] == ["decisions_per_s", "p50_us", "p99_us"]
    assert found["gpus_in_use_percent"] > 75  # type: ignore[operator]
    assert found["placed_percent"] > 50  # type: ignore[operator]


def test_the_simulation_benchmark_plays_all_jobs_alike() -> None:
    one_by_one, together = (
        simulating.measure(jobs=60, nodes=40, batch=batch, policy="first-fit", times=2) for batch in (1, 20)
    )
    assert next(iter(one_by_one)) == "jobs_per_s"
    assert one_by_one["ended"] == together["ended"] == 60
    assert one_by_one["events"] == together["events"]
    assert one_by_one["rounds"] == 61
    assert together["rounds"] == 4
