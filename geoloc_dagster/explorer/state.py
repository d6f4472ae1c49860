"""What the routes of one explorer share."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.explorer.limits import HeldBytes, RateLimit
from geoloc_dagster.explorer.metrics import Metrics
from geoloc_dagster.explorer.places import Places
from geoloc_dagster.explorer.serving import Batches, Serving
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Of one region."""

    settings: Settings
    layout: Layout
    places: Places
    serving: Serving
    batches: Batches
    limit: RateLimit
    held: HeldBytes
    metrics: Metrics

    @property
    def score_m(self) -> float:
        """The error at which the region's GeoScore has fallen to 1 / e."""
        west, south, east, north = read_boundary(self.layout.boundary).geometry.bounds
        return score_m(south, west, north, east)

    def changed(self) -> None:
        """Another release is served."""
        self.metrics.swaps.inc()
        served = self.serving.served
        network = served.retrieval if served.fused is None else served.fused.retrieval
        self.metrics.rows.set(0 if network is None else network.index.rows.num_rows)


def state_of(request: Request) -> State:
    """Of the explorer that got this request."""
    return request.app.state.explorer


def take(request: Request, photos: int = 1, counted: int = 0) -> None:
    """Count photos against the limit of the address that asks; raises Problem (429)."""
    state_of(request).limit.take(request.client.host if request.client else "unknown", photos, counted)
