"""Tables and blocks of text for people, drawn with rich.

Every cell is plain text with its control characters shown (`eventsched.visible`): names, labels and
reasons are typed by others, and neither the terminal nor rich's markup may obey them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from eventsched.reasons import in_words
from eventsched.units import format_bytes, format_cpus, format_money, format_ms
from eventsched.views import JobView, NodeView, PolicyView, Stats
from eventsched.visible import visible

COLOURS = {
    "pending": "yellow",
    "assigned": "cyan",
    "starting": "cyan",
    "running": "blue",
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "rejected": "red",
    "expired": "magenta",
    "aborted": "magenta",
    "ready": "green",
    "draining": "yellow",
    "drained": "cyan",
    "suspect": "yellow",
    "lost": "red",
    "left": "dim",
}
WIDE = 400


def show(content: RenderableType) -> None:
    """Print on stdout; where that is no terminal, as wide as needed and without trailing blanks."""
    screen = Console()
    if screen.is_terminal:
        screen.print(content)
        return
    wide = Console(width=WIDE)
    with wide.capture() as captured:
        wide.print(content)
    for line in captured.get().splitlines():
        print(line.rstrip())


def plain(*titles: str) -> Table:
    """An empty table without lines; only REASON may wrap."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=title != "REASON", overflow="fold" if title == "REASON" else "ellipsis")
    return table


def block() -> Table:
    """Names on the left, what they say on the right."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def row(table: Table, *cells: object) -> None:
    """A row of a table; what is not a `Text` is shown as plain text, control characters made visible."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(visible(cell)) for cell in cells))


def _state(state: str, more: str = "") -> Text:
    return Text.assemble((visible(state), COLOURS.get(state, "")), visible(more))


def clock(ms: int | None) -> str:
    """The time of day; with the date if that is not today. Milliseconds where there is no such date."""
    if not ms:
        return "-"
    try:
        at = datetime.fromtimestamp(ms / 1000)
    except (ValueError, OverflowError, OSError):
        return str(ms)
    return at.strftime("%H:%M:%S" if at.date() == datetime.now().date() else "%Y-%m-%d %H:%M")


def _ran(view: JobView, now_ms: int) -> str:
    if not view.started_ms:
        return "-"
    return format_ms(max(0, (view.finished_ms or now_ms) - view.started_ms))


def _why(view: JobView, explain: bool = False) -> str:
    """The code, and the words recorded with it; `explain`: the code's sentence where there are none."""
    words = in_words(view.reason, view.detail) if explain else view.detail
    return ": ".join(dict.fromkeys(part for part in (view.reason, words) if part))


def _members(view: JobView) -> str:
    return " ".join(f"{count} {state}" for state, count in view.members.items())


def jobs_table(views: Sequence[JobView], now_ms: int) -> Table:
    """One line a job, REASON last, as it is the longest. now_ms: by the cluster's clock."""
    table = plain("JOB", "TENANT", "STATE", "NODE", "TRY", "EXIT", "SUBMITTED", "RAN", "REASON")
    for view in views:
        reason = _members(view) if view.array and not view.reason else _why(view)
        job_id = f"{view.job_id}[{view.array}]" if view.array else view.job_id
        exit_code = "-" if view.exit_code is None else str(view.exit_code)
        rest = (
            view.node or "-",
            str(view.attempt or "-"),
            exit_code,
            clock(view.submitted_ms),
            _ran(view, now_ms),
            reason,
        )
        row(table, job_id, view.tenant, _state(view.state), *rest)
    return table


def job_block(view: JobView, now_ms: int) -> Table:
    """Everything about one job. now_ms: by the cluster's clock."""
    table = block()
    runs = ", ".join(f"{one.run} on {one.node}" for one in view.tries)
    asked = f"{format_cpus(view.cpu_millis)} cpus, memory {format_bytes(view.memory_bytes)}"
    if view.gpus:
        asked += f", {view.gpus} {view.gpu_model or 'GPU'}"
    rows: list[tuple[str, Any]] = [
        ("job", f"{view.tenant}/{view.job_id}" + (f"  ({view.name})" if view.name else "")),
        ("state", _state(view.state, f" ({view.run_state})" if view.run_state == "stopping" else "")),
        ("reason", _why(view, explain=True)),
        ("members", _members(view)),
        ("what", f"{' '.join([view.image, *view.command])}  ({view.driver})".strip()),
        ("asks", asked),
        ("node", view.node),
        ("attempt", _attempts(view)),
        ("runs", runs),
        ("exit code", "" if view.exit_code is None else view.exit_code),
        ("submitted", clock(view.submitted_ms) + (f"  by {view.submitted_by}" if view.submitted_by else "")),
        ("assigned", clock(view.assigned_ms)),
        ("started", clock(view.started_ms)),
        (
            "finished",
            clock(view.finished_ms) + (f"  after {_ran(view, now_ms)}" if view.finished_ms and view.started_ms else ""),
        ),
        ("waits for", ", ".join(view.waiting_on)),
        ("cost", format_money(view.cost_micros) if view.cost_micros else ""),
        ("labels", ", ".join(f"{name}={value}" for name, value in view.labels.items())),
        ("sequence", view.seq),
    ]
    for name, value in rows:
        if value not in ("", None):
            row(table, name, value)
    return table


