"""The emulated planet as a list of photos: who was where, when, and what the photos show."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster.emulator.planet_land import on_land
from geoloc_dagster.emulator.planet_list import (
    COLUMNS,
    GROUPS_OF,
    SCENES,
    PhotoBook,
    PlanetPhoto,
    list_csv,
    number_of,
    write_planet_list,
)
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.distance import geodesic_m
from geoloc_dagster.imagery.photo_table import read_photo_lists

PHOTOS, SEED, HOST = 20_000, 3, "http://127.0.0.1:8300"
WRITER = "import sys; from pathlib import Path; from geoloc_dagster.emulator.planet_list import write_planet_list; "


@pytest.fixture(scope="module")
def book() -> PhotoBook:
    return PhotoBook(SEED)


@pytest.fixture(scope="module")
def photos(book: PhotoBook) -> list[PlanetPhoto]:
    return [book.photo(number) for number in range(PHOTOS)]


def test_another_process_writes_the_same_list(tmp_path: Path, book: PhotoBook) -> None:
    written = tmp_path / "planet.csv"
    arguments = f"write_planet_list(Path({str(written)!r}), {HOST!r}, 2_500, {SEED})"
    subprocess.run([sys.executable, "-c", WRITER + arguments], check=True, env={"PYTHONHASHSEED": "7"})
    assert written.read_text() == "".join(list_csv(book, HOST, 2_500))


def test_a_longer_list_begins_with_a_shorter_one(book: PhotoBook) -> None:
    longer = "".join(list_csv(book, HOST, 300))
    assert longer.startswith("".join(list_csv(PhotoBook(SEED), HOST, 120)))


def test_another_seed_is_another_planet(photos: list[PlanetPhoto]) -> None:
    other = PhotoBook(SEED + 1)
    assert all(other.photo(number).lat_deg != photos[number].lat_deg for number in range(50))


def test_every_row_is_a_photo_that_can_be_collected(tmp_path: Path) -> None:
    path = write_planet_list(tmp_path / "planet.csv", HOST, PHOTOS, SEED)
    table = read_photo_lists([path])
    assert (len(table.photos), table.problems) == (PHOTOS, [])
    assert path.read_text().splitlines()[0].split(",") == list(COLUMNS)
    first = table.photos[0]
    assert first.url.startswith(f"{HOST}/planet/photos/")
    assert first.creator is not None
    assert first.licence is not None
    assert first.captured_on is not None


@pytest.mark.parametrize("photos", [0, 1_000_001])
def test_a_list_of_no_photos_or_too_many_is_refused(tmp_path: Path, photos: int) -> None:
    with pytest.raises(ValueError, match="1 to 1,000,000 photos"):
        write_planet_list(tmp_path / "planet.csv", HOST, photos, SEED)
    assert list(tmp_path.iterdir()) == []


def test_every_photo_is_taken_on_land(photos: list[PlanetPhoto]) -> None:
    assert [photo for photo in photos if not on_land(photo.lat_deg, photo.lng_deg)] == []


@pytest.mark.parametrize(
    ("place", "lat_deg", "lng_deg", "land"),
    [
        ("Madrid", 40.4, -3.7, True), ("Chicago", 41.9, -88.3, True), ("Nairobi", -1.3, 36.8, True), ("Osaka", 34.7, 135.5, True),
        ("Auckland", -37.2, 175.0, True), ("Moscow", 55.7, 37.6, True), ("the Atlantic", 30.0, -40.0, False),
        ("the Pacific", -20.0, -140.0, False), ("the Caspian Sea", 42.0, 51.0, False), ("the Gulf of Mexico", 25.0, -91.0, False),
        ("the date line", 0.0, 180.0, False), ("the South Pole's ocean", -62.0, 20.0, False),
    ],
)  # fmt: skip
def test_the_outlines_are_those_of_the_earth(place: str, lat_deg: float, lng_deg: float, land: bool) -> None:
    assert on_land(lat_deg, lng_deg) == land


def test_photos_are_crowded_like_those_of_real_collections(photos: list[PlanetPhoto]) -> None:
    lat, lng = np.array([(photo.lat_deg, photo.lng_deg) for photo in photos]).T
    sizes = np.sort(np.unique(s2.parents(s2.leaf_ids(lat, lng), 8), return_counts=True)[1])[::-1]
    fullest = max(1, len(sizes) // 100)
    assert 0.15 < sizes[:fullest].sum() / len(photos) < 0.6
    assert (sizes == 1).sum() > len(sizes) / 4  # and many a cell has one photo only


def test_photos_lie_from_metres_to_hundreds_of_kilometres_apart(photos: list[PlanetPhoto]) -> None:
    famous = [photo for photo in photos if photo.cluster == 0]
    lat, lng = np.array([(photo.lat_deg, photo.lng_deg) for photo in famous]).T
    middle = np.median(lat), np.median(lng)
    far_m = geodesic_m(lat, lng, np.full(len(lat), middle[0]), np.full(len(lat), middle[1]))
    assert np.quantile(far_m, 0.5) < 20_000
    assert far_m.max() > 50_000
    walks: dict[int, list[PlanetPhoto]] = {}
    for photo in photos:
        walks.setdefault(photo.outing, []).append(photo)
    pairs = [walk[:2] for walk in walks.values() if len(walk) > 1]
    a, b = (np.array([(pair[k].lat_deg, pair[k].lng_deg) for pair in pairs]) for k in (0, 1))
    apart_m = geodesic_m(a[:, 0], a[:, 1], b[:, 0], b[:, 1])
    assert np.median(apart_m) < 500
    assert len(pairs) > len(photos) / 20


def test_few_photographers_take_many_photos_and_some_travel(photos: list[PlanetPhoto]) -> None:
    counts = Counter(photo.author for photo in photos)
    assert len(counts) > 2_000
    assert max(counts.values()) > 20 * np.median(list(counts.values()))
    clusters: dict[str, set[int | None]] = {}
    for photo in photos:
        clusters.setdefault(photo.author, set()).add(photo.cluster)
    assert 0.2 < np.mean([len(seen) > 1 for seen in clusters.values()]) < 0.95


def test_scenes_have_their_shares_and_their_finer_classes(photos: list[PlanetPhoto]) -> None:
    shares = {scene: sum(photo.scene == scene for photo in photos) / len(photos) for scene in SCENES}
    assert shares == pytest.approx({"indoor": 0.2, "natural": 0.4, "urban": 0.4}, abs=0.04)
    assert all(photo.group in GROUPS_OF[photo.scene] for photo in photos)
    assert {photo.group for photo in photos} == set(range(16))
    of_label = {(photo.label, photo.group) for photo in photos}
    assert {label for label, _ in of_label} == set(range(365))
    assert len(of_label) == 365


def test_soft_labels_add_up_and_name_the_scene_first(photos: list[PlanetPhoto]) -> None:
    soft = np.array([photo.probabilities for photo in photos])
    assert np.abs(soft.sum(axis=1) - 1).max() < 1e-9
    assert (soft >= 0).all()
    assert (soft.argmax(axis=1) == [SCENES.index(photo.scene) for photo in photos]).all()
    assert 0.02 < (soft.max(axis=1) < 0.8).mean() < 0.5  # some doubt, as in reality


def test_an_id_leads_to_its_photo_and_no_other_does(photos: list[PlanetPhoto]) -> None:
    assert all(number_of(SEED, photo.img_id) == photo.number for photo in photos[:500])
    folder, _, name = photos[0].img_id.rpartition("/")
    others = (f"{folder}/{other}.jpg" for other in ("1", "99999999", "x", name))
    for wrong in (name, f"00/00/{name}", *others, ""):
        assert number_of(SEED, wrong) is None
