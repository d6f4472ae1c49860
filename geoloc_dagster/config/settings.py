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
from geoloc_dagster.config.section import Section

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
_WITHOUT_RESULTS = {"data_root", "object_storage", "folder", "explorer", "alerts", "maintenance"}
COVERAGES = (0.5, 0.8, 0.9, 0.95)
"""For which the regions of answers are calibrated."""
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_][A-Z0-9_]*)(?::-(?P<default>[^}]*))?\}")
LatLng = tuple[Annotated[float, Field(ge=-90, le=90)], Annotated[float, Field(ge=-180, le=180)]]
Spacing = Annotated[int, Field(gt=0, le=10_000)]


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


class GridSettings(Section):
    """The points at which street views are looked up."""

    spacing_m: float = Field(default=10, gt=0, le=100_000, description="Metres between grid points.")
    max_points: int = Field(default=20_000_000, gt=0, description="A finer grid is refused before it is allocated.")


class GridCellSettings(Section):
    """Cells of a whole country, and the locations that are sampled in each of them instead of buffers."""

    step_deg: float = Field(default=2, gt=0, le=90, description="Side of the boxes that the polygon is cut into, degrees.")
    merge_below: float = Field(
        default=0.1, ge=0, le=1, description="Pieces below this share of the largest one's area go to a neighbour."
    )
    samples_per_cell: int = Field(default=40, gt=0, le=10_000, description="Covered locations wanted in every cell.")
    attempts_per_cell: int = Field(
        default=400, gt=0, le=100_000, description="Random points of a cell that are looked up before it is given up."
    )
    apart_m: Spacing = Field(default=100, description="Metres between any two sampled locations at least.")
    series: str = Field(
        default="usa2deg",
        pattern=r"^[a-z][a-z0-9]{0,23}$",
        description="Begins the names of their batches: small letters and digits.",
    )
    seed: int = Field(default=0, ge=0, description="Another seed draws other points.")

    @model_validator(mode="after")
    def _enough_attempts(self) -> Self:
        if self.series == "photos":
            raise ValueError("series: `photos` is what the batches of photo lists are called")
        if self.attempts_per_cell < self.samples_per_cell:
            raise ValueError("attempts_per_cell must be at least samples_per_cell; ten times as many find it in thin coverage")
        return self


class CoverageSettings(Section):
    """Where is there a street view?"""

    provider: Literal["csv", "emulator", "google", "mapillary", "panoramax"] = Field(
        default="csv", description="`csv` reads lookups that were made before; the others ask a service."
    )
    files: list[Path] = Field(default_factory=list, description="`csv`: buffer CSVs with positions, dates and panorama ids.")
    negatives: list[Path] = Field(default_factory=list, description="`csv`: CSVs of grid points that had no street view.")
    radius_m: int = Field(
        default=50,
        gt=0,
        le=100_000,
        description="How far from a grid point its street view may be; more than 1,000 m for `google` only.",
    )
    outdoor_only: bool = Field(default=True, description="Leave out views from inside buildings.")
    lookups_per_run: int = Field(default=20_000, gt=0, description="Points that one run asks for, nearest to the start first.")
    recheck_after_days: int = Field(
        default=180, gt=0, description="Days after which a point without a street view is asked again."
    )

    @model_validator(mode="after")
    def _radius_is_for_the_provider(self) -> Self:
        if self.radius_m > 1_000 and self.provider != "google":
            raise ValueError(f"radius_m: `{self.provider}` looks at most 1,000 m around a point")
        return self


class BufferSettings(Section):
    """Which locations are collected, and in which order."""

    spacings_m: list[Spacing] = Field(default=[100, 75, 60, 50, 45, 35], min_length=1, description="Metres, largest first.")
    batch_size: int = Field(default=200, gt=0, le=10_000, description="Locations per partition.")
    files: list[Path] = Field(default_factory=list, description="Existing buffer CSVs to register as they are; built when empty.")

    @model_validator(mode="after")
    def _descending(self) -> Self:
        if self.spacings_m != sorted(set(self.spacings_m), reverse=True):
            raise ValueError("spacings_m must go down and name each spacing once")
        return self


class BlurSettings(Section):
    """What is blurred in pictures before they are stored; off by default. What is stored already stays as it is."""

    boxes: Path | None = Field(
        default=None,
        description="JSON, CSV or Parquet: `capture_id`, or `pano_id` and `heading_deg`; `left`, `top`, `right`, `bottom`.",
    )
    unit: Literal["relative", "pixels"] = Field(
        default="relative", description="Of the boxes' sides: 0 to 1 of the picture's width and height, or pixels."
    )