def _attempts(view: JobView) -> str:
    """How often it was tried, and why more than once."""
    gave_way = f", gave way {view.evictions} times" if view.evictions > 1 else ", gave way once"
    counts = f"failures {view.failures}, losses {view.losses}{gave_way if view.evictions else ''}"
    return f"{view.attempt}  ({counts})" if view.attempt else ""


def _gpus(counts: dict[str, int]) -> str:
    return ",".join(f"{model}:{count}" for model, count in counts.items()) or "-"


def nodes_table(views: Sequence[NodeView]) -> Table:
    """One line a node: free / capacity."""
    table = plain("NODE", "STATE", "CPUS", "MEMORY", "GPUS", "RUNS", "DRIVERS", "LOAD", "HEARD")
    for view in views:
        note = " cordoned" if view.cordoned and not view.draining else ""
        if view.draining and view.state not in ("draining", "drained"):
            note = " draining"
        state = _state(view.state, note)
        free, capacity = view.free, view.capacity
        row(
            table,
            view.node,
            state,
            f"{format_cpus(free['cpu_millis'])}/{format_cpus(capacity['cpu_millis'])}",
            f"{format_bytes(free['memory_bytes'])}/{format_bytes(capacity['memory_bytes'])}",
            f"{_gpus(free['gpus'])}/{_gpus(capacity['gpus'])}" if capacity["gpus"] else "-",
            str(len(view.runs)),
            ",".join(view.drivers),
            "-" if view.cpu_percent is None else f"{view.cpu_percent:.0f}%",
            "-" if view.heartbeat_age_ms is None else f"{format_ms(view.heartbeat_age_ms)} ago",
        )
    return table


def node_runs_table(view: NodeView) -> Table:
    """The runs of one node, with what they use."""
    table = plain("RUN", "JOB", "STATE", "CPUS", "MEMORY", "GPUS", "CPU NOW", "MEMORY NOW")
    for run in view.runs:
        usage = view.usage.get(str(run["run"]), {})
        row(
            table,
            str(run["run"]),
            f"{run['tenant']}/{run['job_id']}",
            _state(run["state"]),
            format_cpus(run["cpu_millis"]),
            format_bytes(run["memory_bytes"]),
            str(len(run["gpus"]) or "-"),
            f"{usage['cpu_percent']:.0f}%" if "cpu_percent" in usage else "-",
            format_bytes(int(usage["memory_bytes"])) if "memory_bytes" in usage else "-",
        )
    return table


def stats_block(stats: Stats) -> Table:
    """The cluster in numbers."""
    table = block()

    def counts(values: dict[str, int]) -> str:
        return ", ".join(f"{count} {name}" for name, count in values.items()) or "none"

    used = stats.capacity["cpu_millis"] - stats.free["cpu_millis"]
    rows: list[tuple[str, str | Text]] = [
        ("cluster", f"{stats.cluster_id}  at sequence {stats.seq}"),
        ("leader", f"{stats.leader}  (epoch {stats.epoch}, {stats.rounds} rounds, policy {stats.policy})"),
        ("answered by", f"{stats.answered_by} ({stats.role})"),
        ("nodes", counts(stats.nodes)),
        ("cpus in use", f"{format_cpus(used)} of {format_cpus(stats.capacity['cpu_millis'])}"),
        ("GPUs free", f"{_gpus(stats.free['gpus'])} of {_gpus(stats.capacity['gpus'])}"),
        ("live jobs", counts(stats.jobs)),
        ("ended jobs", counts(stats.ended)),
        ("runs open", str(stats.runs)),
        ("anomalies", counts(stats.anomalies)),
        ("history", stats.history),
    ]
    if stats.digest_mismatches:
        text = f"{stats.digest_mismatches} do not match: this replica or the leader is wrong"
        rows.append(("DIGESTS", Text(text, style="red")))
    for one in stats.recent_anomalies[-5:]:
        rows.append(("", f"{one['seq']}: {one['kind']} {one['subject']} {one['detail']}"))
    for name, value in rows:
        row(table, name, value)
    return table


def policies_table(views: Sequence[PolicyView]) -> Table:
    """All policies."""
    table = plain("", "POLICY", "PARAMETERS", "WHAT IT DOES")
    for view in views:
        params = " ".join(f"{name}={value}" for name, value in view.params.items())
        row(table, "*" if view.current else "", f"{view.name}/{view.version}", params, view.summary)
    return table


def policy_block(view: PolicyView) -> Table:
    """One policy, stage by stage."""
    table = plain("", "")
    table.show_header = False
    rows = [("policy", f"{view.name}/{view.version}" + (" (decides now)" if view.current else "")), ("", view.summary)]
    rows += [(stage, f"{view.params.get(stage, '')}: {text}") for stage, text in view.stages.items()]
    rows += [(name, str(value)) for name, value in view.params.items() if name not in view.stages]
    for name, text in [*rows, ("ties", view.ties)]:
        row(table, name, text)
    return table
