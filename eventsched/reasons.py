"""Stable reason codes: one word per cause, used in the log, the state, the CLI and metrics.

A code never changes its meaning. `explain_reason` gives the sentence for people.
"""

from __future__ import annotations

REASONS: dict[str, str] = {
    # why a submission is refused
    "undecodable": "the payload is not valid JSON of the right shape",
    "too_large": "the payload is larger than the limit",
    "too_deep": "the payload is nested too deeply",
    "unknown_field": "a field is unknown (a typo?)",
    "wrong_type": "a field has the wrong type",
    "missing_field": "a field is missing",
    "bad_value": "a field's value is not allowed",
    "out_of_range": "a number is outside its range",
    "missing_parent": "a job it depends on is unknown",
    "dependency_cycle": "jobs depend on each other in a circle",
    # why a job waits
    "unjudged": "submitted, not looked at by a leader yet",
    "held": "held until released",
    "dependency": "waits for other jobs",
    "backoff": "waits before its next try",
    "no_nodes": "no node can take work",
    "driver": "no node offers its driver",
    "cpu": "not enough free cpu on any node",
    "memory": "not enough free memory on any node",
    "gpu": "not enough free GPUs on any node",
    "gpu_model": "no node has a GPU of the model it asks for",
    "cordoned": "the node is cordoned",
    "node_labels": "no node has the labels it asks for",
    "taint": "every node has a taint it does not tolerate",
    "spot": "it may not run on spot nodes, and only those are left",
    "price": "every node is dearer than it pays",
    "per_node": "every node has as many of its group as it allows (max_per_node)",
    "resources": "no node has all it asks for free at once",
    "too_big": "no node is large enough, even when empty",
    "quota": "its tenant holds as much as it may",
    "lent_out": "what its tenant owns is held by others of its cohort",
    "budget": "its tenant has spent its budget",
    "gang_forming": "its gang starts when all members fit at once",
    "reserved": "it does not fit now; a place is reserved for later",
    "backfill": "it fits now, but would delay a job that is ahead",
    "promised": "others give way to it",
    "turn": "it fits; others are ahead, or its round is under way",
    "node_unknown": "its node is cut off and nobody can say whether it still runs",
    # how a job or run ended
    "exit_code": "exited with a non-zero code",
    "out_of_memory": "killed by the kernel: over its memory limit",
    "image_missing": "the image does not exist or may not be pulled",
    "image_pull_failed": "the image could not be pulled",
    "command_not_found": "the command does not exist in the image or on the node",
    "command_not_executable": "the command may not be executed",
    "volume_refused": "a volume is outside the node's allow-list",
    "network_refused": "the network mode is not allowed on this node",
    "engine_error": "the container engine refused the run",
    "agent_too_old": "the node's agent cannot read the job's assignment; upgrade the agent",
    "engine_lost": "the container engine went away and nobody saw how the run ended",
    "killed": "killed by a signal nobody here sent",
    "max_runtime": "ran longer than max_runtime",
    "queue_timeout": "waited longer than queue_timeout",
    "aborted": "abort was requested",
    "dependency_failed": "a job it depends on did not succeed",
    "gang_timeout": "its gang could not form in queue_timeout",
    "gang_failed": "a member of its gang did not succeed",
    "members_failed": "members of the array did not succeed",
    "node_lost": "its node was lost more often than max_lost allows",
    "node_gone": "its node was lost",
    "restarted": "the agent restarted and no longer had the run",
    "fenced": "stopped by the node's leash: the agent was cut off",
    "drained": "stopped to empty its node",
    "preempted": "stopped in favour of another job",
    "requeued": "put back on request",
    "gang": "stopped to start again together with its gang",
    "unwanted": "its assign was overtaken by another event",
    "session_over": "assigned to a session that was over",
    # why a session is refused
    "name_taken": "another machine holds a live session under this node name",
    "timers": "the node's timers do not fit the scheduler's",
    "bad_inventory": "the capacity it declares is not possible",
}


def explain_reason(code: str) -> str:
    """The sentence for a reason code; the code itself when it is unknown (newer log)."""
    return REASONS.get(code, code)


def in_words(code: str, detail: str) -> str:
    """Why, for people: the words recorded with the code, else its sentence."""
    return detail if detail and detail != code else explain_reason(code)
