"""The emulated planet's photos: what they show follows from where and when they were taken."""

from __future__ import annotations

import datetime as dt
import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from geoloc_dagster.emulator.planet import PixelClass, Planet
from geoloc_dagster.emulator.planet_climate import ZONES, climate_of, sun_elevation_deg
from geoloc_dagster.emulator.planet_list import PlanetPhoto
from geoloc_dagster.emulator.planet_nature import outline

SEED = 0
DRAW = (
    "import hashlib; from geoloc_dagster.emulator.planet import Planet; p = Planet(0); "
    "print(*[hashlib.sha256(p.picture(n).jpeg() + p.picture(n).class_map()).hexdigest() for n in range(40)])"
)


@pytest.fixture(scope="module")
def planet() -> Planet:
    return Planet(SEED)


@pytest.fixture(scope="module")
def photos(planet: Planet) -> list[PlanetPhoto]:
    return [planet.photo(number) for number in range(12_000)]


def histogram(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    levels = (rgb // 52).astype(np.int64)
    bins = np.bincount((levels[..., 0] * 25 + levels[..., 1] * 5 + levels[..., 2]).ravel(), minlength=125)
    return np.sqrt(bins / bins.sum())


def likeness(planet: Planet, pairs: list[tuple[PlanetPhoto, PlanetPhoto]]) -> float:
    """Mean overlap of the colours of pairs of photos, 0 to 1."""
    return float(np.mean([histogram(planet.draw(a).rgb) @ histogram(planet.draw(b).rgb) for a, b in pairs]))


def test_another_process_draws_the_same_bytes() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", DRAW], capture_output=True, check=True, env={"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    ]
    assert len(runs[0].split()) == 40
    assert runs[0] == runs[1]


def test_the_order_in_which_photos_are_asked_for_makes_no_difference(planet: Planet) -> None:
    forwards = [planet.picture(number).jpeg() for number in range(30)]
    other = Planet(SEED)
    assert [other.picture(number).jpeg() for number in reversed(range(30))][::-1] == forwards


@pytest.mark.parametrize("size", [(128, 96), (64, 64), (320, 240)])
def test_a_photo_has_the_size_that_was_asked_for(planet: Planet, size: tuple[int, int]) -> None:
    picture = planet.picture(5, size)
    with Image.open(io.BytesIO(picture.jpeg())) as photo, Image.open(io.BytesIO(picture.class_map())) as classes:
        assert (photo.size, photo.format) == (size, "JPEG")
        assert (classes.size, classes.mode) == (size, "L")


@pytest.mark.parametrize("size", [(8, 96), (128, 5_000)])
def test_an_impossible_size_is_refused(planet: Planet, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="16 to 1000 pixels"):
        planet.picture(0, size)


@pytest.mark.parametrize("scene", ["natural", "urban"])
def test_photos_of_a_place_look_more_alike_than_those_of_different_places(
    planet: Planet, photos: list[PlanetPhoto], scene: str
) -> None:
    some = [photo for photo in photos if photo.scene == scene and photo.cluster is not None]
    noon = [replace(photo, hour=12.0, date=photo.date.replace(month=6, day=15)) for photo in some]
    of_place: dict[tuple[int | None, int], list[PlanetPhoto]] = {}
    for photo in noon:
        of_place.setdefault((photo.cluster, photo.group), []).append(photo)
    near = [(group[0], group[1]) for group in of_place.values() if len(group) > 1][:150]
    far = [(near[k][0], near[j][1]) for k in range(150) for j in [(k + 61) % 150] if near[k][0].cluster != near[j][1].cluster]
    assert likeness(planet, near) > likeness(planet, far) + 0.04


def green(planet: Planet, photo: PlanetPhoto) -> float:
    """How much greener than red the vegetation of a photo is."""
    picture = planet.draw(photo)
    seen = picture.rgb[picture.classes == PixelClass.VEGETATION].astype(np.float64)
    return float((seen[:, 1] - seen[:, 0]).mean()) if len(seen) > 200 else 0.0


@pytest.mark.parametrize(("south", "greener", "browner"), [(False, 7, 1), (True, 1, 7)])
def test_the_seasons_of_the_two_halves_are_opposite(
    planet: Planet, photos: list[PlanetPhoto], south: bool, greener: int, browner: int
) -> None:
    woods = [
        photo
        for photo in photos
        if photo.group == 8
        and (photo.lat_deg < 0) == south
        and climate_of(SEED, photo.lat_deg, photo.lng_deg).zone in ("temperate", "boreal")
        and climate_of(SEED, photo.lat_deg, photo.lng_deg).swing_c > 6
    ][:25]
    assert len(woods) >= 8
    month = {m: [green(planet, replace(p, date=dt.date(2010, m, 15), hour=12.0)) for p in woods] for m in (greener, browner)}
    assert np.mean(month[greener]) > np.mean(month[browner]) + 8


def test_winter_is_white_in_the_north_and_the_tropics_know_none() -> None:
    yakutsk, manaus = climate_of(SEED, 62.0, 129.7), climate_of(SEED, -3.1, -60.0)
    assert (yakutsk.snow(1), yakutsk.snow(7)) == (1.0, 0.0)
    assert [manaus.snow(month) for month in range(1, 13)] == [0.0] * 12
    assert yakutsk.temperature_c(7) - yakutsk.temperature_c(1) > 20 > manaus.temperature_c(7) - manaus.temperature_c(1)


@pytest.mark.parametrize(
    ("lat_deg", "lng_deg", "zone"),
    [(23.5, 12.0, "desert"), (-3.0, -61.0, "rainforest"), (71.0, -40.0, "ice"), (48.0, 5.0, "temperate"), (64.0, 100.0, "boreal"),
     (37.2, -4.5, "mediterranean"), (-15.0, 26.0, "savanna")],
)  # fmt: skip
def test_climates_lie_where_they_do_on_earth(lat_deg: float, lng_deg: float, zone: str) -> None:
    assert climate_of(SEED, lat_deg, lng_deg).zone == zone


def test_every_climate_is_photographed(photos: list[PlanetPhoto]) -> None:
    assert {climate_of(SEED, photo.lat_deg, photo.lng_deg).zone for photo in photos[:4_000]} == set(ZONES)


def test_the_sun_stands_where_it_does() -> None:
    assert sun_elevation_deg(0, 80, 12) == pytest.approx(90, abs=1.5)
    assert sun_elevation_deg(70, 355, 12) < 0 < sun_elevation_deg(70, 172, 0)  # polar night, and midnight sun
    assert sun_elevation_deg(-33, 355, 12) > sun_elevation_deg(-33, 172, 12)


def test_class_maps_agree_with_what_is_seen(planet: Planet, photos: list[PlanetPhoto]) -> None:
    seen: set[int] = set()
    of_scene: dict[str, list[npt.NDArray[np.uint8]]] = {"indoor": [], "natural": [], "urban": []}
    for photo in photos[:350]:
        classes = planet.draw(photo).classes
        seen |= set(np.unique(classes).tolist())
        of_scene[photo.scene].append(classes)
    assert seen == {int(kind) for kind in PixelClass}
    inside = np.stack(of_scene["indoor"])
    assert (inside == PixelClass.INTERIOR).mean() > 0.5
    outside = np.stack(of_scene["natural"] + of_scene["urban"])
    assert not (outside == PixelClass.INTERIOR).any()
    assert not (np.stack(of_scene["natural"]) == PixelClass.ROAD).any()
    rows = np.arange(outside.shape[1])
    sky, below = outside == PixelClass.SKY, np.isin(outside, (PixelClass.ROAD, PixelClass.GROUND, PixelClass.WATER))
    means = [float((mask.mean(axis=(0, 2)) * rows).sum() / mask.mean(axis=(0, 2)).sum()) for mask in (sky, below)]
    assert means[0] + 20 < means[1]
    assert not sky[:, int(0.66 * len(rows)) :].any()  # no horizon is that low


def test_sky_is_where_the_map_says_so(planet: Planet, photos: list[PlanetPhoto]) -> None:
    """At noon on clear days the pixels of the sky are brighter and bluer than those of the ground."""
    bluer = []
    for photo in [photo for photo in photos if photo.group in (7, 8)][:60]:
        picture = planet.draw(replace(photo, hour=12.0, date=dt.date(2010, 6 if photo.lat_deg > 0 else 12, 15)))
        blue = picture.rgb[..., 2].astype(np.float64) - picture.rgb[..., 0]
        bluer.append(blue[picture.classes == PixelClass.SKY].mean() > blue[picture.classes != PixelClass.SKY].mean())
    assert np.mean(bluer) > 0.85


def test_the_mountains_of_a_place_depend_on_the_direction_alone(planet: Planet, photos: list[PlanetPhoto]) -> None:
    """Two photos of a view, of different cameras, weather and season, have one skyline; another direction has another one."""
    here = next(p for p in photos if p.group == 7 and climate_of(SEED, p.lat_deg, p.lng_deg).relief > 0.6)

    def skyline(photo: PlanetPhoto) -> npt.NDArray[np.float64]:
        view = planet.view(photo)
        x, y = np.array(outline(view, 0, 0.3)).T
        return np.interp(np.linspace(-0.25, 0.25, 15), np.arctan2(x, view.focal), view.horizon - y)

    other = replace(here, number=here.number + 1, photographer=here.photographer + 1, date=here.date.replace(month=3))
    turned = replace(other, heading_deg=(here.heading_deg + 140) % 360)
    assert np.abs(skyline(here) - skyline(other)).mean() < 0.004
    assert np.abs(skyline(here) - skyline(turned)).mean() > 0.012