class PhotoSettings(Section):
    """`photo_list`: which lists, and how their pictures are kept."""

    files: list[Path] = Field(
        default_factory=list,
        description="CSV or Parquet with a URL, a position and whatever else, relative to this file; also folders and "
        "uncompressed tar files of photos, which are where a list without URLs says by their names, or their EXIF does.",
    )
    urls: list[Path] = Field(default_factory=list, description="Lists of `id,url` for `files` without URLs, such as MP-16's.")
    columns: dict[
        Literal["url", "id", "lat", "lng", "date", "author", "licence", "attribution", "heading"]
        | Literal["scene_3", "scene_16", "scene_365", "prob_indoor", "prob_natural", "prob_urban"],
        Annotated[str, Field(min_length=1)],
    ] = Field(default_factory=dict, description="Names of columns where they are not the usual ones, e.g. {url: link}.")
    url_template: str | None = Field(
        default=None, description="Makes a URL from an id: {id}, and of ids as Im2GPS has them {photo}, {secret} and {server}."
    )
    size_suffix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9]{0,8}$",
        description="Put before the suffix of every URL, as photo hosts name sizes: `z`.",
    )
    min_side_px: int = Field(default=0, ge=0, description="A picture whose shorter side is below this is refused.")
    resize: Literal["shorter", "longer"] | None = Field(default=None, description="Make this side `size_px`; never larger.")
    size_px: int = Field(default=320, gt=0, le=16_384, description="Of that side.")
    encoding: Literal["jpeg", "webp", "png"] | None = Field(
        default=None, description="Encode every picture again; without it only resized ones are, as JPEG."
    )
    quality: int = Field(default=95, ge=1, le=100, description="Of what is encoded again.")
    processes: int | None = Field(default=None, gt=0, le=64, description="That fetch; the cores, four at most, without it.")
    connections: int = Field(default=64, gt=0, le=1_024, description="Of each process, to all hosts together.")


class CaptureSettings(Section):
    """Where the pictures come from."""

    provider: Literal["folder", "emulator", "google", "google_maps", "mapillary", "panoramax", "photo_list"] = Field(
        default="folder",
        description="`folder` reads an existing collection in the Stockholm naming, `photo_list` URLs of a list; the others ask "
        "a service.",
    )
    photos: PhotoSettings = PhotoSettings()
    sources: list[Path] = Field(
        default_factory=list, description="`folder`: folders or tar files; its name is the `source` of its rows."
    )
    licence: str = Field(
        default="NOASSERTION",
        min_length=1,
        description="`folder` and `photo_list` (rows without one): SPDX id, `proprietary` or `NOASSERTION`.",
    )
    attribution: str = Field(
        default="unknown", min_length=1, description="`folder`, and rows of `photo_list` without one: whom to name."
    )
    permission: str | None = Field(
        default=None, description="Reference of the right to store and train, where the provider's terms forbid it."
    )
    headings_deg: list[Annotated[float, Field(ge=0, lt=360)]] = Field(
        default=[0, 90, 180, 270], min_length=1, description="Absolute directions to look in, clockwise from north."
    )
    history: Literal["all", "newest"] = Field(default="all", description="Which dates of a place, where a service knows several.")
    size: tuple[Annotated[int, Field(ge=64, le=640)], Annotated[int, Field(ge=64, le=640)]] = Field(
        default=(640, 640), description="(width, height) in pixels to ask for."
    )
    pitch_deg: float = Field(default=0, ge=-90, le=90, description="Upwards from the horizon.")
    fov_deg: float = Field(default=90, gt=0, le=120, description="Horizontal field of view.")
    blur: BlurSettings = BlurSettings()
    commit_rows: int = Field(default=256, gt=0, description="Rows per commit: what a killed process can lose.")

    @property
    def asset(self) -> Literal["panoramas", "photos"]:
        """The asset that collects: `photos` of a list, `panoramas` of everything else."""
        return "photos" if self.provider == "photo_list" else "panoramas"

    @model_validator(mode="after")
    def _different_headings(self) -> Self:
        if len(set(self.headings_deg)) < len(self.headings_deg):
            raise ValueError("headings_deg names a direction twice")
        return self


