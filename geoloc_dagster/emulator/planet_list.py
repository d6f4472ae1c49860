"""The photos of the emulated planet as a list: who was where, when, and what the photo shows.

Every photo is a pure function of the planet's seed and its own number, so that a longer list begins with a shorter one.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from geoloc_dagster.emulator.hashing import Dice, key_of
from geoloc_dagster.emulator.planet_places import Cluster, Clusters, anywhere, around
from geoloc_dagster.storage import write_bytes

Scene = Literal["indoor", "natural", "urban"]
SCENES: tuple[Scene, ...] = ("indoor", "natural", "urban")
"""In the order of S3_Label."""

GROUPS = (
    "shop", "workplace", "home", "vehicle or station", "sports hall", "museum or church",
    "water or ice", "mountains or desert", "forest or field", "path and fence",
    "street", "landmark", "park", "industry", "houses and gardens", "shops and town",
)  # fmt: skip
"""In the order of S16_Label: six indoor, four natural, six urban ones, after the sixteen groups of the Places365 classes."""

GROUPS_OF: dict[Scene, range] = {"indoor": range(6), "natural": range(6, 10), "urban": range(10, 16)}
COLUMNS = (
    "url", "IMG_ID", "AUTHOR", "LAT", "LON", "S3_Label", "S16_Label", "S365_Label", "Prob_indoor", "Prob_natural", "Prob_urban",
    "date", "licence",
)  # fmt: skip
MOST_PHOTOS = 1_000_000
"""In one list, and so photos of a planet."""

_FIRST_ID = 1_000_000
_PHOTOGRAPHERS = 5_000
_FIRST_DAY, _DAYS = dt.date(2005, 1, 1), 3_650
_LICENCES = ("CC-BY-4.0", "CC-BY-SA-4.0", "http://creativecommons.org/licenses/by-nc/2.0/", "CC-BY-NC-SA-2.0")
_SCENE_SHARES = {"town": (0.26, 0.20, 0.54), "sight": (0.12, 0.64, 0.24)}
_GROUP_SHARES: dict[Scene, tuple[float, ...]] = {
    "indoor": (2, 2, 4, 2, 1, 3),
    "natural": (3, 3, 4, 2),
    "urban": (5, 3, 2, 1, 4, 4),
}
# How much a photo of the row looks like one of the column to a classifier, on average.
_CONFUSION = {"indoor": (0.0, 0.02, 0.07), "natural": (0.01, 0.0, 0.12), "urban": (0.05, 0.10, 0.0)}


@dataclass(frozen=True, slots=True)
class PlanetPhoto:
    """One photo.

    Attributes:
        number: from 0; the photo is a function of it and of the seed.
        img_id: `ab/cd/1000007.jpg`, as published lists have them.
        author: the photographer's name.
        photographer: the photographer's number; 0 takes the most photos.
        outing: key of the walk on which it was taken; photos of a walk lie near each other.
        cluster: number of the nearest famous place on the walk; None far from all.
        lat_deg: position, to a millionth of a degree.
        lng_deg: likewise.
        date: of the walk.
        hour: of local solar time.
        heading_deg: where the camera looks.
        scene: of three classes; always the likeliest of `probabilities`.
        group: of sixteen, see GROUPS.
        label: of 365, in an order of its own (not that of Places365): all of a group lie together.
        probabilities: of indoor, natural and urban; they add up to 1 in steps of 1e-6.
        licence: as published.
    """

    number: int
    img_id: str
    author: str
    photographer: int
    outing: int
    cluster: int | None
    lat_deg: float
    lng_deg: float
    date: dt.date
    hour: float
    heading_deg: float
    scene: Scene
    group: int
    label: int
    probabilities: tuple[float, float, float]
    licence: str


@dataclass(frozen=True, slots=True)
class _Outing:
    key: int
    cluster: Cluster | None
    lat_deg: float
    lng_deg: float
    date: dt.date


class PhotoBook:
    """The photos of one planet by their numbers.

    Args:
        seed: of the planet.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.clusters = Clusters(seed)
        self._outing = lru_cache(maxsize=20_000)(self._new_outing)

    def photo(self, number: int) -> PlanetPhoto:
        """The photo of a number, 0 to MOST_PHOTOS - 1."""
        dice = Dice(self.seed, 921, number)
        photographer = int(_PHOTOGRAPHERS * dice.unit() ** 2)
        outing = self._outing(photographer, int(12 * dice.unit() ** 2 * Dice(self.seed, 922, photographer).between(0.05, 1)))
        lat_deg, lng_deg = around(dice, outing.lat_deg, outing.lng_deg, 0.12, 20.0)
        kind = "sight" if outing.cluster is None else outing.cluster.kind
        scene = dice.pick(SCENES, _SCENE_SHARES[kind])
        group = dice.pick(GROUPS_OF[scene], _GROUP_SHARES[scene])
        first, last = group * 365 // len(GROUPS), (group + 1) * 365 // len(GROUPS) - 1
        return PlanetPhoto(
            number=number,
            img_id=img_id(self.seed, number),
            author=f"photographer_{photographer:04d}",
            photographer=photographer,
            outing=outing.key,
            cluster=None if outing.cluster is None else outing.cluster.number,
            lat_deg=round(lat_deg, 6),
            lng_deg=round(lng_deg, 6),
            date=outing.date,
            hour=dice.between(8.5, 16.5) if dice.chance(0.92) else dice.between(16.5, 21.5),
            heading_deg=dice.between(0, 360),
            scene=scene,
            group=group,
            label=dice.integer(first, last),
            probabilities=_probabilities(dice, scene),
            licence=dice.pick(_LICENCES, (40, 30, 20, 10)),
        )

    def _new_outing(self, photographer: int, number: int) -> _Outing:
        dice, home = Dice(self.seed, 923, photographer, number), self.clusters.pick(Dice(self.seed, 924, photographer))
        kind = dice.pick(("home", "near", "far", "scattered"), (50, 19, 23, 8))
        cluster = {"home": home, "near": self.clusters.all[dice.pick(home.near)], "far": self.clusters.pick(dice)}.get(kind)
        if cluster is None:
            lat_deg, lng_deg = anywhere(dice)
        else:
            lat_deg, lng_deg = around(dice, cluster.lat_deg, cluster.lng_deg, cluster.spread_km)
        date = _FIRST_DAY + dt.timedelta(days=dice.integer(0, _DAYS))
        return _Outing(dice.key(), cluster, lat_deg, lng_deg, date)


