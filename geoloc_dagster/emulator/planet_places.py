"""Where the photographers of the emulated planet go: towns and sights of very different fame, and spots between them."""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.planet_climate import Zone, climate_of
from geoloc_dagster.emulator.planet_fields import moved, smooth, vector
from geoloc_dagster.emulator.planet_land import on_land

CLUSTERS = 900
FARTHEST_KM = 300.0
_FAME, _HEAD = 1.0, 5.0
_NEIGHBOURS = 12
_VISITED: dict[Zone, float] = {
    "ice": 0.06, "boreal": 0.18, "temperate": 1.0, "mediterranean": 1.0, "steppe": 0.4, "desert": 0.2, "savanna": 0.5,
    "rainforest": 0.45,
}  # fmt: skip

Kind = Literal["town", "sight"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A town, or a sight in the country, that draws photographers.

    Attributes:
        number: by fame, 0 for the most famous.
        lat_deg: of its middle.
        lng_deg: likewise.
        kind: what is there.
        spread_km: how far around it most photos are taken.
        near: numbers of those nearest to it, itself first.
    """

    number: int
    lat_deg: float
    lng_deg: float
    kind: Kind
    spread_km: float
    near: tuple[int, ...]


class Clusters:
    """All clusters of one planet; made in about a second.

    Args:
        seed: of the planet.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        spots = [self._spot(number) for number in range(CLUSTERS)]
        vectors = np.array([vector(lat_deg, lng_deg) for lat_deg, lng_deg in spots])
        self.all: list[Cluster] = []
        for number, (lat_deg, lng_deg) in enumerate(spots):
            dice = Dice(seed, 912, number)
            near = np.argsort(((vectors - vectors[number]) ** 2).sum(axis=1), kind="stable")[:_NEIGHBOURS].tolist()
            kind: Kind = "town" if number * 0.618034 % 1 < 0.62 else "sight"
            spread_km = math.exp(dice.between(math.log(0.8), math.log(14.0))) * (1.0 if kind == "town" else 1.4)
            self.all.append(Cluster(number, lat_deg, lng_deg, kind, spread_km, tuple(near)))
        weights = [1 / (rank + _HEAD) ** _FAME for rank in range(CLUSTERS)]
        self._upto = list(itertools.accumulate(weights))

    def pick(self, dice: Dice) -> Cluster:
        """One, the famous ones more often."""
        return self.all[min(bisect.bisect(self._upto, dice.unit() * self._upto[-1]), CLUSTERS - 1)]

    def _spot(self, number: int) -> tuple[float, float]:
        dice = Dice(self._seed, 911, number)
        while True:
            lat_deg, lng_deg = anywhere(dice)
            crowd = 0.5 + 0.5 * smooth(self._seed, 31, 2600, vector(lat_deg, lng_deg))
            if dice.chance(_VISITED[climate_of(self._seed, lat_deg, lng_deg).zone] * min(max(crowd, 0.08), 1.0)):
                return lat_deg, lng_deg


def anywhere(dice: Dice) -> tuple[float, float]:
    """A position on land, each square kilometre as likely as any other."""
    while True:
        lat_deg, lng_deg = math.degrees(math.asin(dice.between(-0.83, 0.985))), dice.between(-180, 180)
        if on_land(lat_deg, lng_deg):
            return lat_deg, lng_deg


def around(dice: Dice, lat_deg: float, lng_deg: float, spread_km: float, most_km: float = FARTHEST_KM) -> tuple[float, float]:
    """A position on land near another one: most within the spread, few very far; the other one where all tries are wet."""
    for _ in range(12):
        distance_km = min(spread_km * 0.55 * ((1 - dice.unit()) ** -0.75 - 1), most_km)
        spot = moved(lat_deg, lng_deg, dice.between(0, 360), distance_km)
        if on_land(*spot):
            return spot
    return lat_deg, lng_deg