class ServiceSettings(Section):
    """How a live service is asked. None of it can be switched off, only made slower or given a smaller budget."""

    base_url: str | None = Field(
        default=None, pattern=r"^https?://[^/]+/?$", description="The provider's own by default; the emulator starts by itself."
    )
    key_variable: str = Field(
        default="GEOLOC_SERVICE_KEY", pattern=r"^[A-Z_][A-Z0-9_]*$", description="Environment variable that holds the key."
    )
    signing_secret_variable: str = Field(
        default="GEOLOC_SERVICE_SECRET", pattern=r"^[A-Z_][A-Z0-9_]*$", description="Environment variable of the signing secret."
    )
    requests_per_second: float | None = Field(
        default=None,
        gt=0,
        le=50_000,
        description="Of all processes of this host; by default 20, mapillary 10, panoramax 5, google_maps 0.5, emulator 500, and "
        "10 to each host of a `photo_list`. More than 500 only there, and only where you own the hosts: nobody else's server is "
        "to be asked like that.",
    )
    concurrency: int = Field(default=8, gt=0, le=64, description="Requests in flight at once.")
    deadline_s: float = Field(default=15, gt=0, le=300, description="From the first byte sent to the last received.")
    max_bytes: int = Field(default=20 << 20, gt=0, description="A longer answer is given up.")
    attempts: int = Field(default=5, gt=0, le=10, description="Of one request.")
    images_per_day: int = Field(default=25_000, ge=0, description="Pictures asked for per day (UTC), all processes together.")
    tiles_per_day: int = Field(default=50_000, ge=0, description="`mapillary`: vector tiles asked for per day (UTC).")
    requests_per_day: int | None = Field(default=None, ge=0, description="Requests of any kind; no limit by default.")
    bytes_per_day: int | None = Field(default=None, ge=0, description="Bytes received; no limit by default.")
    dollars_per_day: float | None = Field(default=None, ge=0, description="Spent on pictures; no limit by default.")
    dollars_per_1000_images: float = Field(default=7.0, ge=0, description="The list price of a thousand pictures.")


class EgressSettings(Section):
    """By which way services are asked. It never changes how fast, and never follows a block."""

    proxy: str | None = Field(
        default=None, description="http|https|socks5|socks5h://host:port; direct without it. Tor is its SOCKS port, or Privoxy's."
    )
    credentials_variable: str = Field(
        default="GEOLOC_PROXY_CREDENTIALS", pattern=r"^[A-Z_][A-Z0-9_]*$", description="Holds user:password of the proxy."
    )
    tor_control_port: int | None = Field(
        default=None, gt=0, lt=65_536, description="On this machine; `google_maps`: each location goes by a fresh circuit."
    )
    tor_password_variable: str = Field(
        default="GEOLOC_TOR_PASSWORD", pattern=r"^[A-Z_][A-Z0-9_]*$", description="Of the control port; its cookie without it."
    )


class BrowserSettings(Section):
    """The browser that `provider: google_maps` walks with."""

    binary: Path = Field(default=Path("/usr/bin/chromium"), description="Chromium or Chrome.")
    driver: Path = Field(default=Path("/usr/bin/chromedriver"), description="The chromedriver of the same version.")
    workers: int = Field(
        default=2, gt=0, le=16, description="Locations at once; as many again are opened ahead. About 200 MB each, and 500 MB."
    )
    switches: list[str] = Field(default_factory=list, description="Further command-line switches of the browser.")


class EmulatorSettings(Section):
    """The emulated city that `provider: emulator` looks at."""

    seed: int = Field(default=0, ge=0, description="Another seed is another city.")
    latency_ms: float = Field(default=0, ge=0, le=10_000, description="Added to every answer.")


class CropSettings(Section):
    """How a capture becomes a square picture."""

    size: int = Field(default=224, ge=16, le=2048, description="Pixels.")
    box: tuple[int, int, int, int] | None = Field(
        default=None, description="(left, top, right, bottom) of screenshots; centre square without it."
    )
    jpeg_quality: int = Field(default=92, ge=50, le=100)
    min_decodable_share: float = Field(default=0.99, ge=0, le=1, description="The gate of a batch.")


class CatalogSettings(Section):
    """Which crops are usable, and which are queries."""

    min_dates: int = Field(default=2, ge=1, description="A place and heading with fewer dates gives no query.")
    require_all_headings: bool = Field(default=False, description="Leave out places at which a heading is missing.")
    exclude_flags: list[str] = Field(
        default_factory=lambda: ["undecodable", "black", "uniform"], description="Quality flags that make a row unusable."
    )


