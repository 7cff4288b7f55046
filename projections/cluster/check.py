"""check: the invariants of a state, one line each. Tests run it after every step."""

from __future__ import annotations

from collections.abc import Iterator

from eventsched.projections.cluster.gone import GONE_KEPT, is_gone
from eventsched.projections.cluster.state import TERMINAL, ArrayState, ClusterState, Job, Node
from eventsched.wire import MAX_INT


def check(state: ClusterState) -> list[str]:
    """Every broken invariant in words; [] for a sound state. Costs a walk over the whole state."""
    found: list[str] = []
    for node in state.nodes.values():
        found.extend(_check_node(state, node))
    for job in state.jobs.values():
        found.extend(_check_job(state, job))
    found.extend(_check_runs(state))
    found.extend(_check_ledgers(state))
    return found


def _check_node(state: ClusterState, node: Node) -> Iterator[str]:
    runs = [state.runs[seq] for seq in node.runs if seq in state.runs]
    if len(runs) != len(node.runs):
        yield f"node {node.node_id} lists a run that is closed"
    if node.cpu_free_millis != node.capacity.cpu_millis - sum(run.cpu_millis for run in runs):
        yield f"node {node.node_id}: cpu does not add up"
    if node.memory_free_bytes != node.capacity.memory_bytes - sum(run.memory_bytes for run in runs):
        yield f"node {node.node_id}: memory does not add up"
    held = {uuid: run.seq for run in runs for uuid in run.gpus if not run.gpu_millis}
    if held != node.gpu_runs or len(held) != sum(len(run.gpus) for run in runs if not run.gpu_millis):
        yield f"node {node.node_id}: GPUs do not add up, or two runs hold one whole"
    shares: dict[str, int] = {}
    for run in runs:
        for uuid in run.gpus:
            shares[uuid] = shares.get(uuid, 0) + run.gpu_millis
    if {uuid: taken for uuid, taken in shares.items() if taken} != node.gpu_shares:
        yield f"node {node.node_id}: shares of GPUs do not add up"
    if any(taken > 1000 or uuid in node.gpu_runs for uuid, taken in node.gpu_shares.items()):
        yield f"node {node.node_id}: a GPU is shared out twice"
    if bool(node.session) != (node.state in ("ready", "suspect", "leaving")):
        yield f"node {node.node_id} is {node.state} with session {node.session}"


def _check_job(state: ClusterState, job: Job) -> Iterator[str]:
    run = state.runs.get(job.run)
    if job.array is not None:
        yield from _check_array(state, job)
    elif job.state in ("assigned", "starting", "running") and (run is None or run.key != job.key):
        yield f"job {job.key} is {job.state} without a run"
    elif (job.state == "pending" or job.state in TERMINAL) and run is not None and run.key == job.key:
        yield f"job {job.key} is {job.state} while run {job.run} is open"
    if not job.admitted and job.state not in TERMINAL and state.unjudged.get(job.seq) != job.key:
        yield f"job {job.key} is neither admitted nor waiting for it"
    if job.state in TERMINAL and job.waiting_on:
        yield f"job {job.key} ended and still waits"


def _check_array(state: ClusterState, job: Job) -> Iterator[str]:
    array = job.array
    assert array is not None
    for index in array.live:
        member = state.jobs.get(f"{job.key}.{index}")
        if member is None or member.state in TERMINAL:
            yield f"array {job.key} counts member {index} as live"
    ended = sum(array.ended.values())
    unreached = job.spec.array - array.next - len(array.taken)
    if ended + len(array.live) + unreached != job.spec.array:
        yield f"array {job.key}: {ended} ended, {len(array.live)} live, {unreached} to come of {job.spec.array}"
    if job.state in TERMINAL and (array.live or unreached):
        yield f"array {job.key} ended before its members"
    if job.spec.gang:
        yield from _check_gang(state, job, array, unreached)


def _check_gang(state: ClusterState, job: Job, array: ArrayState, unreached: int) -> Iterator[str]:
    members = [member for index in array.live if (member := state.jobs.get(f"{job.key}.{index}")) is not None]
    running = sum(member.run in state.runs for member in members)
    if running != array.open:
        yield f"gang {job.key} counts {array.open} runs, {running} are open"
    in_a_round = state.round_next < state.round_count
    if not in_a_round and 0 < running < len(members) + unreached and not array.restarting and array.fate is None:
        yield f"gang {job.key} is split: {running} of {len(members) + unreached} members run"


def _check_runs(state: ClusterState) -> Iterator[str]:
    owners: dict[str, int] = {}
    for seq, run in state.runs.items():
        if run.seq != seq or seq not in state.nodes[run.node].runs:
            yield f"run {seq} is not listed by node {run.node}"
        job = state.jobs.get(run.key)
        if job is None or job.run != seq:
            if not (run.stop_owed or run.stop_reason):
                yield f"run {seq} serves no job and is not being stopped"
        elif run.key in owners:
            yield f"job {run.key} has two runs: {owners[run.key]} and {seq}"
        owners[run.key] = seq
        if bool(run.stop_owed) != (seq in state.stops_owed):
            yield f"run {seq}: its owed stop is not listed"


def _check_ledgers(state: ClusterState) -> Iterator[str]:
    for seq, key in state.unjudged.items():
        job = state.jobs.get(key)
        if job is None or job.seq != seq or job.admitted:
            yield f"unjudged {seq} names no waiting submission"
    for key in state.doomed:
        if key not in state.jobs or not state.jobs[key].doomed_by:
            yield f"doomed {key} is not"
    for ordinal, key in state.finished.items():
        if key not in state.jobs or state.jobs[key].state not in TERMINAL:
            yield f"finished {ordinal} names {key}, which has not ended"
    if len(state.finished) > state.finished_keep:
        yield f"{len(state.finished)} finished jobs are kept, {state.finished_keep} allowed"
    if list(state.gone) != [name for name in state.gone if name in state.nodes and is_gone(state.nodes[name])]:
        yield "a node is listed as gone and is not"
    if len(state.gone) != sum(is_gone(node) for node in state.nodes.values()) or len(state.gone) > GONE_KEPT:
        yield f"{len(state.gone)} nodes are listed as gone"
    for run_seq, rate in state.rates.items():
        if run_seq not in state.runs or rate <= 0:
            yield f"rate of {run_seq} is of no open run, or none"
    for tenant, account in state.accounts.items():
        spent = account.current_micros + account.previous_micros
        if not 0 <= spent <= account.total_micros and account.total_micros < MAX_INT:
            yield f"account of {tenant} does not add up"
    for run_seq in state.finishes_owed:
        if run_seq not in state.runs:
            yield f"owed finish of closed run {run_seq}"
