"""What the explorer counts of itself, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one process of one explorer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("geoloc_requests", "Requests answered.", ["route", "status"], registry=self.registry)
        self.photos = Counter("geoloc_photos", "Photos asked about.", ["outcome"], registry=self.registry)
        self.seconds = Histogram("geoloc_request_seconds", "Time to answer a request.", ["route"], registry=self.registry)
        self.swaps = Counter("geoloc_release_changes", "Times that another release was put in place.", registry=self.registry)
        self.rows = Gauge("geoloc_index_rows", "Pictures that neighbours are looked for among.", registry=self.registry)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
