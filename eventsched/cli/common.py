"""What the verbs share: the connection's options, output formats, parsing of typed values."""

from __future__ import annotations

import getpass
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter, Token

from eventsched.client import Client
from eventsched.errors import InvalidSpec
from eventsched.log.link import LinkOptions
from eventsched.outputs import OutputChunk
from eventsched.settings import DEFAULT_TENANT, link_options
from eventsched.visible import visible_json

CONNECT_TIMEOUT_S = 2
BIG = 2**53
"""No number of ours is larger: beyond it JSON readers begin to round."""


def number(low: int, high: int) -> Parameter:
    """An integer from `low` to `high`, in digits: nothing is rounded, and errors name the option."""

    def convert(type_: Any, tokens: Sequence[Token]) -> int:
        text = tokens[0].value
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
            raise ValueError(f"{text!r} is not a whole number")
        if not low <= int(text) <= high:
            raise ValueError(f"{text} is not between {low} and {high}" if high < BIG else f"{text} is less than {low}")
        return int(text)

    return Parameter(converter=convert)


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


async def now_ms(client: Client) -> int:
    """The time by the cluster's clock: a manual one stands where it was set."""
    stats = await client.stats()
    return stats.clock_ms if stats.clock_mode == "manual" else int(time.time() * 1000)


def user() -> str:
    """Who types; "" where the system has no name for them."""
    with suppress(Exception):
        return getpass.getuser()
    return ""


def print_chunk(chunk: OutputChunk) -> None:
    """A piece of a job's output, as it is, on the stream it came from."""
    target = sys.stderr if chunk.stream == "stderr" else sys.stdout
    target.buffer.write(chunk.data)
    target.buffer.flush()


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(visible_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()) + "\n")


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """`["A=1", "B=2"]` as a dict; InvalidSpec naming the option."""
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InvalidSpec(f"{option}: {text!r} is not NAME=VALUE")
        found[name] = value
    return found
