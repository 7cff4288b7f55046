"""What the verbs share: the connection's options, output formats, parsing of typed values."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from eventsched.client import Client
from eventsched.errors import InvalidSpec
from eventsched.log.link import LinkOptions
from eventsched.settings import DEFAULT_TENANT, link_options

CONNECT_TIMEOUT_S = 2

Format = Literal["table", "json"]
Output = Annotated[Format, Parameter(name=["--output", "-o"], help="table or json")]


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Which cluster, and as whom."""

    nats: Annotated[
        str | None, Parameter(help="URL of the NATS server", env_var="EVENTSCHED_NATS", show_env_var=True)
    ] = None
    tenant: Annotated[str, Parameter(name=["--tenant", "-t"], env_var="EVENTSCHED_TENANT", help="tenant")] = ""


@asynccontextmanager
async def connected(where: Where) -> AsyncIterator[Client]:
    """A client for the cluster meant; closed at the end."""
    client = await Client.connect(options=reach(where), tenant=where.tenant or DEFAULT_TENANT)
    try:
        yield client
    finally:
        await client.close()


def reach(where: Where) -> LinkOptions:
    """How to reach the server, without the patience of a service: somebody waits at a terminal."""
    return msgspec.structs.replace(link_options(where.nats), connect_timeout_s=CONNECT_TIMEOUT_S)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """`["A=1", "B=2"]` as a dict; InvalidSpec naming the option."""
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InvalidSpec(f"{option}: {text!r} is not NAME=VALUE")
        found[name] = value
    return found
