"""Metrics for Prometheus, read from a follower's state when somebody asks, and kept nowhere.

Names are stable. Labels have few values, whatever users do: tenants and GPU models beyond the largest
are added up under `_other`, which no id can be. What a state cannot know, schedulers say of
themselves (`eventsched.asking.ask_replicas`); it counts from the start of their processes.

    reports = await ask_replicas(client.link)
    body = render(follower.state, follower.now_ms(), lag=follower.pending, replicas=reports)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from eventsched import __version__
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.views.census import Census, take_census
from eventsched.query import ReplicaReport

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
LABELS_MAX = 50
OTHER = "_other"
SELF = "_http"
"""The replica of the process that answers, among those of schedulers: no id begins like this."""
_NANOS = 1_000_000_000


def render(
    state: ClusterState,
    now_ms: int,
    *,
    lag: int = 0,
    mismatches: int = 0,
    replicas: Sequence[ReplicaReport] = (),
    labels_max: int = LABELS_MAX,
) -> bytes:
    """All metrics as text. lag, mismatches: of the replica `state` belongs to."""
    registry = CollectorRegistry()
    own = ReplicaReport(SELF, "follower", state.seq, lag=max(0, lag), digest_mismatches=mismatches)
    registry.register(_Scrape(state, now_ms, [*replicas, own], labels_max))
    return generate_latest(registry)


class _Scrape(Collector):
    """One look at a state."""

    def __init__(self, state: ClusterState, now_ms: int, replicas: Sequence[ReplicaReport], labels_max: int) -> None:
        self._state = state
        self._now_ms = now_ms
        self._replicas = replicas
        self._labels_max = labels_max

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not look at the state."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        census = take_census(self._state, self._now_ms)
        yield from self._queue(census)
        yield from self._work()
        yield from self._capacity(census)
        yield from self._log()
        yield from self._rounds()

    # ---- jobs -------------------------------------------------------------------------------------

    def _queue(self, census: Census) -> Iterator[Metric]:
        depth = self._largest(census.waiting)
        yield _gauge("queue_jobs", "Jobs without a run.", "tenant", depth)
        oldest = GaugeMetricFamily(
            "eventsched_queue_oldest_wait_seconds",
            "Time since the submission of the oldest job that waits, and neither is held nor waits for others.",
            labels=["tenant"],
        )
        waits: dict[str, int] = {}
        for tenant, since_ms in census.oldest_ms.items():
            shown = tenant if tenant in depth else OTHER
            waits[shown] = max(waits.get(shown, 0), self._now_ms - since_ms)
        for tenant, wait_ms in sorted(waits.items()):
            oldest.add_metric([tenant], wait_ms / 1000)
        yield oldest
        yield _gauge("jobs", "Jobs that have not ended.", "state", census.jobs)
        yield _gauge("runs", "Open runs.", "state", census.runs)
        yield _counter("jobs_ended", "Jobs that have ended.", "outcome", self._state.ended)
        spent = self._largest(census.spent_micros)
        yield _counter("tenant_spent_micros", "Cost of all runs, in millionths of the currency.", "tenant", spent)
        yield _counter("spent_micros", "Cost of all runs of all tenants.", "", {"": sum(census.spent_micros.values())})

    def _work(self) -> Iterator[Metric]:
        state = self._state
        yield _counter("rounds", "Rounds of decisions in the log.", "", {"": state.rounds})
        yield _counter("anomalies", "Events that contradicted the state, or were none.", "kind", state.anomalies)
        yield _counter("late_reports", "Reports about runs that were over.", "", {"": state.late_reports})
        yield _counter("void_assigns", "Assignments that were void when they were read.", "", {"": state.void_assigns})

    # ---- machines -----------------------------------------------------------------------------------

    def _capacity(self, census: Census) -> Iterator[Metric]:
        yield _gauge("agents", "Nodes.", "state", census.nodes)
        ages: dict[str, int] = {}
        for report in self._replicas:
            for shown, age_ms in report.heartbeat_age_ms.items():
                ages[shown] = max(ages.get(shown, 0), age_ms)
        oldest = GaugeMetricFamily(
            "eventsched_agent_heartbeat_age_max_seconds",
            "Time since the last heartbeat of the most silent node in that state.",
            labels=["state"],
        )
        for shown, age_ms in sorted(ages.items()):
            oldest.add_metric([shown], age_ms / 1000)
        yield oldest
        cpu, memory = census.cpu_millis, census.memory_bytes
        yield GaugeMetricFamily("eventsched_cpu_cores", "Cores of usable nodes.", cpu.total / 1000)
        yield GaugeMetricFamily("eventsched_cpu_cores_allocated", "Cores held by runs.", cpu.held / 1000)
        yield GaugeMetricFamily("eventsched_memory_bytes", "Memory of usable nodes.", memory.total)
        yield GaugeMetricFamily("eventsched_memory_allocated_bytes", "Memory held by runs.", memory.held)
        models = self._largest({model: stock.total for model, stock in census.gpu_millis.items()})
        total, held = dict.fromkeys(models, 0), dict.fromkeys(models, 0)
        for model, stock in census.gpu_millis.items():
            shown = model if model in models else OTHER
            total[shown] += stock.total
            held[shown] += stock.held
        yield _gauge("gpus", "GPUs of usable nodes.", "model", total, 1000)
        yield _gauge("gpus_allocated", "GPUs held by runs; a shared one counts by its shares.", "model", held, 1000)

    # ---- the log and its replicas -----------------------------------------------------------------

    def _log(self) -> Iterator[Metric]:
        info = InfoMetricFamily("eventsched_cluster", "The cluster, and what decides in it.")
        state = self._state
        policy = f"{state.policy.name}/{state.policy.version}"
        info.add_metric(
            [], {"cluster": state.cluster_id, "leader": state.leader, "policy": policy, "version": __version__}
        )
        yield info
        head = max(report.seq + report.lag for report in self._replicas)
        by_name = {report.scheduler: report for report in self._replicas}
        yield GaugeMetricFamily("eventsched_log_events", "Events in the log, as far as any replica knows.", head)
        folded = {name: report.seq for name, report in by_name.items()}
        yield _gauge("replica_folded_events", "Events a replica has folded.", "replica", folded)
        lags = {name: head - seq for name, seq in folded.items()}
        yield _gauge("replica_lag_events", "Events a replica has not folded yet.", "replica", lags)
        leading = {name: int(report.role == "leading") for name, report in by_name.items() if name != SELF}
        yield _gauge("replica_leading", "1 for the scheduler that leads.", "replica", leading)
        wrong = {name: report.digest_mismatches for name, report in by_name.items()}
        yield _counter("digest_mismatches", "Digests that differ from the log's: a replica is wrong.", "replica", wrong)

    def _rounds(self) -> Iterator[Metric]:
        schedulers = {one.scheduler: one for one in self._replicas if one.scheduler != SELF}
        placed = {name: report.placements for name, report in schedulers.items()}
        yield _counter("placements", "Runs placed, since the scheduler began.", "replica", placed)
        decide = SummaryMetricFamily(
            "eventsched_round_decide_seconds", "Time to decide a round, since the scheduler began.", labels=["replica"]
        )
        commit = SummaryMetricFamily(
            "eventsched_round_commit_seconds",
            "Time to have a round stored by the log, since the scheduler began.",
            labels=["replica"],
        )
        for name, report in sorted(schedulers.items()):
            decide.add_metric([name], report.rounds, report.decide_ns / _NANOS)
            commit.add_metric([name], report.rounds, report.commit_ns / _NANOS)
        yield decide
        yield commit

    def _largest(self, values: Mapping[str, int]) -> dict[str, int]:
        """The largest by value (then by name), and the sum of the rest under `_other`."""
        ranked = sorted(values, key=lambda name: (-values[name], name))
        kept = {name: values[name] for name in sorted(ranked[: self._labels_max])}
        rest = ranked[self._labels_max :]
        return kept | {OTHER: sum(values[name] for name in rest)} if rest else kept


def _gauge(name: str, text: str, label: str, values: Mapping[str, int], per: int = 1) -> Metric:
    family = GaugeMetricFamily(f"eventsched_{name}", text, labels=[label])
    for value, amount in sorted(values.items()):
        family.add_metric([value], amount / per)
    return family


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    """Label "": a lone number."""
    family = CounterMetricFamily(f"eventsched_{name}", text, labels=[label] if label else [])
    for value, amount in sorted(values.items()):
        family.add_metric([value] if label else [], amount)
    return family
