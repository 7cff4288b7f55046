"""From settings to what nats-py wants to know of servers, credentials and TLS, checked before it is used.

nats-py reads these files while it connects, and a missing one looks like a server that is not
there; one without the marks it looks for keeps it reading for ever.
"""

from __future__ import annotations

import base64
import re
import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eventsched.errors import SettingsError

if TYPE_CHECKING:
    from eventsched.log.link import LinkOptions

CREDS, SEED = "EVENTSCHED_NATS_CREDS", "EVENTSCHED_NATS_NKEY_SEED"
CA, CERT, KEY = "EVENTSCHED_NATS_CA", "EVENTSCHED_NATS_CERT", "EVENTSCHED_NATS_KEY"
_SEED = re.compile(r"SU[A-Z2-7]{56}")


def server_urls(text: str) -> list[str]:
    """URLs of servers, separated by commas. Raises SettingsError for what is no URL of one."""
    urls = text.split(",")
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            usable = parts.scheme in ("nats", "tls", "ws", "wss") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port beyond 65535, a bracket left open
            usable = False
        if not usable:  # where an "@" is, any part of the text may be a secret's, as secrets may hold commas and colons
            what = "one of the URLs given" if "@" in text else repr(url)
            raise SettingsError(f"{what} is no URL of a NATS server", "--nats and EVENTSCHED_NATS: nats://HOST:PORT")
    return urls


def without_secrets(urls: str) -> str:
    """URLs as people may see them: without users, passwords and tokens; "…" where a comma may be a secret's."""
    try:
        server_urls(urls)
    except SettingsError:
        if "@" in urls and "," in urls:
            return "…"
    return ",".join(re.sub(r"^([a-z]+://)?.*@", r"\1", url, flags=re.DOTALL) for url in urls.split(","))


def connect_arguments(options: LinkOptions) -> dict[str, Any]:
    """Arguments for `nats.aio.client.Client.connect`. Raises SettingsError naming the setting."""
    arguments: dict[str, Any] = {
        "servers": server_urls(options.url),
        "user": options.user,
        "password": options.password,
        "token": options.token,
        "user_credentials": _credentials(options.credentials_file),
        "nkeys_seed_str": _seed(options.nkey_seed),
        "tls": _tls(options),
    }
    return {name: value for name, value in arguments.items() if value}


def _credentials(path: str) -> str:
    if path:
        _need_nkeys(CREDS)
        text = _read(path, CREDS)
        if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
            raise SettingsError(
                f"{CREDS}: {path} holds no user's JWT and seed", "`nsc generate creds` writes such a file"
            )
    return path


def _seed(given: str) -> str:
    """The seed itself: given as such, or as a file that holds it."""
    if not given:
        return ""
    _need_nkeys(SEED)
    seed = given.strip()
    if not _SEED.fullmatch(seed):  # a mistyped seed is a secret too: only what looks like a path is shown
        text = _read(given, SEED) if {"/", "."} & set(given) or Path(given).is_file() else ""
        seed = next((line.strip() for line in text.splitlines() if _SEED.fullmatch(line.strip())), "")
    if not seed or not _sum_fits(seed):
        raise SettingsError(f"{SEED} is no seed of a user, nor a file that holds one", "a seed has 58 characters: SU…")
    return seed


def _sum_fits(seed: str) -> bool:
    """A seed ends in a check sum, which nkeys does not look at: mistyped, it would be another user's."""
    import nkeys

    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    return int(nkeys.crc16(bytearray(raw[:-2]))) == int.from_bytes(raw[-2:], "little")


def _need_nkeys(setting: str) -> None:
    if find_spec("nkeys") is None:
        raise SettingsError(f"{setting} needs the package nkeys", "pip install 'nats-py[nkeys]'")


def _tls(options: LinkOptions) -> ssl.SSLContext | None:
    if not (options.tls_ca or options.tls_cert or options.tls_key):
        return None
    for setting, path in ((CA, options.tls_ca), (CERT, options.tls_cert), (KEY, options.tls_key)):
        if path:
            _read(path, setting)
    if options.tls_key and not options.tls_cert:
        raise SettingsError(f"{KEY} is set without {CERT}", f"set {CERT} to the certificate of that key")
    setting = CA
    try:
        context = ssl.create_default_context(cafile=options.tls_ca or None)
        setting = CERT
        if options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key or None, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        hint = "a PEM file is wanted" + (f", with its key in {KEY}" if setting == CERT else "")
        raise SettingsError(f"{setting} cannot be used: {error}", hint) from error
    return context


def _no_password() -> str:
    """OpenSSL would ask at the terminal, and a service has none."""
    raise ValueError("the key is encrypted")


def _read(path: str, setting: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{setting}: {path[:200]} cannot be read: {getattr(error, 'strerror', None) or error}",
            "name a readable file",
        ) from error
