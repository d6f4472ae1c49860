"""What was forgotten on request, and is therefore never fetched again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from geoloc_dagster.imagery.provider import Panorama
from geoloc_dagster.tables import open_table

BBox = tuple[float, float, float, float]
"""(south, west, north, east), degrees."""


@dataclass(frozen=True, slots=True)
class Tombstones:
    """Everything that was ever asked to be forgotten.

    Attributes:
        captures: ids of captures.
        panos: ids of panoramas.
        creators: who took pictures.
        providers: sources as a whole.
        boxes: areas.
    """

    captures: frozenset[str] = field(default_factory=frozenset[str])
    panos: frozenset[str] = field(default_factory=frozenset[str])
    creators: frozenset[str] = field(default_factory=frozenset[str])
    providers: frozenset[str] = field(default_factory=frozenset[str])
    boxes: tuple[BBox, ...] = ()

    def cover(self, provider: str, panorama: Panorama) -> bool:
        """Whether a panorama is not to be fetched."""
        lat_deg = panorama.location.lat_deg if panorama.lat_deg is None else panorama.lat_deg
        lng_deg = panorama.location.lng_deg if panorama.lng_deg is None else panorama.lng_deg
        inside = any(s <= lat_deg <= n and w <= lng_deg <= e for s, w, n, e in self.boxes)
        return provider in self.providers or panorama.pano_id in self.panos or inside


def read_tombstones(path: Path) -> Tombstones:
    """Read the table of tombstones; nothing was forgotten where there is none."""
    table = open_table(path)
    if table is None:
        return Tombstones()
    of_kind: dict[str, set[str]] = {}
    for row in table.to_table(columns=["kind", "value"]).to_pylist():
        of_kind.setdefault(row["kind"], set()).add(row["value"])
    return Tombstones(
        captures=frozenset(of_kind.get("capture", ())),
        panos=frozenset(of_kind.get("pano", ())),
        creators=frozenset(of_kind.get("creator", ())),
        providers=frozenset(of_kind.get("provider", ())),
        boxes=tuple(_box(value) for value in sorted(of_kind.get("bbox", ()))),
    )


def _box(value: str) -> BBox:
    south, west, north, east = (float(part) for part in value.split(","))
    return south, west, north, east
