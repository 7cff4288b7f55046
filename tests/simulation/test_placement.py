"""The inflation protocol, and readers of its files; what comes out is held against published numbers elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventsched.projections.bench.deciding import measure
from eventsched.projections.simulation.placement import arrivals, gpu_millis
from eventsched.projections.simulation.readers.openb import read_nodes, read_pods
from eventsched.projections.simulation.readers.rows import BadFile

DATA = Path(__file__).parents[1] / "data/openb"
NODES = DATA / "openb_node_list_gpu_node.csv.gz"


def _pods(workload: str) -> Path:
    return DATA / f"openb_pod_list_{workload}.csv.gz"


def test_arrivals_ask_for_thirty_percent_more_than_there_is() -> None:
    pods = read_pods(_pods("default"))
    capacity = sum(len(node.capacity.gpus) for node in read_nodes(NODES).values()) * 1000
    asked = arrivals(pods, capacity, seed=1)
    total = sum(gpu_millis(one) for one in asked)
    assert (len(pods), capacity) == (8_152, 6_212_000)
    assert 1.3 * capacity <= total < 1.3 * capacity + 8_000
    assert asked == arrivals(pods, capacity, seed=1) != arrivals(pods, capacity, seed=2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,cpu_milli,memory_mib,num_gpu\n", "pods.csv:1: the header lacks gpu_milli"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli,colour\n", "has unknown columns colour"),
        (
            "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,0,0\nb,x,1,0,0\n",
            "pods.csv:3: cpu_milli: 'x' is no integer",
        ),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,1,1001\n", "gpu_milli: 1001 is not between 0 and 1000"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,2,500\n", "several GPUs can only be asked for whole"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1\n", "num_gpu: is missing: the line is too short"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,-1,1,0,0\n", "cpu_milli: -1 is not between"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text(text)
    with pytest.raises(BadFile, match=r"pods\.csv") as caught:
        read_pods(path)
    assert says in caught.value.message


def test_bad_nodes_and_files(tmp_path: Path) -> None:
    header = "sn,cpu_milli,memory_mib,gpu,model\n"
    path = tmp_path / "nodes.csv"
    for text, says in (
        ("a,1,1,0,\na,1,1,0,\n", "nodes.csv:3: sn: 'a'"),
        ("a,1,1,2,\n", "model: is empty"),
        ("a b,1,1,0,\n", "is no id of a node"),
    ):
        path.write_text(header + text)
        with pytest.raises(BadFile) as caught:
            read_nodes(path)
        assert says in caught.value.message
    with pytest.raises(BadFile, match="No such file"):
        read_nodes(tmp_path / "none.csv")
    (tmp_path / "broken.csv.gz").write_bytes(b"\x1f\x8b\x08rubbish")
    with pytest.raises(BadFile):
        read_nodes(tmp_path / "broken.csv.gz")


def test_the_decision_benchmark_measures_a_nearly_full_cluster() -> None:
    found = measure(nodes=60, policy="fgd", load=85, steps=300)
    assert list(found)[:3] == ["decisions_per_s", "p50_us", "p99_us"]
    assert found["gpus_in_use_percent"] > 75  # type: ignore[operator]
    assert found["placed_percent"] > 50  # type: ignore[operator]
