"""Readers of workloads: real slices come out as they are meant, and faults name file, place and field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from eventsched.errors import InvalidSpec
from eventsched.projections.simulation.reading import JOBS, NODES, read_nodes, read_workload
from eventsched.projections.simulation.workload import Shape, SimJob, Workload

DATA = Path(__file__).parents[1] / "data"
BATSIM = DATA / "batsim-medium/medium_late.json.gz"
PHILLY = DATA / "philly/philly-2017-10-02.csv.gz"


def by_id(workload: Workload) -> dict[str, SimJob]:
    return {job.job_id: job for job in workload.jobs}


def text_of(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def test_batsim_jobs_are_gangs_of_one_core_machines() -> None:
    workload = read_workload(BATSIM, 32)
    assert (len(workload.jobs), len(workload.nodes)) == (801, 32)
    assert {node.joined.capacity.cpu_millis for node in workload.nodes} == {1_000}
    plain, gang = by_id(workload)["0"], by_id(workload)["1"]
    assert (plain.spec.array, plain.spec.gang, plain.spec.estimate_ms) == (0, False, 149_000)
    assert (gang.spec.array, gang.spec.gang, gang.submit_ms, gang.spec.estimate_ms) == (2, True, 4_709, 399_000)
    profiles = json.loads(text_of(BATSIM))["profiles"]
    assert gang.duration_ms == round(profiles["delay_ft.C.2"]["delay"] * 1000)


def test_philly_rows_become_jobs_of_their_virtual_cluster_and_wide_ones_span_nodes() -> None:
    workload = read_workload(PHILLY, 20)
    assert len(workload.jobs) == 1_650
    assert workload.jobs[0].submit_ms == 0
    assert {job.tenant for job in workload.jobs} == {
        "11cb48",
        "e13805",
        "ee9e8c",
        "7f04ca",
        "2869ce",
        "6214e9",
        "6c71a0",
    }
    wide = [job.spec for job in workload.jobs if job.spec.gang]
    assert {(spec.array, spec.resources.gpus) for spec in wide} == {(2, 8), (4, 8)}
    rows = [line.split(",") for line in text_of(PHILLY).splitlines()[1:]]
    gpu_s = sum(job.duration_ms * max(1, job.spec.array) * job.spec.resources.gpus for job in workload.jobs) / 1000
    assert gpu_s == pytest.approx(sum(float(row[3]) for row in rows))


def test_chronus_deadlines() -> None:
    workload = read_workload(DATA / "chronus/chronus-200.csv", 10)
    soft, strict = by_id(workload)["0"], by_id(workload)["1"]
    assert (soft.tenant, soft.spec.deadline_ms, soft.duration_ms) == ("vc_ed69ec", 159 * 60_000, 96 * 60_000)
    assert strict.spec.deadline_ms == 235 * 60_000
    assert {job.spec.deadline_ms for job in workload.jobs if job.spec.sla == "best_effort"} == {0}
    assert any("unit of time" in note for note in workload.notes)


def test_tiresias_jobs_on_the_cluster_of_their_shape() -> None:
    workload = read_workload(DATA / "tiresias/60_job.csv", DATA / "tiresias/n32g4.csv")
    assert (len(workload.jobs), len(workload.nodes)) == (60, 32)
    assert {len(node.joined.capacity.gpus) for node in workload.nodes} == {4}
    eight = by_id(workload)["1"]
    assert (eight.submit_ms, eight.duration_ms, eight.spec.array, eight.spec.resources.gpus) == (30_000, 147_000, 2, 4)


def test_shockwave_durations_and_numbers_of_gpus() -> None:
    workload = read_workload(DATA / "shockwave/120_jobs.trace.gz", 32)
    assert (len(workload.jobs), len(workload.nodes)) == (120, 32)
    assert (workload.jobs[1].submit_ms, workload.jobs[1].duration_ms) == (55_000, 3_338_000)
    assert max(job.spec.array for job in workload.jobs) > 1, "on nodes with one GPU a wider job is a gang"


@pytest.mark.parametrize("name", ["msr_50", "physical_small_test"])
def test_gavel_jobs_take_as_long_as_their_model_does(name: str) -> None:
    workload = read_workload(DATA / f"gavel/{name}.trace.gz", 8)
    rates = json.loads(text_of(DATA / "gavel/simulation_throughputs.json.gz"))
    row = text_of(DATA / f"gavel/{name}.trace.gz").splitlines()[0].split("\t")
    steps, gpus = (float(row[4]), row[6]) if name == "msr_50" else (float(row[5]), row[6])
    first = workload.jobs[0]
    for model in ("k80", "v100"):
        rate = rates[model][f"('{row[0]}', {gpus})"]["null"]
        assert first.takes_ms(-1, model) == pytest.approx(steps / rate * 1000, abs=1)
    assert first.spec.estimate_ms == min(first.model_ms.values())


def test_gavel_without_its_table_says_what_is_missing(tmp_path: Path) -> None:
    trace = tmp_path / "x.trace"
    trace.write_text(text_of(DATA / "gavel/msr_50.trace.gz"))
    with pytest.raises(InvalidSpec) as caught:
        read_workload(trace, 8)
    assert "--throughputs" in caught.value.hint
    assert len(read_workload(trace, 8, beside=DATA / "gavel/simulation_throughputs.json.gz").jobs) == 50


def test_swf_fields() -> None:
    jobs = by_id(read_workload(DATA / "swf/tiny.swf", 4))
    assert (jobs["1"].spec.array, jobs["1"].duration_ms, jobs["1"].spec.estimate_ms) == (2, 100_000, 120_000)
    assert (jobs["3"].spec.array, jobs["3"].tenant) == (0, "group2")
    assert (jobs["4"].tenant, jobs["4"].spec.estimate_ms) == ("default", 0), "-1 is unknown"


def test_jobs_and_nodes_of_the_cost_aware_scheduler() -> None:
    workload = read_workload(DATA / "s0/jobs.json", DATA / "s0/nodes.json")
    jobs, nodes = by_id(workload), {node.node_id: node.joined for node in workload.nodes}
    train, serve = jobs["train"], jobs["serve"]
    assert (train.spec.priority, train.spec.resources.gpu_model, train.spec.resources.memory_bytes) == (
        9,
        "A100",
        32 << 30,
    )
    assert train.spec.max_price_micros_per_h == 180_000_000
    assert (train.duration_ms, serve.duration_ms, serve.spec.sla) == (10_000, 30_000, "latency_sensitive")
    assert {job.job_id for job in jobs.values() if job.spec.rescheduled} == {"sweep"}
    assert (nodes["spot-1"].spot, nodes["gpu-1"].spot) == (True, False)
    assert nodes["gpu-1"].price_micros_per_h == 150_000_000
    assert nodes["gpu-1"].labels == {"cloudProvider": "AWS", "instanceType": "p3.2xlarge"}
    assert [gpu.model for gpu in nodes["gpu-1"].capacity.gpus] == ["A100", "A100"]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_jobs_of_the_quota_aware_scheduler(tmp_path: Path, form: str) -> None:
    path = DATA / "quota/jobs.csv"
    if form == "ndjson":
        head, *rows = (line.split(",") for line in text_of(path).splitlines())
        bodies = [dict(zip(head, row, strict=True)) for row in rows]
        typed = [{name: int(text) if text.isdecimal() else text for name, text in one.items()} for one in bodies]
        path = tmp_path / "jobs.ndjson"
        path.write_text("\n".join(map(json.dumps, typed)))
    workload = read_workload(path, 1)
    late = by_id(workload)["late"]
    assert (late.submit_ms, late.duration_ms, late.tenant, late.spec.priority) == (59_000, 1_000, "t1", 1)
    assert (late.spec.resources.gpus, late.spec.resources.gpu_model, late.spec.driver) == (1, "H100", "fake")
    assert [gpu.model for gpu in workload.nodes[0].joined.capacity.gpus] == ["A100"] * 4 + ["H100"] * 2


def test_openb_pods_are_played_by_their_own_times() -> None:
    pods, nodes = DATA / "openb/openb_pod_list_cpu050.csv.gz", DATA / "openb/openb_node_list_gpu_node.csv.gz"
    workload = read_workload(pods, nodes, skip=True)
    head, *rows = [line.split(",") for line in text_of(pods).splitlines()]
    timed = [dict(zip(head, row, strict=True)) for row in rows]
    timed = [row for row in timed if row["scheduled_time"] and row["deletion_time"]]
    assert len(workload.jobs) == len(timed) > 1_000
    assert (workload.jobs[0].submit_ms, len(workload.nodes)) == (0, 1_213)
    lasted = {row["name"]: float(row["deletion_time"]) - float(row["scheduled_time"]) for row in timed}
    assert {job.job_id: job.duration_ms / 1000 for job in workload.jobs} == lasted


def test_our_own_lines(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text(
        '{"job_id": "a", "duration_ms": 1000, "resources": {"gpus": 1}}\n\n'
        '{"job_id": "b", "tenant": "t", "submit_ms": 5, "duration_ms": [1, 2], "array": 2, "image": "busybox"}\n'
        '{"job_id": "c", "duration_ms": {"A100": 10, "T4": 40}}\n'
    )
    (tmp_path / "nodes").write_text(
        '{"node": "big", "count": 2, "cpu_millis": 4000, "gpus": {"A100": 1, "T4": 1}, "price_micros_per_h": 7}\n'
        '{"node": "spare", "spot": true, "hazard_ppm_per_h": 50000, "taints": ["slow"]}\n'
    )
    workload = read_workload(tmp_path / "jobs", tmp_path / "nodes")
    jobs = by_id(workload)
    assert (jobs["a"].spec.driver, jobs["b"].spec.driver) == ("fake", "docker")
    assert [jobs["b"].takes_ms(member, "") for member in (0, 1)] == [1, 2]
    assert [jobs["c"].takes_ms(-1, model) for model in ("a100", "t4", "other")] == [10, 40, 40]
    assert [node.node_id for node in workload.nodes] == ["big-0", "big-1", "spare"]
    assert [gpu.uuid for gpu in workload.nodes[1].joined.capacity.gpus] == ["big-1-gpu0", "big-1-gpu1"]
    assert workload.nodes[2].joined.hazard_ppm_per_h == 50_000


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ('{"image": "busybox", "command": ["true"]}', "duration_ms"),
        ('{"resources": {"gpus": 1}, "duration_ms": 5}', "job_id"),
    ],
)
def test_jobs_that_could_be_submitted_are_told_what_they_lack(tmp_path: Path, line: str, lacks: str) -> None:
    (tmp_path / "jobs").write_text(line + "\n")
    with pytest.raises(InvalidSpec, match=f"line 1, {lacks}: is missing"):
        read_workload(tmp_path / "jobs", 1)


PHILLY_HEAD = "timestamp,duration,num_gpus,gpu_time,cluster\n"
TIRESIAS_HEAD = "job_id,num_gpu,submit_time,iterations,model_name,duration,interval\n"
CHRONUS_HEAD = text_of(DATA / "chronus/chronus-200.csv").partition("\n")[0] + "\n"
OPENB_HEAD = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time,scheduled_time\n"
QUOTA_HEAD = "job_id,tenant_id,gpu_type,gpus,priority,submitted_at\n"
SHOCKWAVE = text_of(DATA / "shockwave/120_jobs.trace.gz").splitlines()[0]
S0_JOB = '{"jobId": "j", "priority": 5, "resourceRequest": {"cpu": 1, "memory_gb": 1, "gpuType": null, "gpuCount": 0}'
BAD_JOBS = [
    ("philly", PHILLY_HEAD + "2017-10-02 00:00:00,1,1,1,a\n2017-13-02 00:00:00,1,1,1,a\n", "line 3, timestamp"),
    ("philly", PHILLY_HEAD + "2017-10-02 00:00:00,-1,1,1,a\n", "line 2, duration: -1 is not between"),
    ("philly", PHILLY_HEAD + "2017-10-02 00:00:00,nan,1,1,a\n", "line 2, duration: 'nan' is not a number"),
    ("philly", PHILLY_HEAD + "2017-10-02 00:00:00,1,1.5,1,a\n", "line 2, num_gpus: 1.5 is not a whole number"),
    ("philly", PHILLY_HEAD + "2017-10-02 00:00:00,1,99999,1,a\n", "line 2, num_gpus"),
    ("philly", PHILLY_HEAD + "2017-10-02 00:00:00,1,1\n", "line 2: 3 values for 5 columns"),
    ("philly", "timestamp,duration,num_gpus,colour\n2017-10-02 00:00:00,1,1,red\n", "line 1, colour: unknown column"),
    ("tiresias", TIRESIAS_HEAD + "a b,1,0,1,m,1,1\n", "line 2, job_id: 'a b' is not an id"),
    ("chronus", CHRONUS_HEAD + "1,u,1,0,1,m,1,1,5,1,0,hard\n", "line 2, job_type: 'hard' is none of"),
    ("shockwave", SHOCKWAVE + "\n" + SHOCKWAVE.replace("\t0", "\tsoon") + "\n", "line 2, arrival_time_s: 'soon'"),
    ("shockwave", SHOCKWAVE + "\nshort\tline\n", "line 2: 2 values; this format has 12"),
    ("swf", text_of(DATA / "swf/tiny.swf") + "5 1 2\n", "line 8: 3 values; a line of this format has 18"),
    ("swf", text_of(DATA / "swf/tiny.swf").replace("30 1 -1 -1 1", "-1 1 -1 -1 1"), "line 6, run_time: is unknown"),
    ("batsim", '{"profiles": {}, "jobs": [{"id": 1, "res": 1, "subtime": 0, "profile": "p"}]}', "job 1, profile: 'p'"),
    (
        "batsim",
        '{"profiles": {"p": {"delay": 1}}, "jobs": [{"id": 1, "res": 0, "subtime": 0}]}',
        "job 1, res: 0 is not",
    ),
    ("batsim", '{"profiles": {}, "jobs": [{"id": 1, "colour": 1, "subtime": 0}]}', "job 1, colour: unknown field"),
    ("s0", f'[{S0_JOB}, "slaType": "GOLD"}}]', "job 1, slaType: 'GOLD' is none of"),
    ("s0", f"[{S0_JOB.replace('5', '11')}}}]", "job 1, priority: 11 is not between 1 and 10"),
    ("s0", f"[{S0_JOB}}}, {S0_JOB}}}]", "job j: there are two jobs of this name"),
    ("s0", f"[{S0_JOB.replace('memory_gb', 'memoryGb')}}}]", "job 1, resourceRequest.memoryGb: unknown field"),
    ("quota", QUOTA_HEAD + "a,t1,A100,0,0,0\n", "line 2, gpus: a job without an image asks for gpus > 0"),
    ("quota", QUOTA_HEAD + "a,t1,A100,1,high,0\n", "line 2, priority: 'high' is not a number"),
    ("quota", QUOTA_HEAD + "a,t 1,A100,1,0,0\n", "line 2, tenant_id: 't 1' is not an id"),
    (
        "quota",
        '{"job_id": "a", "gpu_type": "A100", "submited_at": 0}',
        "line 1, submited_at: is not a field",
    ),
    ("quota", '{"job_id": "a", "gpu_type": "A100", "gpus": 1}', "line 1, submitted_at: is missing"),
    ("s0", f'[{S0_JOB}, "isRescheduled": "no"}}]', "job 1, isRescheduled: 'no' is neither true nor false"),
    ("ndjson", '{"job_id": "a", "duration_ms": 1}\n{"job_id": "b"}\n', "line 2, duration_ms: is missing"),
    ("ndjson", '{"job_id": "a", "duration_ms": 1, "prio": 3}\n', "line 1"),
    ("ndjson", '{"job_id": "a", "duration_ms": 1, "priority": 5000}\n', "job a, priority: 5000 is not between"),
    (
        "ndjson",
        '{"job_id": "a", "duration_ms": [1], "array": 2}\n',
        "line 1, duration_ms: 1 durations for an array of 2",
    ),
    ("ndjson", '{"job_id": "a", "duration_ms": 1}\n{"job_id": "b", \n', "line 2: no JSON"),
    ("ndjson", f'{{"job_id": "a", "duration_ms": {"9" * 400}}}\n', "line 1, duration_ms: 9999"),
    ("philly", PHILLY_HEAD + "2017-10-02 00:00:00,1e999,1,1,a\n", "line 2, duration: inf is not between"),
    ("openb", OPENB_HEAD + "a,1,1,0,0,1,2,2\nb,1,1,0,0,1,1,\n", "line 3, deletion_time: the pod has no time"),
    ("openb", OPENB_HEAD + "a,1,1,0,0\n", "line 2: 5 values for 8 columns"),
    ("openb", OPENB_HEAD + "a,1,1,0,0,1,2,2,9\n", "line 2: 9 values for 8 columns"),
]


def lenient(path: Path) -> str:
    """What is said when faulty rows are left out."""
    try:
        return "\n".join(read_workload(path, 4, skip=True).notes)
    except InvalidSpec as error:
        return error.message


@pytest.mark.parametrize(("kind", "text", "says"), BAD_JOBS)
def test_a_fault_names_file_place_and_field_and_can_be_left_out(
    tmp_path: Path, kind: str, text: str, says: str
) -> None:
    path = tmp_path / ("jobs.swf" if kind == "swf" else "jobs")
    path.write_text(text)
    with pytest.raises(InvalidSpec) as caught:
        read_workload(path, 4)
    assert caught.value.message.startswith(f"{path}, {says}"), caught.value.message
    said = lenient(path)
    assert says in said or said == f"{path}: no job in it", "the only row was the faulty one"


BAD_NODES = [
    ('{"node": "a"}\n{"node": "a"}\n', "node a: there are two nodes of this name"),
    ('{"node": "a", "colour": 1}\n', "line 1"),
    ('{"node": "a", "cpu_millis": -1}\n', "line 1, cpu_millis: -1 is negative"),
    ('{"node": "a", "gpus": {"A100": 99}}\n', "line 1, gpus"),
    ('{"node": "a"}\n{"node": "b", "gpus": {"": 2}}\n', "line 2, gpus: a model has no name"),
    ("sn,cpu_milli,memory_mib,gpu,model\na,1,1,0,\na,1,1,0,\n", "line 3, sn: 'a' stands twice"),
    ("sn,cpu_milli,memory_mib,gpu,model\na,1,1,2,\n", "line 2, model: is empty"),
    ('[{"nodeId": "n", "totalCapacity": {"cpu": 1}, "nodeType": "CHEAP"}]', "node 1, nodeType: 'CHEAP'"),
    ('[{"nodeId": "n"}]', "node 1, totalCapacity: is missing"),
]


@pytest.mark.parametrize(("text", "says"), BAD_NODES)
def test_a_fault_among_nodes(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "nodes"
    path.write_text(text)
    with pytest.raises(InvalidSpec) as caught:
        read_nodes(path)
    assert caught.value.message.startswith(f"{path}, {says}"), caught.value.message


def test_faulty_rows_of_openb_are_left_out_like_any(tmp_path: Path) -> None:
    pods, nodes = tmp_path / "pods.csv", tmp_path / "nodes.csv"
    pods.write_text("\ufeff" + OPENB_HEAD + "a,1,1,0,0,1,3,2\nb,x,1,0,0,1,3,2\nc,1,1,0,0,1,3,\nd,1,1,0,0,5,9,6\n")
    nodes.write_bytes(gzip.compress(b"sn,cpu_milli,memory_mib,gpu,model\nn,1,1,1,\nm,1000,1,0,\n"))
    workload = read_workload(pods, nodes, skip=True)
    assert [(job.job_id, job.submit_ms, job.duration_ms) for job in workload.jobs] == [
        ("a", 0, 1_000),
        ("d", 4_000, 3_000),
    ]
    assert [node.node_id for node in workload.nodes] == ["m"]
    places = [note.removeprefix("left out: ").partition(": ")[0] for note in workload.notes]
    assert places == [f"{nodes}, line 2, model", f"{pods}, line 3, cpu_milli", f"{pods}, line 4, deletion_time"]


def test_a_line_ends_where_its_writer_ended_it(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    label = "a\u2028b\u2029c\x85d"
    lines = [{"job_id": name, "duration_ms": 1, "labels": {"note": label}} for name in ("a", "b")]
    path.write_bytes("\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode())
    workload = read_workload(path, 1)
    assert [job.spec.labels["note"] for job in workload.jobs] == [label, label]


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\xff\xfe\x00", b"\x1f\x8bnot really", b"[]", b"{", b'{"a": 1}'])
def test_what_is_no_workload_is_refused_in_words(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(InvalidSpec, match=r"file"):
        read_workload(path, 4)
    with pytest.raises(InvalidSpec, match=r"file"):
        read_nodes(path)


def test_a_format_can_be_named_and_a_shape_given() -> None:
    path = DATA / "tiresias/60_job.csv"
    assert read_workload(path, 2, shape=Shape(1_000, 0, "T4", 8), format_name="tiresias").nodes[0].gpu_model == "t4"
    with pytest.raises(InvalidSpec, match="no format 'excel'"):
        read_workload(path, 2, format_name="excel")


def test_every_format_has_a_name_of_its_own_and_a_summary() -> None:
    for formats in (JOBS, NODES):
        assert len({one.name for one in formats}) == len(formats)
        assert all(one.summary for one in formats)
