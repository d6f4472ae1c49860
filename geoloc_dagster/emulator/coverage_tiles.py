"""Where the emulated Mapillary has pictures, as vector tiles of zoom 0 to 14."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from geoloc_dagster.emulator import graph
from geoloc_dagster.emulator.answers import Answer
from geoloc_dagster.emulator.vector_tiles import Feature, Value, write_tile
from geoloc_dagster.emulator.walkers import Picture, Walkers
from geoloc_dagster.geo.mercator import tile_degrees, tile_position

IMAGES_ZOOM = 14
_OVERVIEW_ZOOM = 5  # and below; from there to 14 there are sequences
_SETS = ("mly1_public", "mly1_computed_public")
_KEPT = 16
_CENTRE_DEG = 0.005  # the city has no end: coarser tiles show only what lies so near to its origin
_NOTHING = b"\x1a\x16\x78\x01\x0a\x0fmapillary-empty\x28\x80\x20"  # as the service has said it


class CoverageTiles:
    """The tiles of one city.

    Args:
        walkers: who took the pictures.
        origin: (lat, lng) of the city, degrees.
    """

    def __init__(self, walkers: Walkers, origin: tuple[float, float]) -> None:
        self._walkers = walkers
        self._origin = origin
        self._made = functools.lru_cache(maxsize=_KEPT)(self._make)

    def answer(self, tileset: str, address: list[str]) -> Answer:
        """One tile: zoom, column and row, as written in its path."""
        if tileset not in _SETS or not all(part.isdecimal() and len(part) < 9 for part in address):
            return graph.error(404, 2500, "Unknown path components")
        zoom, column, row = map(int, address)
        if zoom > IMAGES_ZOOM or max(column, row) >= 1 << zoom:
            return graph.error(404, 2500, "There is no such tile")
        body = self._made(zoom, column, row, tileset == _SETS[1], self._walkers.today)
        return Answer("OK", 200, "application/x-protobuf", body)

    def _make(self, zoom: int, column: int, row: int, computed: bool, today: Any) -> bytes:
        """`today` is what the cache tells tiles apart by: new pictures come with new months."""
        lats, lngs = tile_degrees(np.array([column, column + 1.0]), np.array([row, row + 1.0]), zoom)
        west, south, east, north = float(lngs[0]), float(lats[1]), float(lngs[1]), float(lats[0])
        if zoom < IMAGES_ZOOM:
            lat, lng = self._origin
            wide_deg = _CENTRE_DEG / math.cos(math.radians(lat))
            west, east = max(west, lng - wide_deg), min(east, lng + wide_deg)
            south, north = max(south, lat - _CENTRE_DEG), min(north, lat + _CENTRE_DEG)
        found = [] if west >= east or south >= north else self._walkers.within(west, south, east, north, computed=computed)
        if not found:
            return _NOTHING

        def spot(picture: Picture) -> tuple[float, float]:
            lat, lng = picture.raw
            if computed and picture.is_computed:
                lat, lng = picture.snapshot.lat_deg, picture.snapshot.lng_deg
            x, y = tile_position(lat, lng, zoom)
            return x - column, y - row

        sequences: dict[str, list[Picture]] = {}
        for picture in found:
            sequences.setdefault(picture.sequence_id, []).append(picture)
        firsts = [pictures[0] for pictures in sequences.values()]
        if zoom <= _OVERVIEW_ZOOM:
            return write_tile({"overview": [Feature([spot(one)], _overview(one)) for one in firsts]})
        lines = [Feature([spot(one) for one in pictures], _sequence(pictures[0])) for pictures in sequences.values()]
        layers = {"sequence": [line for line in lines if len(line.positions) > 1]}
        if zoom == IMAGES_ZOOM:
            layers["image"] = [Feature([spot(one)], _image(one)) for one in found]
        return write_tile(layers)


def _overview(picture: Picture) -> dict[str, Value]:
    return {
        "id": int(picture.image_id),
        "captured_at": picture.captured_ms,
        "sequence_id": picture.sequence_id,
        "is_pano": picture.is_pano,
    }


def _sequence(picture: Picture) -> dict[str, Value]:
    said: dict[str, Value] = {
        "id": picture.sequence_id,
        "image_id": int(picture.image_id),
        "captured_at": picture.captured_ms,
        "is_pano": picture.is_pano,
    }
    return said | _makers(picture)


def _image(picture: Picture) -> dict[str, Value]:
    said: dict[str, Value] = {
        **_overview(picture),
        "compass_angle": picture.raw_heading_deg,
        "quality_score": picture.quality_score,
    }
    return said | _makers(picture)


def _makers(picture: Picture) -> dict[str, Value]:
    said = {"creator_id": picture.creator_id, "organization_id": picture.organization_id}
    return {name: value for name, value in said.items() if value is not None}
