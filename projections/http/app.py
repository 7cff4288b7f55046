"""The application: routes, who may come in, limits, errors, documentation."""

from __future__ import annotations

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from eventsched import __version__
from eventsched.projections.http import errors
from eventsched.projections.http.auth import Gate
from eventsched.projections.http.desk import Desk
from eventsched.projections.http.routes import ROUTES

DESCRIPTION = "Jobs, nodes and the cluster. Every error has the body `{error: {code, message, details}}`."


def make_app(desk: Desk, gate: Gate) -> Litestar:
    """The ASGI application over one desk."""
    return Litestar(
        route_handlers=ROUTES,
        state=State({"desk": desk, "gate": gate}),
        exception_handlers={Exception: errors.answer},
        request_max_body_size=desk.limits.body_bytes,
        openapi_config=_documentation(),
        logging_config=None,
        on_app_init=[_plain],
    )


def _documentation() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="eventsched",
        version=__version__,
        description=DESCRIPTION,
        path="/schema",
        render_plugins=[SwaggerRenderPlugin()],
        components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
    )


def _plain(config: AppConfig) -> AppConfig:
    """No debug pages, whatever the environment says."""
    config.debug = False
    return config
