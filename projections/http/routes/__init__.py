"""The routes, one file for each group of paths."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler

from eventsched.projections.http.routes import (
    cluster,
    health,
    ingest,
    insight,
    jobs,
    listing,
    running,
    schemas,
    steering,
    streams,
)

ROUTES: list[HTTPRouteHandler] = [
    *health.ROUTES,
    *jobs.ROUTES,
    *listing.ROUTES,
    *ingest.ROUTES,
    *steering.ROUTES,
    *insight.ROUTES,
    *cluster.ROUTES,
    *running.ROUTES,
    *streams.ROUTES,
    *schemas.ROUTES,
]
