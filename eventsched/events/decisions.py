"""What only the leader writes: claims (`ev.leader`), orders to a node (`ev.assign.<node>`,
told apart by `type`) and verdicts (`ev.decide.<kind>`, picked by the kind).

The recorded decision is the command: an agent acts on what stands in the log, nothing else.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct, field

from eventsched.wire import Decision, Event, Int


class LeaderClaimed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A scheduler takes the lead; the sequence of this event is its epoch.

    nonce: tells this claim from another attempt of the same scheduler.
    """

    leader: str
    nonce: str = ""
    version: str = ""


# ---- orders to a node -------------------------------------------------------------------


class RunAssigned(Decision, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="run.assigned"):
    """Run this job's next attempt here. The sequence of this event is the run's id and fence.

    session: void for any other session of the node. member: index in an array, or -1.
    cpu_millis, memory_bytes, gpus: what the run holds; GPUs as exact devices (UUIDs).
    gpu_millis: it holds only this share of its one device; 0 = whole devices.
    gang_head: node of the gang's first member, for its rendezvous; "" = no gang.
    spec: the job's spec, as JSON, for the agent.
    score, runner_up, feasible: why this node (higher score is better; the second best node;
    how many nodes could have taken it). runner_up_score: the points of that one.
    terms: what the score is the sum of, where it has several terms.
    """

    session: Int
    tenant: str
    job: str
    member: Int = -1
    attempt: Int = 1
    cpu_millis: Int = 0
    memory_bytes: Int = 0
    gpus: tuple[str, ...] = ()
    gpu_millis: Int = 0
    gang_head: str = ""
    score: Int = 0
    terms: dict[str, Int] = field(default_factory=dict)
    runner_up: str = ""
    runner_up_score: Int = 0
    feasible: Int = 0
    spec: Raw = Raw(b"{}")


class StopOrdered(Decision, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="run.stop_ordered"):
    """Stop this run: SIGTERM, the job's grace, SIGKILL. detail: in whose favour, for people.

    in_favour_of: the waiting job (`<tenant>/<job>`) its place is kept for, when it gives way to one.
    """

    run: Int
    reason: str
    detail: str = ""
    in_favour_of: str = ""


class FinishOrdered(
    Decision, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="run.finish_ordered"
):
    """End this run of the manual driver with an exit code."""

    run: Int
    exit_code: Int = 0


class Owed(Struct, frozen=True, omit_defaults=True):
    """One order a node still owes when its agent starts: stop `run` for `reason`."""

    run: Int
    reason: str


class SessionOpened(Decision, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="session.opened"):
    """The join is accepted. `runs` are those the log still counts as this node's; stop any other.

    owed: orders that were recorded before and are not carried out yet.
    """

    session: Int
    runs: tuple[Int, ...] = ()
    owed: tuple[Owed, ...] = ()


class SessionRefused(Decision, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="session.refused"):
    """The join is refused; `reason` and `detail` say why."""

    session: Int
    reason: str
    detail: str = ""


class NodeSuspected(Decision, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="node.suspected"):
    """Silent for a while: no new runs until it is heard again. Evidence as in `NodeLost`."""

    session: Int
    hb_seq: Int = 0
    silent_ms: Int = 0


class NodeRecovered(Decision, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="node.recovered"):
    """Heard again before it was given up; `hb_seq` is the heartbeat."""

    session: Int
    hb_seq: Int = 0


class NodeLost(Decision, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="node.lost"):
    """Given up: the session is over, its leash has stopped the runs.

    Evidence: the last heartbeat heard (`hb_seq` in HB), how long ago by the leader's clock
    (`silent_ms`), and the marker in HB up to which the leader had read when it judged.
    """

    session: Int
    hb_seq: Int = 0
    silent_ms: Int = 0
    marker_seq: Int = 0


Order = (
    RunAssigned
    | StopOrdered
    | FinishOrdered
    | SessionOpened
    | SessionRefused
    | NodeSuspected
    | NodeRecovered
    | NodeLost
)

# ---- verdicts ---------------------------------------------------------------------------


class Rejection(Struct, frozen=True, omit_defaults=True):
    """One submission (by its sequence) that is refused, and why."""

    seq: Int
    code: str
    path: str = ""
    detail: str = ""


class Admitted(Decision, frozen=True, kw_only=True, omit_defaults=True):
    """Every submission up to `upto` not judged before is accepted, but for `rejected`.

    An assign of a job that was not judged yet accepts it too.
    """

    upto: Int
    rejected: tuple[Rejection, ...] = ()


class Conclusion(Struct, frozen=True, omit_defaults=True):
    """One waiting job that ends without a run."""

    tenant: str
    job: str
    member: Int = -1
    state: Literal["expired", "aborted", "failed"] = "aborted"
    reason: str = ""
    detail: str = ""


class Concluded(Decision, frozen=True, kw_only=True, omit_defaults=True):
    """Waiting jobs that end without a run: queue time-out, a parent that failed."""

    jobs: tuple[Conclusion, ...]


class PolicyJudged(Decision, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to the `policy_set` at sequence `request`: adopted, or refused with a reason."""

    request: Int
    name: str
    version: Int = 0
    chosen: dict[str, Int | str] = field(default_factory=dict)
    refused: str = ""


class Ticked(Decision, frozen=True, kw_only=True, omit_defaults=True):
    """What the setting of a manual clock at sequence `clock` let start is placed; the rest waits for the next."""

    clock: Int


class DigestRecorded(Decision, frozen=True, kw_only=True, omit_defaults=True):
    """The digest of the state after folding sequence `at_seq`: a lone fenced write."""

    at_seq: Int
    digest: str


class FoldRaised(Decision, frozen=True, kw_only=True, omit_defaults=True):
    """From here on the fold behaves as `fold_version` says; a replica that lacks it stops."""

    fold_version: Int


Verdict = Admitted | Concluded | PolicyJudged | Ticked | DigestRecorded | FoldRaised
