"""The only place where a subject of the log is built or parsed.

    ev.job.<tenant>.<job>.<verb>   clients
    ev.admin.<kind>                operators
    ev.node.<node>  ev.run.<node>  the node's agent
    ev.leader  ev.assign.<node>  ev.decide.<kind>     the leader alone (fenced)
    hb.<node>                      heartbeats           logs.<tenant>.<node>.<run>   output

A job's id stands in client subjects only: every distinct subject costs each server memory for
ever, so decisions and reports name the job in the payload.
"""

from __future__ import annotations

EV_ALL = "ev.>"
LEADER = "ev.leader"
HB_ALL = "hb.>"
HB_MARKER = "hb._marker"
LOGS_ALL = "logs.>"


def job(tenant: str, job_id: str, verb: str) -> str:
    """Subject of a client's event about a job, e.g. `ev.job.acme.j1.submitted`."""
    return f"ev.job.{tenant}.{job_id}.{verb}"


def admin(kind: str) -> str:
    """Subject of an operator's event, e.g. `ev.admin.node_drained`."""
    return f"ev.admin.{kind}"


def node(node_id: str) -> str:
    """Subject of an agent's event about its node."""
    return f"ev.node.{node_id}"


def run(node_id: str) -> str:
    """Subject of an agent's reports about its runs."""
    return f"ev.run.{node_id}"


def assign(node_id: str) -> str:
    """Subject of the leader's orders to a node."""
    return f"ev.assign.{node_id}"


def decide(kind: str) -> str:
    """Subject of the leader's verdicts, e.g. `ev.decide.admitted`."""
    return f"ev.decide.{kind}"


def heartbeat(node_id: str) -> str:
    """Subject of a node's heartbeats (stream HB)."""
    return f"hb.{node_id}"


def logs(tenant: str, node_id: str, run_id: int) -> str:
    """Subject of one run's output (stream LOGS)."""
    return f"logs.{tenant}.{node_id}.{run_id}"
