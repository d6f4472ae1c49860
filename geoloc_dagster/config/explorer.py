"""What `geoloc.yaml` may say of the explorer; nothing of it changes data or models."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from geoloc_dagster.config.section import Section


class ExplorerSettings(Section):
    """The web page on which a region is looked at, and its limits."""

    tile_url: str | None = Field(
        default=None,
        description="Raster tiles under the map, e.g. https://tiles.example/{z}/{x}/{y}.png; without it no other host is asked.",
    )
    tile_attribution: str | None = Field(default=None, description="Whom the tiles are to be credited to.")
    dagster_url: str | None = Field(default=None, description="Address of the Dagster UI, for links to assets.")
    mlflow_url: str | None = Field(default=None, description="Address of the MLflow UI, for links to runs.")
    urls: list[str] = Field(default=[], description="Explorers that run; `explorer_deployment` waits until they serve a release.")
    patience_seconds: float = Field(default=120, gt=0, description="It waits no longer for all of them together.")
    photo_bytes: int = Field(default=20_000_000, gt=0, le=100_000_000, description="A larger upload is refused.")
    photo_pixels: int = Field(default=50_000_000, gt=0, le=89_478_485, description="A larger picture is refused unread.")
    photos_per_request: int = Field(default=200, gt=0, le=1_000, description="More photos at once are refused.")
    request_bytes: int = Field(default=200_000_000, gt=0, description="Of all photos of a request together.")
    held_bytes: int = Field(default=1_000_000_000, gt=0, description="Of the photos of all requests at one time; more wait.")
    photos_per_minute: int = Field(default=600, gt=0, description="That one address may ask about; more are asked to wait.")
    upload_seconds: float = Field(default=60, gt=0, description="An upload that takes longer is ended.")

    @model_validator(mode="after")
    def _a_request_can_be_held(self) -> Self:
        if self.held_bytes < self.request_bytes:
            raise ValueError("held_bytes: at least request_bytes, or a request of that size could never be read")
        return self

    @model_validator(mode="after")
    def _tiles_can_be_asked_for(self) -> Self:
        if self.tile_url is not None:
            parts = urlsplit(self.tile_url)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ValueError("tile_url: an address such as https://tiles.example/{z}/{x}/{y}.png")
            if not all(mark in self.tile_url for mark in ("{z}", "{x}", "{y}")):
                raise ValueError("tile_url: it has to hold {z}, {x} and {y}")
            if not self.tile_attribution:
                raise ValueError("tile_url: say whom the tiles are credited to in tile_attribution")
        return self

    @field_validator("urls")
    @classmethod
    def _explorers_can_be_asked(cls, urls: list[str]) -> list[str]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.username or parts.query:
                raise ValueError(f"urls: an address such as http://127.0.0.1:8050, without a name and password, not {url!r}")
        return urls

    @property
    def tile_origin(self) -> str | None:
        """Scheme and host of the tiles, which the page may ask beside its own."""
        if self.tile_url is None:
            return None
        parts = urlsplit(self.tile_url)
        return f"{parts.scheme}://{parts.netloc}"
