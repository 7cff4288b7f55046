"""Credentials against a real server that asks for them: seeds of nkeys, given as such or as files, and creds files."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

import nkeys
import pytest

from eventsched.errors import NoServer, SettingsError
from eventsched.log.link import LinkOptions, connect
from eventsched.nats_server import NatsServer

from ..servers import running


def _pair(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), prefix))


def _jwt(subject: nkeys.KeyPair, issuer: nkeys.KeyPair, name: str, claims: dict[str, Any]) -> str:
    """A token as the `nsc` tool makes them."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    body: dict[str, Any] = {
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": name,
        "nats": {**claims, "version": 2},
    }
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    signed = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body)}"
    return f"{signed}.{base64.urlsafe_b64encode(issuer.sign(signed.encode())).decode().rstrip('=')}"


class _Asking(NatsServer):
    """A server whose users are what a test says."""

    users = ""

    def _conf(self) -> str:
        return f"server_name: {self.name}\nlisten: 127.0.0.1:{self.port}\n{self.users}\n"


def _asking(tmp_path: Path, users: str) -> _Asking:
    server = _Asking(tmp_path / "nats")
    server.users = users
    return server


async def test_a_seed_is_taken_as_text_and_as_a_file(tmp_path: Path) -> None:
    user, other = _pair(nkeys.PREFIX_BYTE_USER), _pair(nkeys.PREFIX_BYTE_USER)
    file = tmp_path / "user.nk"
    file.write_text(f"# of the scheduler\n{user.seed.decode()}\n")
    users = f"authorization {{ users: [ {{ nkey: {user.public_key.decode()} }} ] }}"
    async with running(_asking(tmp_path, users)) as server:
        for given in (user.seed.decode(), f"{user.seed.decode()}\n", str(file)):
            link = await connect(LinkOptions(url=server.url, nkey_seed=given), "test")
            assert link.connected.is_set()
            await link.close()
        with pytest.raises(NoServer, match="refuses these credentials"):
            await connect(LinkOptions(url=server.url, nkey_seed=other.seed.decode()), "test")


async def test_a_creds_file_is_taken(tmp_path: Path) -> None:
    operator, account, user = (
        _pair(prefix) for prefix in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    accounts = _jwt(account, operator, "A", {"type": "account", "limits": {**unlimited, "wildcards": True}})
    token = _jwt(user, account, "u", {"type": "user", "subs": -1, "data": -1, "payload": -1})
    creds = tmp_path / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    users = (
        f"operator: {_jwt(operator, operator, 'O', {'type': 'operator'})}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account.public_key.decode()}: {accounts} }}"
    )
    async with running(_asking(tmp_path, users)) as server:
        link = await connect(LinkOptions(url=server.url, credentials_file=str(creds)), "test")
        assert link.connected.is_set()
        await link.close()


@pytest.mark.parametrize("seed", ["SUAnonsense", "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ7BFDTJ7M6USDXIEDNPPQYYYCU3VW", ""])
async def test_what_is_no_seed_is_said_to_be_none(tmp_path: Path, seed: str) -> None:
    file = tmp_path / "seed"
    file.write_text(seed)
    for given in filter(None, (seed, str(file))):
        with pytest.raises(SettingsError, match="EVENTSCHED_NATS_NKEY_SEED"):
            await connect(LinkOptions(nkey_seed=given), "test")
