"""How the simulated cluster is set up before anything happens: ids, tenants' limits, prices.

From a file as `eventsched dev --config` takes (`deploy/quota.toml`). Its clock and driver say nothing here:
time is virtual in any case, and nothing is really run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eventsched import subjects
from eventsched.dev.config import DevConfig, read_config
from eventsched.events import ClusterCreated, PriceSet, TenantSet
from eventsched.projections.simulation.workload import ENDLESS_CORES_MILLIS, Shape
from eventsched.tenancy import price_event, tenant_event
from eventsched.units import parse_cpus_millis, parse_gpus, parse_memory


@dataclass(frozen=True, slots=True)
class Setup:
    """What is recorded first. shape: of a node, where the file tells; policy: "" = it names none."""

    job_id_scope: Literal["tenant", "cluster"] = "tenant"
    quota_default: Literal["unlimited", "nothing"] = "unlimited"
    tenants: tuple[TenantSet, ...] = ()
    prices: PriceSet | None = None
    shape: Shape | None = None
    policy: str = ""

    def created(self, finished_keep: int) -> ClusterCreated:
        """The first event of the log."""
        return ClusterCreated(
            cluster_id="simulated",
            finished_keep=finished_keep,
            job_id_scope=self.job_id_scope,
            quota_default=self.quota_default,
        )

    def events(self) -> Iterator[tuple[str, TenantSet | PriceSet]]:
        """Subjects and events that follow it."""
        for tenant in self.tenants:
            yield subjects.admin("tenant_set"), tenant
        if self.prices is not None:
            yield subjects.admin("price_set"), self.prices


PLAIN = Setup()


def read_setup(path: Path) -> Setup:
    """The setup a file describes; raises SettingsError or InvalidSpec naming file and field."""
    config = read_config(path)
    return Setup(
        config.job_id_scope,
        config.quota_default,
        tuple(tenant_event(tenant=tenant, **limits) for tenant, limits in config.tenants.items()),
        price_event(**config.prices) if config.prices else None,
        _shape(config),
        config.policy,
    )


def _shape(config: DevConfig) -> Shape | None:
    if not (config.cpus or config.memory or config.gpus):
        return None
    devices: list[str] = []
    for part in config.gpus.split(",") if config.gpus else ():
        model, count = parse_gpus(part)
        devices += [model or "GPU"] * count
    cpus = parse_cpus_millis(config.cpus, "cpus") if config.cpus else ENDLESS_CORES_MILLIS
    return Shape(cpus, parse_memory(config.memory, "memory") if config.memory else 0, devices=tuple(devices))
