"""The routes, one file for each group of paths."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler

from eventsched.projections.http.routes import health, jobs

ROUTES: list[HTTPRouteHandler] = [*health.ROUTES, *jobs.ROUTES]
