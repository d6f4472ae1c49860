"""Who walked through the emulated city with a camera: pictures with their errors of position, sequences, and their addresses."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.limits import Clock

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City, Place, Snapshot

THUMBS_PX = {"256": 256, "1024": 1024, "2048": 2048, "original": 2560}
"""Widths of the pictures; a flat one is never wider than it was taken."""
FLAT_PX, FLAT_FOV_DEG = (640, 480), 70.0
FLAT_FOCAL = 0.5 / math.tan(math.radians(FLAT_FOV_DEG / 2))
TTL_S = 3_600
"""Seconds for which the address of a picture is valid."""
_PER_SNAPSHOT = 2  # at some places somebody took a second picture of the same day
_NUMBERS = 32  # more dates than any place has
_FIRST_ID = 10**15
_ERROR_M, _ERROR_DEG = 3.0, 8.0
_M_PER_DEG = 111_320.0


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: the truth about it, and what its maker's phone said, all decided by the seed.

    Attributes:
        image_id: decimal.
        place: where it was taken.
        snapshot: its date, and where the camera really stood.
        captured_ms: since 1970.
        heading_deg: where the camera really looked.
        raw: (lat, lng) as the phone said, degrees.
        raw_heading_deg: likewise.
        is_computed: whether the service worked out the truth.
        camera_type: perspective, spherical or equirectangular.
        sequence_id: 22 characters; one street on one date.
        creator_id: None where the account is gone.
        organization_id: None for private people.
        quality_score: 0 to 1.
        is_deleted: tiles still have it, entities do not.
    """

    image_id: str
    place: Place
    snapshot: Snapshot
    captured_ms: int
    heading_deg: float
    raw: tuple[float, float]
    raw_heading_deg: float
    is_computed: bool
    camera_type: str
    sequence_id: str
    creator_id: int | None
    organization_id: int | None
    quality_score: float
    is_deleted: bool

    @property
    def is_pano(self) -> bool:
        """Whether it goes all round."""
        return self.camera_type != "perspective"

    @property
    def creator(self) -> str:
        """The name of the account."""
        return f"walker_{self.creator_id}"

    @property
    def name(self) -> str:
        """It in words that stay the same."""
        return f"{self.snapshot.lat_deg:.7f},{self.snapshot.lng_deg:.7f}/{self.snapshot.captured_on:%Y-%m}/{self.image_id}"


