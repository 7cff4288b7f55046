"""Settings: where the server is and with which rights, from options, environment or a running `dev`.

The server is found by an explicit URL, else `EVENTSCHED_NATS`, else the state file of a running
`eventsched dev` (in `.eventsched` here or in a directory above), else 127.0.0.1:4222.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from eventsched.errors import SettingsError
from eventsched.log.link import LinkOptions
from eventsched.nats_server import process_alive

DATA_DIR = ".eventsched"
STATE_FILE = "dev.json"
DEFAULT_TENANT = "default"
_LINK_ENV = {
    "EVENTSCHED_NATS_USER": "user",
    "EVENTSCHED_NATS_PASSWORD": "password",
    "EVENTSCHED_NATS_TOKEN": "token",
    "EVENTSCHED_NATS_CREDS": "credentials_file",
    "EVENTSCHED_NATS_NKEY_SEED": "nkey_seed",
    "EVENTSCHED_NATS_CA": "tls_ca",
    "EVENTSCHED_NATS_CERT": "tls_cert",
    "EVENTSCHED_NATS_KEY": "tls_key",
}


class DevState(msgspec.Struct):
    """What a running `eventsched dev` says of itself in its state file."""

    pid: int
    nats: str
    http: str = ""
    data: str = ""


def find_dev(start: Path | None = None) -> DevState | None:
    """The running dev of this directory or one above; None when there is none (or it is dead)."""
    here = (start or Path.cwd()).resolve()
    for directory in (here, *here.parents):
        state = read_dev_state(directory / DATA_DIR)
        if state is not None:
            return state
    return None


def read_dev_state(data: Path) -> DevState | None:
    """The state file in a data directory, if its process lives."""
    try:
        state = msgspec.json.decode((data / STATE_FILE).read_bytes(), type=DevState)
    except (OSError, msgspec.MsgspecError):
        return None
    return state if process_alive(state.pid) else None


def link_options(url: str | None = None, environment: Mapping[str, str] = os.environ) -> LinkOptions:
    """How to reach the server; see the module's text for the order."""
    given: dict[str, Any] = {field: environment[name] for name, field in _LINK_ENV.items() if environment.get(name)}
    chosen = url or environment.get("EVENTSCHED_NATS")
    if not chosen:
        dev = find_dev()
        chosen = dev.nats if dev is not None else "nats://127.0.0.1:4222"
    return LinkOptions(url=chosen, **given)


def data_directory(given: str, part: str) -> Path:
    """Where a service keeps its files: as given, else below /var/lib or the user's state directory."""
    if given:
        return Path(given).resolve()
    if os.geteuid() == 0:
        return Path("/var/lib/eventsched") / part
    return Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")) / "eventsched" / part


@contextmanager
def usable_data(data: Path) -> Iterator[None]:
    """What keeps a data directory from being used is a wrong setting: SettingsError with the reason."""
    try:
        yield
    except OSError as error:
        no_directory = isinstance(error, FileExistsError | NotADirectoryError)
        why = "is no directory" if no_directory else f"cannot be used: {error.strerror}"
        raise SettingsError(f"--data: {data} {why}", "name a directory you may write to, or a new one") from error
