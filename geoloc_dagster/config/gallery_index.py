"""What `geoloc.yaml` may say of the index of a gallery."""

from __future__ import annotations

from pydantic import Field

from geoloc_dagster.config.section import Section


class GalleryIndexSettings(Section):
    """How the index is chosen; small galleries are searched exactly."""

    recall: float = Field(default=0.99, gt=0, le=1, description="Share of the ten nearest that a compressed index has to find.")
    exact_below_mb: int = Field(default=256, ge=0, description="A gallery with fewer megabytes of vectors is kept exact.")
