"""What `geoloc.yaml` may say of collection: where to look, whom to ask, what to take, how politely."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from geoloc_dagster.config.section import Section

Spacing = Annotated[int, Field(gt=0, le=10_000)]


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
