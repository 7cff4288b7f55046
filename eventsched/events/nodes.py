"""What an agent writes about its node: `ev.node.<node>`, told apart by `type`."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from eventsched.resources import Capacity
from eventsched.wire import Event, Int


class NodeJoined(Event, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="node.joined"):
    """An agent starts a session on this node; the sequence of this event names the session.

    machine_id, boot_id: which machine, and which start of it.
    runs: complete inventory of the runs this machine still has (running, or ended and unreported);
        every other run of the node is closed.
    drivers: the drivers it offers. labels: for jobs that ask for them. taints: keeps off jobs that do
        not tolerate them.
    spot: the machine may be taken away at short notice; hazard_ppm_per_h: how likely within an hour, in
        millionths. price_micros_per_h: what it costs, in millionths of the currency.
    leash: whether a separate process stops the runs when the
        agent is cut off for `fence_after_ms`; `stop_ms` is the longest that stopping them takes.
    """

    machine_id: str
    boot_id: str
    capacity: Capacity
    drivers: tuple[str, ...] = ("docker",)
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    spot: bool = False
    hazard_ppm_per_h: Int = 0
    price_micros_per_h: Int = 0
    runs: tuple[Int, ...] = ()
    leash: bool = False
    fence_after_ms: Int = 0
    stop_ms: Int = 0
    version: str = ""


class NodeLeaving(Event, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="node.leaving"):
    """The agent is about to end its session: it stops its runs, and takes no new ones.

    reason: `spot` when the machine is being taken away; its runs then count as preempted.
    """

    session: Int
    reason: Literal["", "spot"] = ""


class NodeLeft(Event, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="node.left"):
    """The agent ends its session in good order: it has no runs any more."""

    session: Int


NodeEvent = NodeJoined | NodeLeaving | NodeLeft