def img_id(seed: int, number: int) -> str:
    """The published id of a photo."""
    folder = key_of(seed, 925, number) & 0xFFFF
    return f"{folder >> 8:02x}/{folder & 0xFF:02x}/{_FIRST_ID + number}.jpg"


def number_of(seed: int, img_id_: str) -> int | None:
    """The number of the photo of a published id; None where there is none."""
    digits = img_id_.rpartition("/")[2].removesuffix(".jpg")
    number = int(digits) - _FIRST_ID if digits.isascii() and digits.isdecimal() and len(digits) < 10 else -1
    return number if 0 <= number < MOST_PHOTOS and img_id(seed, number) == img_id_ else None


def list_csv(book: PhotoBook, base_url: str, photos: int) -> Iterator[str]:
    """The list of the first so many photos, some thousand rows at a time.

    Args:
        book: of the planet.
        base_url: of the host, e.g. `http://127.0.0.1:8300`; the photos lie below `/planet/photos/` there.
        photos: how many.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number in range(photos):
        writer.writerow(_row(book.photo(number), base_url.rstrip("/")))
        if number % 2_000 == 1_999:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def write_planet_list(path: Path, base_url: str, photos: int, seed: int) -> Path:
    """Write the list of a planet's first photos, atomically: the very bytes that the emulator of that seed serves.

    Raises:
        ValueError: there are not so many photos.
    """
    if not 1 <= photos <= MOST_PHOTOS:
        raise ValueError(f"a planet has 1 to {MOST_PHOTOS:,} photos, not {photos:,}")
    write_bytes(path, "".join(list_csv(PhotoBook(seed), base_url, photos)).encode())
    return path


def _row(photo: PlanetPhoto, base_url: str) -> list[str]:
    return [
        f"{base_url}/planet/photos/{photo.img_id}",
        photo.img_id,
        photo.author,
        f"{photo.lat_deg:.6f}",
        f"{photo.lng_deg:.6f}",
        str(SCENES.index(photo.scene)),
        str(photo.group),
        str(photo.label),
        *(f"{share:.6f}" for share in photo.probabilities),
        photo.date.isoformat(),
        photo.licence,
    ]


def _probabilities(dice: Dice, scene: Scene) -> tuple[float, float, float]:
    """Of a classifier that is mostly sure, sometimes in doubt, and never wrong about the first place."""
    doubt = 0.3 + 3.5 * dice.unit() ** 3
    shares = [confusion * doubt * dice.between(0.3, 1.7) for confusion in _CONFUSION[scene]]
    most = 0.49 / max(sum(shares), 0.49)
    millionths = [int(share * most * 1e6) for share in shares]
    millionths[SCENES.index(scene)] = 1_000_000 - sum(millionths)
    return millionths[0] / 1e6, millionths[1] / 1e6, millionths[2] / 1e6
