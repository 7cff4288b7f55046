"""The event catalogue: every fact that may stand in the log.

`jobs` (clients), `admin` (operators), `nodes` and `runs` (agents), `decisions` (the leader).
`catalogue` says which subject carries which Struct.
"""

from eventsched.events.admin import (
    ClockSet,
    ClusterCreated,
    NodeCordoned,
    NodeDrained,
    NodeUncordoned,
    PolicySet,
    TenantSet,
    TimersSet,
)
from eventsched.events.decisions import (
    Admitted,
    Concluded,
    Conclusion,
    DigestRecorded,
    FinishOrdered,
    FoldRaised,
    LeaderClaimed,
    NodeLost,
    NodeRecovered,
    NodeSuspected,
    Order,
    Owed,
    PolicyJudged,
    Rejection,
    RunAssigned,
    SessionOpened,
    SessionRefused,
    StopOrdered,
)
from eventsched.events.jobs import (
    AbortRequested,
    CompleteRequested,
    HoldRequested,
    Keyed,
    ReleaseRequested,
    RequeueRequested,
)
from eventsched.events.nodes import NodeEvent, NodeJoined, NodeLeaving, NodeLeft
from eventsched.events.runs import RunEnded, RunEvent, RunStarted, RunStarting

__all__ = [
    "AbortRequested",
    "Admitted",
    "ClockSet",
    "ClusterCreated",
    "CompleteRequested",
    "Concluded",
    "Conclusion",
    "DigestRecorded",
    "FinishOrdered",
    "FoldRaised",
    "HoldRequested",
    "Keyed",
    "LeaderClaimed",
    "NodeCordoned",
    "NodeDrained",
    "NodeEvent",
    "NodeJoined",
    "NodeLeaving",
    "NodeLeft",
    "NodeLost",
    "NodeRecovered",
    "NodeSuspected",
    "NodeUncordoned",
    "Order",
    "Owed",
    "PolicyJudged",
    "PolicySet",
    "TenantSet",
    "Rejection",
    "ReleaseRequested",
    "RequeueRequested",
    "RunAssigned",
    "RunEnded",
    "RunEvent",
    "RunStarted",
    "RunStarting",
    "SessionOpened",
    "SessionRefused",
    "StopOrdered",
    "TimersSet",
]
