"""Whether the service lives, and whether it may be asked."""

from __future__ import annotations

from typing import Any

from litestar import get

from eventsched import __version__
from eventsched.projections.http.desk import Asked, Desk


@get("/healthz", summary="The process lives", tags=["health"])
async def healthz() -> dict[str, str]:
    """Answers as soon as the process listens."""
    return {"status": "ok", "version": __version__}


@get("/readyz", summary="The log is folded to its tail", tags=["health"])
async def readyz(request: Asked) -> dict[str, Any]:
    """503 until then."""
    desk: Desk = request.app.state.desk
    desk.check_ready()
    return {"status": "ready", "seq": desk.follower.state.seq}


@get("/health", summary="As /readyz, in an earlier system's words", tags=["health"])
async def health(request: Asked) -> dict[str, Any]:
    """503 until the log is folded to its tail."""
    desk: Desk = request.app.state.desk
    desk.check_ready()
    return {"status": "healthy", "seq": desk.follower.state.seq}


ROUTES = [healthz, readyz, health]