class Walkers:
    """The pictures of one city.

    Args:
        city: what there was to see.
        seed: decides on everything.
        clock: a picture exists once its month is over.
        time_of_day_s: seconds since midnight; addresses expire by it.
    """

    def __init__(
        self, city: City, seed: int, clock: Clock, time_of_day_s: Callable[[], float] = lambda: time.time() % 86_400
    ) -> None:
        self._city = city
        self._seed = seed
        self._clock = clock
        self._time_of_day_s = time_of_day_s

    @property
    def today(self) -> dt.date:
        """The service's."""
        return self._clock.today()

    def picture(self, image_id: str) -> Picture | None:
        """The picture of an id that exists today, deleted or not."""
        if not image_id.isdecimal() or len(image_id) > 19:
            return None
        rest, copy = divmod(int(image_id) - _FIRST_ID, _PER_SNAPSHOT)
        place_id, number = divmod(rest, _NUMBERS)
        place = self._city.place(place_id) if 0 <= place_id < 1 << 56 else None
        past = [] if place is None else self._past(place)
        found = [self._picture(place, s, copy) for s in past if s.number == number] if place is not None else []
        return next((picture for picture in found if picture is not None), None)

    def public(self, image_id: str) -> Picture | None:
        """The same, None where it was deleted."""
        picture = self.picture(image_id)
        return None if picture is None or picture.is_deleted else picture

    def within(self, west: float, south: float, east: float, north: float, *, computed: bool = False) -> list[Picture]:
        """Every picture of a box, deleted ones too, by where their makers' phones say they were, or where they really were."""
        places = self._city.within(west - 1e-3, south - 1e-3, east + 1e-3, north + 1e-3)
        pictures = [picture for place in places for picture in self.of_place(place)]
        spots = [p.raw if not (computed and p.is_computed) else (p.snapshot.lat_deg, p.snapshot.lng_deg) for p in pictures]
        return [p for p, (lat, lng) in zip(pictures, spots, strict=True) if south <= lat < north and west <= lng < east]

    def of_place(self, place: Place) -> list[Picture]:
        """The pictures of a place that exist today, oldest first."""
        made = (self._picture(place, snapshot, copy) for snapshot in self._past(place) for copy in range(_PER_SNAPSHOT))
        return [picture for picture in made if picture is not None]

    def sequence(self, sequence_id: str) -> list[Picture]:
        """The pictures of a sequence, in their order; none where there is no such sequence."""
        try:
            plain = base64.urlsafe_b64decode(sequence_id + "==")
        except ValueError:
            return []
        street, number = int.from_bytes(plain[:6], "big"), int.from_bytes(plain[6:8], "big")
        if sequence_id != self._sequence_id(street, number):
            return []
        places = [place for k in range(1 << 12) if (place := self._city.place(street << 12 | k)) is not None]
        pictures = [picture for place in places for picture in self.of_place(place)]
        return sorted((p for p in pictures if p.sequence_id == sequence_id), key=lambda p: (p.captured_ms, p.image_id))

    def address(self, picture: Picture, size: str, root: str) -> str:
        """Of the picture in one size, valid for an hour."""
        until = int(self._now_s()) + TTL_S
        return f"{root}/cdn/{picture.image_id}/{size}.jpg?oe={until:08x}&oh={self._signature(picture, size, until)}"

    def expired_s(self, picture: Picture, size: str, query: Mapping[str, str]) -> float | None:
        """For how long an address has been no longer valid, 0 where it is; None where its signature is wrong."""
        try:
            until = int(query.get("oe", ""), 16)
        except ValueError:
            return None
        if not hmac.compare_digest(query.get("oh", ""), self._signature(picture, size, until)):
            return None
        return max(0.0, self._now_s() - until)

    def _signature(self, picture: Picture, size: str, until: int) -> str:
        said = f"{picture.image_id}/{size}/{until}".encode()
        return hmac.new(f"cdn {self._seed}".encode(), said, hashlib.sha256).hexdigest()[:24]

    def _now_s(self) -> float:
        """Since 1970, by the service's calendar and the real time of day."""
        return dt.datetime.combine(self.today, dt.time(), dt.UTC).timestamp() + self._time_of_day_s()

    def _past(self, place: Place) -> list[Snapshot]:
        today = self.today
        return [s for s in place.snapshots if (s.captured_on.year, s.captured_on.month) < (today.year, today.month)]

    def _picture(self, place: Place, snapshot: Snapshot, copy: int) -> Picture | None:
        dice = Dice(self._seed, 67, place.place_id, snapshot.number, copy)
        if dice.chance(0.05 if copy == 0 else 0.7):
            return None
        lat, lng = snapshot.lat_deg, snapshot.lng_deg
        day = snapshot.captured_on + dt.timedelta(days=Dice(self._seed, 68, place.place_id, snapshot.number).integer(0, 27))
        at = dt.datetime(day.year, day.month, day.day, 9 + 4 * copy, dice.integer(0, 59), tzinfo=dt.UTC)
        heading_deg = round(dice.between(0, 360), 2) % 360
        east_m, north_m = dice.between(-_ERROR_M, _ERROR_M), dice.between(-_ERROR_M, _ERROR_M)
        return Picture(
            image_id=str(_FIRST_ID + (place.place_id * _NUMBERS + snapshot.number) * _PER_SNAPSHOT + copy),
            place=place,
            snapshot=snapshot,
            captured_ms=int(at.timestamp() * 1000),
            heading_deg=heading_deg,
            raw=(lat + north_m / _M_PER_DEG, lng + east_m / (_M_PER_DEG * math.cos(math.radians(lat)))),
            raw_heading_deg=round(heading_deg + dice.between(-_ERROR_DEG, _ERROR_DEG), 2) % 360,
            is_computed=dice.chance(0.85),
            camera_type=dice.pick(("perspective", "spherical", "equirectangular"), (30, 60, 10)),
            sequence_id=self._sequence_id(place.place_id >> 12, snapshot.number),
            creator_id=None if dice.chance(0.03) else 1 + dice.integer(0, 29),
            organization_id=7_001 if dice.chance(0.2) else None,
            quality_score=round(dice.between(0.3, 1), 3),
            is_deleted=dice.chance(0.02),
        )

    def _sequence_id(self, street: int, number: int) -> str:
        plain = street.to_bytes(6, "big") + number.to_bytes(2, "big")
        digest = hashlib.blake2b(plain, key=f"sequence {self._seed}".encode(), digest_size=8).digest()
        return base64.urlsafe_b64encode(plain + digest).decode().rstrip("=")
