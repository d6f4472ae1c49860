"""Pictures as Panoramax describes them: STAC items with the view and perspective-imagery extensions.

Contract: https://docs.panoramax.fr (GeoVisio API), https://github.com/stac-extensions/perspective-imagery. Whatever an item
leaves out is None here; only an item without id, place or picture is none.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_ASSERTION = "NOASSERTION"
OPEN_LICENCES = {
    licence.lower(): licence
    for licence in (
        "etalab-2.0", "CC-BY-SA-4.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-3.0", "CC0-1.0", "ODbL-1.0", "ODC-By-1.0", "PDDL-1.0",
        "OGL-UK-3.0",
    )
}  # fmt: skip
"""SPDX ids, by lower case, of licences that allow keeping, passing on and learning from pictures."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture.

    Attributes:
        item_id: UUID.
        sequence_id: of its collection.
        lat_deg: where the camera stood.
        lng_deg: likewise.
        taken_at: aware; None where the service does not say.
        heading_deg: of the picture's middle, clockwise from north; None where no compass was read.
        pitch_deg: of the camera, upwards; 0 where it is not said.
        fov_deg: horizontal field of view; 360 for whole panoramas.
        licence: SPDX id, `proprietary`, or NOASSERTION where it is absent or unknown.
        creator: None where the account is gone.
        assets: addresses of the picture, by name (hd, sd).
        related: addresses of items of the same place at other dates.
        ready: whether it is public and processed.
    """

    item_id: str
    sequence_id: str | None
    lat_deg: float
    lng_deg: float
    taken_at: dt.datetime | None
    heading_deg: float | None
    pitch_deg: float
    fov_deg: float | None
    licence: str
    creator: str | None
    assets: Mapping[str, str]
    related: tuple[str, ...]
    ready: bool

    @property
    def captured_on(self) -> dt.date | None:
        """The day (UTC)."""
        return None if self.taken_at is None else self.taken_at.astimezone(dt.UTC).date()

    @property
    def is_360(self) -> bool:
        """Whether it can be cut into views of any heading."""
        return self.fov_deg is not None and self.fov_deg >= 360

    @property
    def is_open(self) -> bool:
        """Whether its licence is one of those that allow collecting it."""
        return self.licence in OPEN_LICENCES.values()


def read_item(feature: Any) -> Item | None:
    """An item of an answer; None for what is no picture: without id, position or a picture's address."""
    try:
        lng_deg, lat_deg = (float(value) for value in feature["geometry"]["coordinates"][:2])
        item_id = str(feature["id"])
        assets = {name: str(feature["assets"][name]["href"]) for name in ("hd", "sd") if name in feature["assets"]}
    except (KeyError, TypeError, ValueError):
        return None
    if not (assets and abs(lat_deg) <= 90 and abs(lng_deg) <= 180):
        return None
    said: Mapping[str, Any] = _mapping(feature.get("properties"))
    optics = _mapping(said.get("pers:interior_orientation"))
    heading_deg = _number(said.get("view:azimuth"))
    return Item(
        item_id=item_id,
        sequence_id=None if feature.get("collection") is None else str(feature["collection"]),
        lat_deg=lat_deg,
        lng_deg=lng_deg,
        taken_at=_instant(said.get("datetime")),
        heading_deg=None if heading_deg is None else heading_deg % 360,
        pitch_deg=_number(said.get("pers:pitch")) or 0.0,
        fov_deg=_number(optics.get("field_of_view")),
        licence=spdx(said.get("license")),
        creator=_producer(feature, said),
        assets=assets,
        related=tuple(_related(feature)),
        ready=said.get("geovisio:status", "ready") == "ready",
    )


def spdx(value: object) -> str:
    """The SPDX id of a licence as services write it; `proprietary` as it is, NOASSERTION for anything unknown."""
    text = value.strip() if isinstance(value, str) else ""
    return "proprietary" if text.lower() == "proprietary" else OPEN_LICENCES.get(text.lower(), NO_ASSERTION)


def _producer(feature: Any, said: Mapping[str, Any]) -> str | None:
    providers = feature.get("providers")
    for provider in providers if isinstance(providers, list) else []:
        if "producer" in (_mapping(provider).get("roles") or ()) and str(provider.get("name") or "").strip():
            return str(provider["name"]).strip()
    name = said.get("geovisio:producer")
    return name.strip() or None if isinstance(name, str) else None


def _related(feature: Any) -> list[str]:
    links = feature.get("links")
    found = [_mapping(link) for link in links] if isinstance(links, list) else []
    return [str(link["href"]) for link in found if link.get("rel") == "related" and link.get("href")]


def _instant(value: object) -> dt.datetime | None:
    try:
        read = dt.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return read.replace(tzinfo=dt.UTC) if read is not None and read.tzinfo is None else read


def _number(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None  # type: ignore[arg-type]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
