"""The emulated planet: photos from all over an Earth that nobody has to photograph, each with the class of every pixel.

What a photo shows depends on where it was taken, from the climate down to the landmark of its town, so that a photo tells where
it was taken as far as its kind allows: rooms tell little, nature the climate, streets the most. Everything is a pure function of
the planet's seed and of the photo's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geoloc_dagster.emulator.hashing import Dice
from geoloc_dagster.emulator.planet_canvas import Canvas, Lens, PixelClass, encode, encode_map
from geoloc_dagster.emulator.planet_climate import sun_elevation_deg
from geoloc_dagster.emulator.planet_list import PhotoBook, PlanetPhoto
from geoloc_dagster.emulator.planet_looks import Looks
from geoloc_dagster.emulator.planet_rooms import room
from geoloc_dagster.emulator.planet_scenes import NATURAL
from geoloc_dagster.emulator.planet_streets import URBAN
from geoloc_dagster.emulator.planet_things import person
from geoloc_dagster.emulator.planet_view import View
from geoloc_dagster.emulator.planet_weather import weather_of

__all__ = ["SIZE_PX", "Picture", "PixelClass", "Planet"]

SIZE_PX = (128, 96)
MOST_PX = 1_000
_FOCAL = 1.06


@dataclass(frozen=True, slots=True)
class Picture:
    """What a photo shows.

    Attributes:
        rgb: uint8 (height, width, 3).
        classes: uint8 (height, width), numbers of `PixelClass`.
        quality: of its JPEG.
    """

    rgb: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]
    quality: int

    def jpeg(self) -> bytes:
        """The photo as a file."""
        return encode(self.rgb, self.quality)

    def class_map(self) -> bytes:
        """The class map as PNG."""
        return encode_map(self.classes)


class Planet:
    """One planet.

    Args:
        seed: another one is another planet, with the same continents.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.book = PhotoBook(seed)
        self._looks = Looks(seed)
        self._lens = lru_cache(maxsize=8_192)(self._new_lens)

    def photo(self, number: int) -> PlanetPhoto:
        """Where, when and by whom a photo was taken, and what kind of scene it shows."""
        return self.book.photo(number)

    def picture(self, number: int, size: tuple[int, int] = SIZE_PX) -> Picture:
        """Draw a photo.

        Args:
            number: of the photo.
            size: (width, height) in pixels, 16 to 1000.

        Raises:
            ValueError: the size is out of range.
        """
        if not all(16 <= side <= MOST_PX for side in size):
            raise ValueError(f"a photo has 16 to {MOST_PX} pixels a side, not {size}")
        return self.draw(self.photo(number), size)

    def draw(self, photo: PlanetPhoto, size: tuple[int, int] = SIZE_PX) -> Picture:
        """Draw a photo whose facts are known."""
        view = self.view(photo, size)
        if photo.scene == "indoor":
            room(view, photo.group)
        elif photo.scene == "natural":
            NATURAL[photo.group](view)
        else:
            URBAN[photo.group](view)
        if view.dice.chance(0.05):
            person(view, view.dice.between(-0.7, 0.7), view.dice.between(1.7, 2.6))
        lens = self._lens(photo.photographer)
        return Picture(view.canvas.photo(lens, view.dice), view.canvas.classes(), lens.quality)

    def view(self, photo: PlanetPhoto, size: tuple[int, int] = SIZE_PX) -> View:
        """Place, moment and camera of a photo, with nothing drawn yet."""
        dice = Dice(self.seed, 981, photo.number)
        look = self._looks.at(photo.lat_deg, photo.lng_deg, photo.cluster)
        month = photo.date.month + (photo.date.day - 1) / 31
        sun_deg = sun_elevation_deg(photo.lat_deg, photo.date.timetuple().tm_yday, photo.hour)
        weather = weather_of(look.climate, sun_deg, dice)
        light = weather.light
        if photo.scene == "indoor":
            lamp = dice.between(0.72, 1.05)
            light = (lamp * 1.04, lamp, lamp * dice.between(0.8, 1.0))
        canvas = Canvas(*size, light=light, haze=weather.low_sky)
        return View(
            canvas, look, weather, month, photo.heading_deg, _FOCAL * dice.between(0.85, 1.3), dice.between(0.46, 0.62), dice
        )

    def _new_lens(self, photographer: int) -> Lens:
        dice = Dice(self.seed, 982, photographer)
        return Lens(
            tint=(dice.between(0.96, 1.05), dice.between(0.98, 1.02), dice.between(0.95, 1.05)),
            contrast=dice.between(0.9, 1.14),
            noise=dice.between(0.4, 3.2),
            vignette=round(dice.between(0.0, 0.35), 2),
            quality=dice.integer(80, 92),
        )
