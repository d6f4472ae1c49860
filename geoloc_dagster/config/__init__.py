"""What a region's `geoloc.yaml` may say, and where its artifacts lie; no side effects on import."""

from geoloc_dagster.config.layout import Layout
from geoloc_dagster.config.settings import Settings

__all__ = ["Layout", "Settings"]
