"""The settings of one region: what `geoloc.yaml` may say, with units, ranges and defaults."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from geoloc_dagster.config.collection import (
    BrowserSettings,
    BufferSettings,
    CaptureSettings,
    CoverageSettings,
    EgressSettings,
    EmulatorSettings,
    GridCellSettings,
    GridSettings,
    ServiceSettings,
)
from geoloc_dagster.config.dataset import (
    CatalogSettings,
    CellSettings,
    CropSettings,
    SceneSettings,
    SegmentationSettings,
    SplitSettings,
)
from geoloc_dagster.config.explorer import ExplorerSettings
from geoloc_dagster.config.gallery_index import GalleryIndexSettings
from geoloc_dagster.config.object_storage import ObjectStorageSettings
from geoloc_dagster.config.operation import (
    AlertSettings,
    AutomationSettings,
    DriftSettings,
    MaintenanceSettings,
    PromotionSettings,
)
from geoloc_dagster.config.section import Name, Section

_WITHOUT_RESULTS = {"data_root", "object_storage", "folder", "explorer", "alerts", "maintenance"}
COVERAGES = (0.5, 0.8, 0.9, 0.95)
"""For which the regions of answers are calibrated."""
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_][A-Z0-9_]*)(?::-(?P<default>[^}]*))?\}")
LatLng = tuple[Annotated[float, Field(ge=-90, le=90)], Annotated[float, Field(ge=-180, le=180)]]


class RegionSettings(Section):
    """The place."""

    name: Name = Field(description="Prefix of every asset key, partition set and model name; unique in a Dagster instance.")
    boundary: Path = Field(description="GeoJSON, shapefile or TopoJSON, relative to this file.")
    boundary_feature: int | None = Field(
        default=None, ge=0, description="Use only this feature of the file; all are united by default."
    )
    boundary_part: Literal["all", "largest"] = Field(
        default="all", description="`largest`: only the largest polygon of it, e.g. a mainland without its islands."
    )
    start_point: LatLng = Field(description="(lat, lng) from which locations are ranked, e.g. the old town.")
    districts: Path | None = Field(
        default=None,
        description="GeoJSON of named districts for reports; without it S2 cells of level 13, coarser ones in a larger region.",
    )
    district_property: str = Field(default="name", description="The property that names a district.")
    metric_crs: str | None = Field(
        default=None, description="e.g. EPSG:3006; by default the region's UTM zone, or an equal-area system where it is wider."
    )
    max_area_km2: float = Field(default=20_000, gt=0, description="A larger polygon is refused before a grid is laid over it.")


class FusionSettings(Section):
    """How the experts of a region are made into one answer."""

    coverage: float = Field(
        default=0.9, description="Share of photos whose place the region of an answer is to hold: 0.5, 0.8, 0.9 or 0.95."
    )
    ensemble: list[str] = Field(
        default_factory=list,
        description="Recipes whose newest models look at photos too, each beside the champion of its kind.",
    )
    verify: bool = Field(
        default=True, description="Whether the nearest pictures are compared with a photo feature by feature (SIFT)."
    )
    refused: float = Field(
        default=0.05, gt=0, lt=1, description="Share of the region's own photos that may be taken for those of another place."
    )
    largest_region_km2: float | None = Field(
        default=None, gt=0, description="An answer whose region is larger is no answer; without it every one is."
    )
    finest_level: int | None = Field(
        default=None,
        ge=1,
        le=30,
        description="S2 level of the smallest cells of the grid; 20 (8 m) in a city, 13 (1 km) elsewhere.",
    )
    most_cells: int = Field(default=16_384, ge=64, le=1_000_000, description="Places share cells where there would be more.")

    @field_validator("coverage")
    @classmethod
    def _calibrated(cls, value: float) -> float:
        if value not in COVERAGES:
            raise ValueError(f"one of {', '.join(map(str, COVERAGES))}, for which regions are calibrated")
        return value


class Settings(Section):
    """One region: everything that `geoloc.yaml` may say."""

    version: Literal[1] = 1
    data_root: Path = Field(
        default=Path("data"), description="Local folder, relative to this file, or s3://bucket/prefix in object storage."
    )
    object_storage: ObjectStorageSettings = ObjectStorageSettings()
    region: RegionSettings
    grid: GridSettings = GridSettings()
    grid_cells: GridCellSettings | None = Field(
        default=None, description="Samples locations per cell of a country; without it a grid of points is looked up for buffers."
    )
    coverage: CoverageSettings = CoverageSettings()
    buffers: BufferSettings = BufferSettings()
    capture: CaptureSettings = CaptureSettings()
    service: ServiceSettings = ServiceSettings()
    egress: EgressSettings = EgressSettings()
    browser: BrowserSettings = BrowserSettings()
    emulator: EmulatorSettings = EmulatorSettings()
    crops: CropSettings = CropSettings()
    catalog: CatalogSettings = CatalogSettings()
    cells: CellSettings | None = Field(default=None, description="Needed by recipes of kind `cells`.")
    scenes: SceneSettings | None = Field(default=None, description="Adds the asset `scene_labels`; without it there is none.")
    segmentation: SegmentationSettings | None = Field(
        default=None, description="Adds the asset `segmentation_maps`; without it there is none."
    )
    splits: SplitSettings = SplitSettings()
    fusion: FusionSettings = FusionSettings()
    promotion: PromotionSettings = PromotionSettings()
    drift: DriftSettings = DriftSettings()
    automation: AutomationSettings = AutomationSettings()
    index: GalleryIndexSettings = GalleryIndexSettings()
    alerts: AlertSettings = AlertSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    explorer: ExplorerSettings = ExplorerSettings()
    recipes: list[str] = Field(
        default=["retrieval"], min_length=1, description="Names in `recipes/` beside this file, or packaged ones."
    )
    folder: Path = Field(default=Path(), exclude=True, description="Where the YAML lies; set by the loader.")
    data_url: str | None = Field(
        default=None, exclude=True, description="Of the data root in object storage, whose working copy `data_root` is then."
    )

    @model_validator(mode="after")
    def _rate_is_for_the_provider(self) -> Self:
        rate = self.service.requests_per_second
        if rate is not None and rate > 500 and self.capture.provider != "photo_list":
            raise ValueError("service.requests_per_second: more than 500 is for a `photo_list` of hosts of your own")
        return self

    @model_validator(mode="after")
    def _scenes_come_from_somewhere(self) -> Self:
        scenes = self.scenes
        if scenes is not None and scenes.model is None and self.capture.provider != "photo_list":
            raise ValueError("scenes: only the lists of `photo_list` say scenes; name a `model`")
        return self

    @model_validator(mode="after")
    def _maps_come_from_somewhere(self) -> Self:
        if self.segmentation is None or self.segmentation.source == "model":
            return self
        provider, emulated = self.capture.provider, ("emulator", "google", "google_maps", "photo_list")
        if provider not in emulated:
            raise ValueError(f"segmentation: an emulator has no maps of pictures of `{provider}`; set `source: model`")
        if provider.startswith("google") and not _is_this_machine(self.service.base_url):
            raise ValueError("segmentation: pictures of the real service have no maps; set `source: model`")
        return self

    @model_validator(mode="after")
    def _cells_have_something_to_sample(self) -> Self:
        if self.grid_cells is None:
            return self
        if self.buffers.files:
            raise ValueError("grid_cells samples locations itself: leave out buffers.files, or the section grid_cells")
        if self.capture.provider == "photo_list":
            raise ValueError("grid_cells samples street views, and a photo list has its own places: leave it out")
        if self.coverage.provider == "csv" and self.capture.provider != "folder":
            raise ValueError("grid_cells asks where street views are: set coverage.provider to a service, e.g. `google`")
        return self

    def config_hash(self) -> str:
        """A short fingerprint of everything that changes results (not of where the data lie, of the explorer, or of upkeep)."""
        fields: dict[str, Any] = self.model_dump(mode="json", exclude=_WITHOUT_RESULTS)
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def resolve(self, path: Path) -> Path:
        """A path of the YAML, relative to its folder; `${NAME:-default}` stands for an environment variable."""
        expanded = Path(_VARIABLE.sub(lambda match: os.environ.get(match["name"]) or match["default"] or "", str(path)))
        return expanded if expanded.is_absolute() else (self.folder / expanded).resolve()


def _is_this_machine(url: str | None) -> bool:
    return urlsplit(url or "").hostname in ("127.0.0.1", "localhost", "::1")
