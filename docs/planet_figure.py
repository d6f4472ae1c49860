"""The contact sheet of the emulated planet: eight places in rows, six photos of each.

python docs/planet_figure.py docs/figures/emulated_planet.jpg
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from geoloc_dagster.emulator.planet import Planet
from geoloc_dagster.emulator.planet_climate import climate_of, sun_elevation_deg
from geoloc_dagster.emulator.planet_list import GROUPS, PlanetPhoto
from geoloc_dagster.storage import write_bytes
from geoloc_dagster.viz.sheets import Tile, contact_sheet

SEED, SIZE_PX, MAX_BYTES = 0, (210, 210), 300_000
SCANNED = 30_000
COLUMNS = ((10, 15), (11,), (14, 15), (12, 13, 10), (7, 9), (6, 8))
"""The groups of which each column shows one photo: street, landmark, houses, park, mountains or path, water or wood."""


def main() -> None:
    """Write the sheet."""
    planet = Planet(SEED)
    of_cluster: dict[int, list[PlanetPhoto]] = defaultdict(list)
    for photo in map(planet.photo, range(SCANNED)):
        if photo.cluster is not None and _by_day(photo):
            of_cluster[photo.cluster].append(photo)
    rows: list[list[Tile]] = []
    seen: set[str] = set()
    for photos in of_cluster.values():
        chosen = _one_of_each(photos)
        where = climate_of(SEED, photos[0].lat_deg, photos[0].lng_deg).zone
        if chosen is None or where in seen:
            continue
        seen.add(where)
        rows.append([_tile(planet, photo, where if column else _place(photo)) for column, photo in enumerate(chosen)])
    sheet = contact_sheet(
        rows,
        title="Eight places of the emulated planet",
        subtitle="a row is one place: its climate, its way of building, its landmark and its mountains",
        attribution="drawn by the emulator; nobody's pictures",
        first_is_query=False,
        max_bytes=MAX_BYTES,
    )
    write_bytes(Path(sys.argv[1]), sheet)


def _by_day(photo: PlanetPhoto) -> bool:
    return sun_elevation_deg(photo.lat_deg, photo.date.timetuple().tm_yday, photo.hour) > 8


def _one_of_each(photos: list[PlanetPhoto]) -> list[PlanetPhoto] | None:
    """A photo for every column, each another one; None where the place lacks one."""
    chosen: list[PlanetPhoto] = []
    for groups in COLUMNS:
        fitting = next((p for group in groups for p in photos if p.group == group and p not in chosen), None)
        if fitting is None:
            return None
        chosen.append(fitting)
    return chosen


def _tile(planet: Planet, photo: PlanetPhoto, below: str) -> Tile:
    return Tile(planet.draw(photo, SIZE_PX).jpeg(), (f"{GROUPS[photo.group].split()[0]}, {photo.date:%B}", below))


def _place(photo: PlanetPhoto) -> str:
    north, east = "N" if photo.lat_deg >= 0 else "S", "E" if photo.lng_deg >= 0 else "W"
    return f"{abs(photo.lat_deg):.1f}°{north} {abs(photo.lng_deg):.1f}°{east}"


if __name__ == "__main__":
    main()
