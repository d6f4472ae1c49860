"""Who gave pictures of the emulated city to Panoramax: pictures, their collections, and how STAC items say it."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.limits import Clock

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City, Place, Snapshot

SIZES_PX = {"hd": 2560, "sd": 2048, "thumb": 500}
FLAT_FOV_DEG = 70.0
_LICENCES = {
    "etalab-2.0": "https://spdx.org/licenses/etalab-2.0.html",
    "CC-BY-SA-4.0": "https://spdx.org/licenses/CC-BY-SA-4.0.html",
    "proprietary": None,
}
_EXTENSIONS = ("view/v1.0.0", "perspective-imagery/v1.0.0")
_STREET = 12  # bits of a place's id that count along its street


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: who took it, how, and under which licence, all decided by the seed."""

    item_id: str
    collection_id: str
    place: Place
    snapshot: Snapshot
    taken_at: dt.datetime
    heading_deg: float
    is_360: bool
    has_compass: bool
    licence: str
    producer: str

    @property
    def name(self) -> str:
        """It in words that stay the same."""
        return f"{self.snapshot.lat_deg:.7f},{self.snapshot.lng_deg:.7f}/{self.snapshot.captured_on:%Y-%m}"


class Contributors:
    """The pictures of one city.

    Args:
        city: what there was to see.
        seed: decides on everything.
        clock: a picture exists once its month is over.
    """

    def __init__(self, city: City, seed: int, clock: Clock) -> None:
        self._city = city
        self._seed = seed
        self._clock = clock

    def within(self, west: float, south: float, east: float, north: float) -> list[Picture]:
        """Every picture of a box, edges included."""
        places = self._city.within(west - 1e-4, south - 1e-4, east + 1e-4, north + 1e-4)
        inside = [picture for place in places for picture in self._pictures(place)]
        return [p for p in inside if south <= p.snapshot.lat_deg <= north and west <= p.snapshot.lng_deg <= east]

    def picture(self, item_id: str) -> Picture | None:
        """The picture of an id, None where there is none."""
        found = self._decoded(item_id, "item")
        place = None if found is None else self._city.place(found[0])
        pictures = [] if place is None else self._pictures(place)
        return next((picture for picture in pictures if picture.item_id == item_id), None)

    def collection(self, collection_id: str) -> list[Picture] | None:
        """The pictures of one street and drive in their order; None where there is no such collection."""
        found = self._decoded(collection_id, "collection")
        if found is None:
            return None
        places = [self._city.place(found[0] << _STREET | k) for k in range(1 << _STREET)]
        own = [picture for place in places if place is not None for picture in self._pictures(place, found[1])]
        return sorted(own, key=lambda picture: (picture.taken_at, picture.item_id)) or None

    def describe(self, picture: Picture, root: str) -> dict[str, Any]:
        """It as an item."""
        lat, lng = picture.snapshot.lat_deg, picture.snapshot.lng_deg
        address = f"{root}/api/pictures/{picture.item_id}"
        licence_url = _LICENCES[picture.licence]
        others = [other for other in self._pictures(picture.place) if other.item_id != picture.item_id]
        links = [{"rel": "related", "href": self._href(other, root)} for other in others]
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in _EXTENSIONS],
            "id": picture.item_id,
            "collection": picture.collection_id,
            "geometry": {"type": "Point", "coordinates": [lng, lat]},
            "bbox": [lng, lat, lng, lat],
            "providers": [{"name": picture.producer, "roles": ["producer"], "id": self._id(0, 0, picture.producer)}],
            "properties": self._properties(picture, address),
            "assets": {name: {"href": f"{address}/{name}.jpg", "type": "image/jpeg", "roles": ["data"]} for name in SIZES_PX},
            "links": links + ([{"rel": "license", "href": licence_url}] if licence_url else []),
        }

    def _properties(self, picture: Picture, address: str) -> dict[str, Any]:
        taken = picture.taken_at.isoformat()
        said: dict[str, Any] = {
            "datetime": taken.replace("+00:00", "Z"),
            "datetimetz": taken,
            "created": (picture.taken_at + dt.timedelta(hours=5)).isoformat(),
            "license": picture.licence,
            "geovisio:status": "ready",
            "geovisio:producer": picture.producer,
            "geovisio:rank_in_collection": (picture.place.place_id & ((1 << _STREET) - 1)) + 1,
            "geovisio:image": f"{address}/hd.jpg",
            "geovisio:thumbnail": f"{address}/thumb.jpg",
            "pers:interior_orientation": {"field_of_view": 360 if picture.is_360 else FLAT_FOV_DEG},
            "pers:pitch": 0.0,
            "pers:roll": 0.0,
        }
        return said | ({"view:azimuth": picture.heading_deg} if picture.has_compass else {})

    def _href(self, picture: Picture, root: str) -> str:
        return f"{root}/api/collections/{picture.collection_id}/items/{picture.item_id}"

    def _pictures(self, place: Place, number: int | None = None) -> list[Picture]:
        """The pictures of a place that exist today; of one drive where its number is given."""
        today = self._clock.today()
        past = [s for s in place.snapshots if (s.captured_on.year, s.captured_on.month) < (today.year, today.month)]
        wanted = [s for s in past if number is None or s.number == number]
        return [picture for s in wanted if (picture := self._picture(place, s)) is not None]

    def _picture(self, place: Place, snapshot: Snapshot) -> Picture | None:
        dice = Dice(self._seed, 61, place.place_id, snapshot.number)
        if dice.chance(0.05):  # nobody was here that time
            return None
        day = snapshot.captured_on + dt.timedelta(days=dice.integer(0, 27))
        return Picture(
            self._id(place.place_id, snapshot.number, "item"),
            self._id(place.place_id >> _STREET, snapshot.number, "collection"),
            place,
            snapshot,
            dt.datetime(day.year, day.month, day.day, dice.integer(8, 17), dice.integer(0, 59), tzinfo=dt.UTC),
            round(dice.between(0, 360), 1) % 360,
            dice.chance(0.7),
            dice.chance(0.97),
            dice.pick(tuple(_LICENCES), (60, 35, 5)),
            f"walker_{dice.integer(1, 30)}",
        )

    def _id(self, thing: int, number: int, kind: str) -> str:
        """A UUID that says to its maker what it is of."""
        plain = thing.to_bytes(7, "big") + number.to_bytes(1, "big")
        key = f"{self._seed} {kind}".encode()
        return str(uuid.UUID(bytes=plain + hashlib.blake2b(plain, key=key, digest_size=8).digest()))

    def _decoded(self, text: str, kind: str) -> tuple[int, int] | None:
        try:
            plain = uuid.UUID(text).bytes[:8]
        except ValueError:
            return None
        thing, number = int.from_bytes(plain[:7], "big"), plain[7]
        return (thing, number) if text == self._id(thing, number, kind) else None
