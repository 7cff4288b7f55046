"""A file of settings for `eventsched dev`: what a cluster is like, and what its tenants may hold.

clock = "manual"
gpus = "A100:4,H100:2"
quota_default = "nothing"
policy = "quota-aging"

[tenants.t1]
gpu_models = { A100 = 2, H100 = 1 }

[prices]
core_micros_per_h = 40000
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct, field

from eventsched.errors import EventschedError, InvalidSpec, SettingsError
from eventsched.tenancy import price_event, tenant_event
from eventsched.views import PriceView

if TYPE_CHECKING:
    from eventsched.client import Client

Clock = Literal["wall", "manual"]
DriverName = Literal["docker", "process", "fake", "manual"]


class DevConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file may say; options of the command line go before it.

    clock, job_id_scope, quota_default: of a new cluster. quota_default: what tenants may hold of what no limit
    names. tenants: limits by tenant, as `TenantSet` has them; "*" is for all others. prices: as `PriceSet` has them.
    """

    clock: Clock = "wall"
    driver: DriverName | None = None
    gpus: str = ""
    cpus: str = ""
    memory: str = ""
    job_id_scope: Literal["tenant", "cluster"] = "tenant"
    quota_default: Literal["unlimited", "nothing"] = "unlimited"
    policy: str = ""
    prices: dict[str, Any] = field(default_factory=dict)
    tenants: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_config(path: Path | None) -> DevConfig:
    """The settings of a file. Raises SettingsError naming file and field."""
    if path is None:
        return DevConfig()
    try:
        config = msgspec.convert(tomllib.loads(path.read_text()), DevConfig)
        for tenant, limits in config.tenants.items():
            if "tenant" in limits:
                raise InvalidSpec(f"tenants.{tenant}.tenant: the heading names the tenant", "leave it out")
            tenant_event(tenant=tenant, **limits)
        price_event(**config.prices)
    except OSError as error:
        raise SettingsError(f"--config: {path} cannot be read: {error.strerror}", "name a readable file") from error
    except EventschedError as error:
        raise SettingsError(f"{path}: {error.message}", error.hint) from error
    except ValueError as error:  # tomllib's, msgspec's and those of decoding
        raise SettingsError(f"{path}: {error}", "it takes what `eventsched dev --help` and the docs name") from error
    except RecursionError as error:
        raise SettingsError(
            f"{path}: its values are nested too deep", "no setting needs more than three levels"
        ) from error
    return config


async def apply_config(client: Client, config: DevConfig) -> None:
    """Record what is not in force yet: a cluster that goes on keeps what was changed by hand."""
    known = {view.tenant for view in await client.tenants() if view.own_limits}
    for tenant, limits in config.tenants.items():
        if tenant not in known:
            await client.set_tenant(tenant, **limits)
    if config.prices and await client.prices() == PriceView():
        await client.set_prices(**config.prices)
    current = next((view.name for view in await client.policies() if view.current), "")
    if config.policy and not known and current != config.policy:
        await client.set_policy(config.policy)
