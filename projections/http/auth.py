"""Who may do what: bearer tokens, each of a tenant and a role.

    viewer     reads its tenant's jobs
    submitter  submits and steers them too
    operator   everything, for every tenant

Tokens stand in a TOML file (`[[token]] token = "…" tenant = "acme" role = "submitter"`). Without
one the service listens on loopback only; there a request without a token is the operator's, unless
a web page sent it: foreign `Host` and `Origin` are refused, as any page can reach loopback.
"""

from __future__ import annotations

import hmac
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec
from litestar.connection import ASGIConnection
from msgspec import Struct

from eventsched.errors import SettingsError
from eventsched.ids import ID_RULE, is_id
from eventsched.projections.http.errors import ApiError

Role = Literal["viewer", "submitter", "operator"]
_RANK = {"viewer": 0, "submitter": 1, "operator": 2}
TOKEN_LENGTH_MIN = 16
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Caller(Struct, frozen=True):
    """Who asks. tenant "": any (operators)."""

    tenant: str
    role: Role

    def may(self, role: Role) -> bool:
        """True when the caller has this role or a higher one."""
        return _RANK[self.role] >= _RANK[role]

    def require(self, role: Role) -> None:
        """ApiError 403 when the caller has not at least this role."""
        if not self.may(role):
            raise ApiError(403, "FORBIDDEN", f"a {self.role} may not do this; it needs the role {role}")

    def sees(self, tenant: str) -> bool:
        """True when the caller may know about this tenant's jobs."""
        return self.role == "operator" or self.tenant == tenant


OPERATOR = Caller("", "operator")


class Token(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the tokens' file."""

    token: str
    role: Role = "submitter"
    tenant: str = ""

    @property
    def caller(self) -> Caller:
        """Who shows this token."""
        return Caller("" if self.role == "operator" else self.tenant, self.role)


class _File(Struct, forbid_unknown_fields=True):
    token: list[Token]


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file. Raises SettingsError naming what is wrong; never shows a token."""
    try:
        parsed = msgspec.convert(tomllib.loads(path.read_text()), _File)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"{path}: {error}", "write [[token]] tables with token, role and tenant") from error
    if not parsed.token:
        raise SettingsError(f"{path} holds no token")
    for number, one in enumerate(parsed.token, 1):
        if len(one.token) < TOKEN_LENGTH_MIN:
            raise SettingsError(f"{path}, token {number}: at least {TOKEN_LENGTH_MIN} characters")
        if one.role != "operator" and not is_id(one.tenant):
            raise SettingsError(f"{path}, token {number}: tenant {one.tenant[:80]!r} is not an id", ID_RULE)
    return parsed.token


class Gate:
    """Turns a request into a caller.

    tokens: who is known. open_on_loopback: a request without a token is the operator's.
    """

    def __init__(self, tokens: list[Token], *, open_on_loopback: bool) -> None:
        self._callers = [(one.token.encode(), one.caller) for one in tokens]
        self._open = open_on_loopback

    def caller(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
        """Who asks. Raises ApiError 401 or 403."""
        shown = connection.headers.get("authorization")
        if shown is not None:
            scheme, _, given = shown.partition(" ")
            known = self._known(given.strip()) if scheme.lower() == "bearer" else None
            if known is None:
                raise _unauthorized("this token is not known")
            return known
        if not self._open:
            raise _unauthorized("a bearer token is needed")
        if not _is_local(connection.headers.get("host", "")):
            raise ApiError(403, "FOREIGN_HOST", "without a token the Host must be localhost")
        origin = connection.headers.get("origin", "")
        if origin and not _is_local(origin.partition("://")[2]):
            raise ApiError(403, "FOREIGN_ORIGIN", "without a token requests of other sites are refused")
        return OPERATOR

    def _known(self, given: str) -> Caller | None:
        found = None
        for token, caller in self._callers:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(token, given.encode()):
                found = caller
        return found


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, "UNAUTHORIZED", message, WWW_Authenticate="Bearer")


def _is_local(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() and name else host).lower() in _LOOPBACK