class CellSettings(Section):
    """The S2 cells that recipes of kind `cells` classify; made of the photos of the split `train`."""

    levels: dict[Name, tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]] = Field(
        default={"coarse": (50, 5_000), "middle": (50, 2_000), "fine": (50, 1_000)},
        min_length=1,
        description="[img_min, img_max] of each level, coarsest first: cells with fewer photos are dropped, with more are cut.",
    )
    min_level: int = Field(default=2, ge=0, le=30, description="No cell is larger than those of this S2 level.")
    max_level: int = Field(default=30, ge=0, le=30, description="No cell is cut smaller than those of this S2 level.")

    @model_validator(mode="after")
    def _nested(self) -> Self:
        minima, maxima = {low for low, _ in self.levels.values()}, [high for _, high in self.levels.values()]
        if len(minima) > 1 or maxima != sorted(set(maxima), reverse=True) or min(minima) > min(maxima):
            raise ValueError("levels have one img_min, and img_max that gets smaller from level to level")
        if self.min_level > self.max_level:
            raise ValueError("min_level must not be above max_level")
        taken = sorted({"hierarchy", "scene"} & self.levels.keys())
        if taken:
            raise ValueError(f"`{taken[0]}` is the name of another answer; give the level another")
        return self


class SceneSettings(Section):
    """Which scene each picture shows: indoor, natural or urban."""

    source: Literal["list", "model"] = Field(
        default="list", description="`list`: the scene columns of a photo list, and `model` for photos without; or `model` alone."
    )
    model: Path | None = Field(default=None, description="A scene classifier, relative to this file.")
    classes: list[Literal["indoor", "natural", "urban"]] = Field(
        default=["indoor", "natural", "urban"], description="What the model's three answers stand for, in their order."
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.source == "model" and self.model is None:
            raise ValueError("`source: model` needs a `model`")
        if sorted(self.classes) != ["indoor", "natural", "urban"]:
            raise ValueError("classes names indoor, natural and urban once each")
        return self


class SegmentationSettings(Section):
    """What each pixel of each picture shows: sky, building, road, vegetation, water, vehicle, person, sign, or other."""

    source: Literal["emulator", "model"] = Field(
        default="model",
        description="`emulator`: the exact maps of an emulated city's or planet's pictures; or as a model sees it.",
    )
    library: Literal["torchvision", "transformers"] = Field(default="torchvision", description="That has the model.")
    model: str | None = Field(
        default=None,
        description="torchvision: e.g. `lraspp_mobilenet_v3_large`; transformers: a name on the hub, or a folder of safetensors.",
    )
    weights: str = Field(
        default="hub", description="torchvision: `hub`, or a file of safetensors or of a state dict, relative to this file."
    )
    categories: Literal["voc", "cityscapes"] | list[str] = Field(
        default="voc", description="torchvision: what the outputs of weights from a file stand for, in their order."
    )
    mapping: dict[str, Literal["other", "sky", "building", "road", "vegetation", "water", "vehicle", "person", "sign"]] = Field(
        default_factory=dict, description="Which class a category of the model counts as, where not as packaged."
    )
    size: int = Field(default=512, ge=32, le=2048, description="Side at which the model sees pictures, pixels.")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.source == "model" and self.model is None:
            raise ValueError("`source: model` needs a `model`, e.g. `lraspp_mobilenet_v3_large`")
        if self.library == "transformers" and self.weights != "hub":
            raise ValueError("weights: `transformers` reads them from the folder that `model` names; leave it out")
        return self


class SplitSettings(Section):
    """How places are divided into train, dev and test."""

    by: Literal["blocks", "series", "source", "creator", "lists"] = Field(
        default="blocks",
        description="`creator`: whole photographers, wherever their photos are; `lists`: as published lists of places say.",
    )
    block_m: float = Field(default=500, gt=0, description="Side of a geographic block, metres.")
    guard_m: float = Field(default=50, ge=0, description="Places of train this near to dev or test are left out (`blocks` only).")
    test_share: float = Field(default=0.2, ge=0, lt=1)
    dev_share: float = Field(
        default=0.1, ge=0, lt=1, description="With `series`, `source` and `lists`: the part of train put aside as dev, by blocks."
    )
    train: list[str] = Field(default_factory=list, description="Series or sources (shell patterns) of train.")
    test: list[str] = Field(default_factory=list, description="Series or sources (shell patterns) of test.")
    lists: dict[Literal["train", "dev", "test"], list[Path]] = Field(
        default_factory=dict,
        description="`lists`: text files that name places, one a line. Without a list of test all others are test, and so on.",
    )
    drop_leaking: bool = Field(default=False, description="Make leaking rows of train unusable instead of failing.")
    seed: int = 0

    @model_validator(mode="after")
    def _lists_are_there(self) -> Self:
        if (self.by == "lists") != bool(self.lists):
            raise ValueError("`by: lists` and `lists: {train: [FILE], test: [FILE]}` belong together")
        return self


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
