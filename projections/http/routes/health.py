"""Whether the service lives, and whether it may be asked."""

from __future__ import annotations

from litestar import get
from litestar.response import Redirect

from eventsched import __version__
from eventsched.projections.http.bodies import Answer, answer, encode, reads
from eventsched.projections.http.desk import Asked, Desk
from eventsched.projections.http.errors import ApiError

TAGS = ["health"]


@get("/", include_in_schema=False)
async def root() -> Redirect:
    """Whoever opens the service in a browser sees what it offers."""
    return Redirect("/schema")


@reads("/healthz", summary="The process lives", tags=TAGS)
async def healthz() -> Answer:
    """Answers as soon as the process listens."""
    return answer(encode({"status": "ok", "version": __version__}))


@reads("/readyz", summary="The log is folded to its tail", tags=TAGS)
async def readyz(request: Asked) -> Answer:
    """503 until then, and while the log cannot be reached."""
    return _ready(request, "ready")


@reads("/health", summary="As /readyz, in an earlier system's words", tags=TAGS)
async def health(request: Asked) -> Answer:
    """503 until the log is folded to its tail."""
    return _ready(request, "healthy")


def _ready(request: Asked, word: str) -> Answer:
    desk: Desk = request.app.state.desk
    desk.check_ready()
    if not desk.client.link.connected.is_set():
        raise ApiError(503, "SERVICE_NOT_READY", "the log cannot be reached at present", Retry_After="1")
    return answer(encode({"status": word, "seq": desk.follower.state.seq}))


ROUTES = [root, healthz, readyz, health]
