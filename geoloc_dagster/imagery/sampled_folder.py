"""The naming of a published sample of a country: `{cell}+{lat},{lng}/{heading}_{YYYY-MM}.jpg`.

One folder per location: the number of its grid cell and its position in degrees. In it one picture per heading, in degrees
clockwise from north, and month. The folder's name is the location's id.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geoloc_dagster.errors import CollectionSourceError
from geoloc_dagster.imagery.archive import Listing, Member, list_source

EXAMPLE = "27+39.29857,-117.91249/90_2007-12.jpg"
_NAMED_AT_MOST = 200
_NUMBER = r"-?[0-9]{1,3}(?:\.[0-9]{1,20})?"
_FOLDER = re.compile(rf"(?P<cell>[0-9]{{1,7}})\+(?P<lat>{_NUMBER}),(?P<lng>{_NUMBER})")
_FILE = re.compile(
    r"(?P<heading>[0-9]{1,3}(?:\.[0-9]{1,6})?)_(?P<year>[0-9]{4})-(?P<month>[0-9]{2})\.(?:jpg|jpeg|png|webp)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class SampledName:
    """What the path of a picture says."""

    location_id: str
    cell: int
    lat_deg: float
    lng_deg: float
    heading_deg: float
    captured_on: dt.date

    @classmethod
    def parse(cls, path: str) -> SampledName | None:
        """Read `…/27+39.29857,-117.91249/90_2007-12.jpg`; None for any other pattern, position, heading or month.

        The date is the first of its month: the collection knows no days.
        """
        pure = PurePosixPath(path)
        place, picture = _FOLDER.fullmatch(pure.parent.name), _FILE.fullmatch(pure.name)
        if place is None or picture is None:
            return None
        lat, lng, heading = float(place["lat"]), float(place["lng"]), float(picture["heading"])
        year, month = int(picture["year"]), int(picture["month"])
        if abs(lat) > 90 or abs(lng) > 180 or heading >= 360 or year < 1900 or not 1 <= month <= 12:
            return None
        return cls(pure.parent.name, int(place["cell"]), lat, lng, heading, dt.date(year, month, 1))


@dataclass(frozen=True, slots=True)
class SampledLocation:
    """One location of such a collection: the cell that its name gives, its position, and the month of its newest picture."""

    location_id: str
    cell: int
    lat_deg: float
    lng_deg: float
    newest: dt.date


def is_sampled(listing: Listing) -> bool:
    """Whether any picture lies in a folder that is named like a location of such a sample."""
    return any(_FOLDER.fullmatch(PurePosixPath(member.name).parent.name) for member in listing.members)


def named_members(path: Path, listing: Listing) -> list[tuple[SampledName, Member]]:
    """The pictures of a sampled folder, by what their paths say.

    Raises:
        CollectionSourceError: pictures are named otherwise, or two are of the same location, heading and month; all are named.
    """
    found: dict[tuple[str, float, dt.date], tuple[SampledName, Member]] = {}
    bad: list[str] = []
    for member in listing.members:
        name = SampledName.parse(member.name)
        if name is None or (name.location_id, name.heading_deg, name.captured_on) in found:
            bad.append(member.name)
        else:
            found[name.location_id, name.heading_deg, name.captured_on] = name, member
    if bad or not found:
        more = f" and {len(bad) - _NAMED_AT_MOST:,} more" if len(bad) > _NAMED_AT_MOST else ""
        said = ", ".join(map(repr, bad[:_NAMED_AT_MOST])) + more
        raise CollectionSourceError(
            f"{path}: {len(bad)} of {len(listing.members)} pictures are named otherwise, or a second time ({said or 'none'}); "
            f"expected names like {EXAMPLE!r}"
        )
    return list(found.values())


def read_sampled_locations(sources: Sequence[Path]) -> list[SampledLocation]:
    """Every location of sampled folders or tar files, by cell and then by name.

    Raises:
        CollectionSourceError, UnsafeArchiveError, UnsafeFileError: a source cannot be read, or not as such a sample; or none is
            named.
    """
    if not sources:
        raise CollectionSourceError("no folder or archive of pictures is named")
    locations: dict[str, SampledLocation] = {}
    for path in sources:
        for name, _ in named_members(path, list_source(path)):
            known = locations.get(name.location_id)
            newest = name.captured_on if known is None else max(known.newest, name.captured_on)
            locations[name.location_id] = SampledLocation(name.location_id, name.cell, name.lat_deg, name.lng_deg, newest)
    return sorted(locations.values(), key=lambda location: (location.cell, location.location_id))
