"""Class maps of a batch: by a model or from the emulator, cut as the crops were, one batch at a time, and nothing twice."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import httpx2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from geoloc_dagster.config import Layout
from geoloc_dagster.config.dataset import CropSettings, SegmentationSettings
from geoloc_dagster.config.settings import Settings
from geoloc_dagster.dataset.class_maps import CLASSES, decode_map, read_class_maps
from geoloc_dagster.dataset.crops import write_crops as make_crops
from geoloc_dagster.dataset.schema import CAPTURES, SEGMENTATION_MAPS
from geoloc_dagster.dataset.segmentation_maps import EmulatedMaps, SegmenterMaps, cut_map, write_segmentation_maps
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.emulator.answers import encode_classes, encode_jpeg
from geoloc_dagster.emulator.city import CLASSES as CITY_CLASSES
from geoloc_dagster.emulator.city import City
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.errors import CollectionSourceError, IntegrityError, ModelMismatchError
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.emulated_maps import MAP_PATH, fetch_maps, map_request
from geoloc_dagster.tables import append_rows, open_table, table_version, verify_table
from geoloc_dagster_tests.dataset.conftest import crop_row, jpeg, make_settings, write_crops
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY

BATCH = "100m-0000"
QUICK = Etiquette(requests_per_second=500, burst=50, attempts=1, breaker_failures=100)
NUMBER = {name: number for number, name in enumerate(CLASSES)}


class Stub:
    """Sky where a picture is bright, road where it is not; counts what it is shown."""

    model_version, size = "stub@1", 32

    def __init__(self, answer: Any = None) -> None:
        self.seen = 0
        self._answer = answer

    def class_maps(self, pictures: np.ndarray) -> np.ndarray:
        assert (pictures.dtype, pictures.shape[1:]) == (np.uint8, (3, 32, 32))
        self.seen += len(pictures)
        if self._answer is not None:
            return self._answer(pictures)
        bright = pictures.mean(axis=1) > 128
        return np.where(bright, NUMBER["sky"], NUMBER["road"]).astype(np.uint8)


def halves(top: int, bottom: int) -> bytes:
    rgb = np.full((48, 48, 3), bottom, np.uint8)
    rgb[:24] = top
    return jpeg(rgb)


def layout_of(folder: Path, batch: str = BATCH) -> Layout:
    """Three crops of one batch: bright above, bright below, and one that cannot be decoded."""
    layout = Layout(folder)
    pictures = [halves(250, 20), halves(20, 250), None]
    write_crops(layout.crops, [crop_row(f"{batch}/c{i}", one, f"p{i}", batch=batch) for i, one in enumerate(pictures)])
    return layout


def write(layout: Layout, stub: Stub, batch: str = BATCH) -> Any:
    return write_segmentation_maps(layout.crops, layout.segmentation_maps, batch, SegmenterMaps(stub, layout.crops))


def rows_of(layout: Layout) -> dict[str, dict[str, Any]]:
    table = open_table(layout.segmentation_maps)
    assert table is not None
    return {row["capture_id"]: row for row in table.to_table().to_pylist()}


def test_a_model_gives_each_crop_a_map_of_its_own_size(tmp_path: Path):
    layout, stub = layout_of(tmp_path), Stub()
    result = write(layout, stub)
    assert (result.rows, result.maps, stub.seen) == (3, 2, 2)
    rows = rows_of(layout)
    first, second = (decode_map(rows[f"{BATCH}/c{i}"]["class_map"]) for i in range(2))
    assert first.shape == (48, 48)
    assert (first[4, 4], first[44, 4], second[4, 4], second[44, 4]) == tuple(NUMBER[n] for n in ("sky", "road", "road", "sky"))
    assert [rows[f"{BATCH}/c0"][name] for name in ("width", "height", "source")] == [48, 48, "stub@1"]
    assert rows[f"{BATCH}/c2"]["class_map"] is rows[f"{BATCH}/c2"]["source"] is None
    assert result.shares["sky"] == pytest.approx(0.5, abs=0.05)
    assert (result.showing["sky"], result.showing["water"]) == (2, 0)
    crops = open_table(layout.crops)
    assert crops is not None
    sha = {row["capture_id"]: row["sha256"] for row in crops.to_table(columns=["capture_id", "sha256"]).to_pylist()}
    assert read_class_maps(layout.segmentation_maps, [f"{BATCH}/c1", f"{BATCH}/c0"], 24, sha)[:, 2, 2].tolist() == [3, 1]


def test_a_batch_is_replaced_whole_others_stay_and_nothing_is_done_twice(tmp_path: Path):
    layout = layout_of(tmp_path, "100m-0001")
    write(layout, Stub(), "100m-0001")
    layout_of(tmp_path)
    stub = Stub()
    write(layout, stub)
    version, others = table_version(layout.segmentation_maps), rows_of(layout)
    again = write(layout, stub)
    assert (again.changed, again.maps, table_version(layout.segmentation_maps), stub.seen) == (False, 2, version, 2)
    other = Stub()
    other.model_version = "stub@2"
    assert write(layout, other).changed
    rows = rows_of(layout)
    assert rows[f"{BATCH}/c0"]["source"] == "stub@2"
    assert {name: row for name, row in rows.items() if "0001" in name} == {n: row for n, row in others.items() if "0001" in n}
    verify_table(layout.segmentation_maps)
    read_class_maps(layout.segmentation_maps, [f"{BATCH}/c0"], 48)  # the list of classes outlives a replaced batch


KILLED = """
import sys
from pathlib import Path
from geoloc_dagster_tests.dataset.test_segmentation_maps import Layout, Stub, write
write(Layout(Path(sys.argv[1])), Stub())
"""


@pytest.mark.slow
def test_maps_that_were_killed_anywhere_are_made_whole_by_the_next_run(tmp_path: Path):
    layout = layout_of(tmp_path)
    for point in ("maps.begun:1", "maps.made:1", "maps.written:1"):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        killed = subprocess.run(command, env={**os.environ, "GEOLOC_FAILPOINT": point}, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, f"{point} was never reached"
        table = open_table(layout.segmentation_maps)
        assert (0 if table is None else table.count_rows()) == (3 if point.startswith("maps.written") else 0)
    stub = Stub()
    assert write(layout, stub).changed  # the killed one left no note of having finished
    assert (len(rows_of(layout)), stub.seen) == (3, 2)
    verify_table(layout.segmentation_maps)


@pytest.mark.parametrize(
    "answer",
    [
        lambda pictures: np.zeros((len(pictures), 16, 16), np.uint8),
        lambda pictures: np.zeros((len(pictures), 32, 32), np.int64),
        lambda pictures: np.full((len(pictures), 32, 32), len(CLASSES), np.uint8),
        lambda pictures: np.zeros((1, 32, 32), np.uint8),
    ],
)
def test_a_model_that_gives_something_else_is_refused_and_nothing_is_written(tmp_path: Path, answer: Any):
    layout = layout_of(tmp_path)
    with pytest.raises(ModelMismatchError, match="stub@1"):
        write(layout, Stub(answer))
    assert open_table(layout.segmentation_maps) is None


def test_a_map_is_cut_where_its_crop_was_cut():
    classes = np.zeros((60, 80), np.uint8)
    classes[:, :10], classes[:, 70:], classes[20:40, 30:50] = NUMBER["sky"], NUMBER["road"], NUMBER["person"]
    capture = {"capture_id": "c", "width": 80, "height": 60}
    centre = cut_map(classes, capture, CropSettings(size=60))
    assert set(np.unique(centre)) == {0, NUMBER["person"]}
    assert (centre == NUMBER["person"]).sum() == 400
    boxed = cut_map(classes, capture, CropSettings(size=20, box=(60, 0, 80, 20)))
    assert (boxed[:, :10] == 0).all()
    assert (boxed[:, 10:] == NUMBER["road"]).all()
    halved = cut_map(classes, {**capture, "width": 40, "height": 30}, CropSettings(size=30))
    assert (halved[10:20, 10:20] == NUMBER["person"]).all()
    with pytest.raises(IntegrityError, match="has 80 x 60 px, its picture 60 x 60"):
        cut_map(classes, {**capture, "width": 60}, CropSettings(size=60))


# --- from the emulator -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def city() -> City:
    return City(ORIGIN, 7)


@pytest.fixture(scope="module")
def emulator(city: City) -> Any:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=city) as running:
        yield running


def captures_of(emulator: EmulatorThread, city: City, layout: Layout, size: tuple[int, int], headings: list[int]) -> list[dict]:
    """Captures as the Static API of the emulated city gives them, in the table."""
    place = city.nearest(*ORIGIN, 500)
    assert place is not None
    where = {"location": f"{place.lat_deg:.7f},{place.lng_deg:.7f}"}
    said = httpx2.get(f"{emulator.url}/maps/api/streetview/metadata", params=where).json()
    rows = []
    for heading in headings:
        params = {"size": f"{size[0]}x{size[1]}", "pano": said["pano_id"], "heading": str(heading), "fov": "90", "pitch": "5"}
        answer = httpx2.get(f"{emulator.url}/maps/api/streetview", params=params)
        row = dict.fromkeys(CAPTURES.names) | {
            "capture_id": f"c{heading}", "batch": BATCH, "image": answer.content, "width": size[0], "height": size[1],
            "sha256": hashlib.sha256(answer.content).hexdigest(), "provider": "emulator", "source": "emulator",
            "pano_id": said["pano_id"], "location_id": "1", "lat_deg": 0.0, "lng_deg": 0.0, "capture_precision": "month",
            "heading_deg": float(heading), "fov_deg": 90.0, "fetched_at": 0, "run_id": "r", "source_url": str(answer.url),
            "licence": "CC0-1.0", "attribution": "a", "status": "ok",
        }  # fmt: skip
        rows.append(row)
    append_rows(layout.panoramas, pa.Table.from_pylist(rows, schema=CAPTURES))
    return rows


def client_of(emulator: EmulatorThread) -> ServiceClient:
    return ServiceClient("emulator", emulator.url, QUICK)


def test_maps_of_the_city_fit_its_crops_pixel_by_pixel(tmp_path: Path, emulator: EmulatorThread, city: City):
    """The picture is cut from the middle of a wide one: a map of another heading, or cut elsewhere, would not fit."""
    layout, cut = Layout(tmp_path), CropSettings(size=160)
    headings = [0, 90, 180, 270]
    captures_of(emulator, city, layout, (400, 240), headings)
    make_crops(layout.panoramas, layout.crops, BATCH, cut)
    emulator.set_today(TODAY.replace(year=TODAY.year + 1))  # by then panorama ids have changed
    source = EmulatedMaps(client_of(emulator), layout.panoramas, layout.crops, BATCH, cut)
    result = write_segmentation_maps(layout.crops, layout.segmentation_maps, BATCH, source)
    emulator.set_today(TODAY)
    assert (result.rows, result.maps) == (4, 4)
    ids = [f"c{heading}" for heading in headings]
    maps = read_class_maps(layout.segmentation_maps, ids, 160)
    crops = open_table(layout.crops)
    assert crops is not None
    encoded = {row["capture_id"]: row["image"] for row in crops.to_table(columns=["capture_id", "image"]).to_pylist()}
    pictures = [np.asarray(Image.open(io.BytesIO(encoded[one])).convert("RGB"), np.float64) for one in ids]

    def unexplained(picture: np.ndarray, classes: np.ndarray) -> float:
        """Variance of the colours that the classes leave."""
        left = sum(((picture[classes == kind] - picture[classes == kind].mean(axis=0)) ** 2).sum() for kind in np.unique(classes))
        return float(left / picture.size)

    sky = maps == NUMBER["sky"]
    assert sky[:, :80].mean() > 5 * sky[:, 80:].mean() > 0
    left = {
        "own": maps,
        "beside": np.roll(maps, 12, axis=2),
        "above": np.roll(maps, 12, axis=1),
        "mirrored": maps[:, :, ::-1],
        "of another heading": np.roll(maps, 1, axis=0),
    }
    sums = {name: sum(map(unexplained, pictures, others)) for name, others in left.items()}
    assert min(sums, key=sums.__getitem__) == "own"


def test_a_map_belongs_to_the_view_that_was_asked_for(emulator: EmulatorThread, city: City, tmp_path: Path):
    (row,) = captures_of(emulator, city, Layout(tmp_path), (96, 64), [90])
    classes = asyncio.run(fetch_maps(client_of(emulator), [row]))["c90"]
    place = city.nearest(*ORIGIN, 500)
    assert place is not None
    shot = max(
        (s for s in place.snapshots if (s.captured_on.year, s.captured_on.month) < (2026, 11)), key=lambda s: s.captured_on
    )
    seen = city.render(
        shot.lat_deg, shot.lng_deg, heading_deg=90, pitch_deg=5, fov_deg=90, width=96, height=64, date=shot.captured_on
    )
    names = np.array(CITY_CLASSES)
    assert (np.array(CLASSES)[classes] == names[seen.classes]).all()
    assert encode_jpeg(seen.rgb) == row["image"]


def test_captures_say_where_their_maps_are():
    blank = {"pano_id": "P", "heading_deg": 12.5, "pitch_deg": 0.0, "fov_deg": 90.0, "width": 640, "height": 480}
    view = {"size": "640x480", "pano": "P", "heading": "12.5", "fov": "90", "pitch": "0"}
    url = "http://127.0.0.1:1/maps/api/streetview?size=640x480&pano=P&heading=12.5&fov=90&pitch=0&return_error_code=true"
    assert map_request({**blank, "provider": "emulator", "source_url": url}) == (MAP_PATH, view)
    assert map_request({**blank, "provider": "google_maps", "source_url": "http://127.0.0.1:1/maps/@x"}) == (MAP_PATH, view)
    photo = {**blank, "provider": "photo_list", "source_url": "http://127.0.0.1:1/planet/photos/00/1.jpg"}
    assert map_request(photo) == ("http://127.0.0.1:1/planet/maps/00/1.png", {})
    assert map_request({**photo, "source_url": "http://photos.example/planet/photos/00/1.jpg"}) is None
    assert map_request({**photo, "source_url": "file:0/3.jpg"}) is None


def test_a_photo_of_the_planet_has_its_map_in_the_common_classes(emulator: EmulatorThread):
    listed = httpx2.get(f"{emulator.url}/planet/list.csv", params={"photos": "3"}).text.splitlines()[1]
    url = next(part for part in listed.split(",") if part.startswith("http"))
    capture = {"capture_id": "p", "provider": "photo_list", "source_url": url, "pano_id": None}
    from geoloc_dagster.emulator.planet import PixelClass, Planet

    classes = asyncio.run(fetch_maps(client_of(emulator), [capture]))["p"]
    own = Planet(7).picture(int(url.rpartition("/")[2].removesuffix(".jpg")) - 1_000_000).classes
    common = [one.name.lower() if one.name.lower() in CLASSES else "other" for one in PixelClass]
    assert (np.array(CLASSES)[classes] == np.array(common)[own]).all()


def test_maps_that_cannot_be_had_are_counted_and_nothing_is_written(tmp_path: Path, emulator: EmulatorThread, city: City):
    layout, cut = Layout(tmp_path), CropSettings(size=64)
    captures_of(emulator, city, layout, (96, 64), [0, 90])
    make_crops(layout.panoramas, layout.crops, BATCH, cut)
    with serve_in_thread(ORIGIN, seed=8, today=TODAY) as other:
        source = EmulatedMaps(client_of(other), layout.panoramas, layout.crops, BATCH, cut)
        with pytest.raises(CollectionSourceError, match=r"2 of 2 class maps.*seed"):
            write_segmentation_maps(layout.crops, layout.segmentation_maps, BATCH, source)
    assert open_table(layout.segmentation_maps) is None
    with pytest.raises(IntegrityError, match="Materialise `crops`"):
        EmulatedMaps(client_of(emulator), layout.panoramas, layout.crops, BATCH, CropSettings(size=48))


def test_a_map_that_does_not_name_its_classes_is_not_guessed_at():
    body = encode_classes(np.array([[0, 5]], np.uint8), ["sky", "road"])
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=body, headers={"content-type": "image/png"}))
    client = ServiceClient("emulator", "http://127.0.0.1:1", QUICK, transport=transport)
    capture = {
        "capture_id": "c",
        "provider": "photo_list",
        "source_url": "http://127.0.0.1:1/planet/photos/1.jpg",
        "pano_id": None,
    }
    with pytest.raises(CollectionSourceError, match="does not name its classes"):
        asyncio.run(fetch_maps(client, [capture]))


# --- settings and asset ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "section", [{}, {"model": "m", "library": "transformers", "weights": "w.pt"}, {"model": "m", "mapping": {"tree": "leaf"}}]
)
def test_settings_that_cannot_work_are_refused(section: dict[str, Any]):
    with pytest.raises(ValidationError):
        SegmentationSettings.model_validate(section)


@pytest.mark.parametrize("provider", ["folder", "panoramax", "google"])
def test_only_emulated_pictures_have_maps_of_an_emulator(provider: str):
    with pytest.raises(ValidationError, match="source: model"):
        make_settings(segmentation={"source": "emulator"}, capture={"provider": provider})


def test_settings_know_the_classes():
    annotation = SegmentationSettings.model_fields["mapping"].annotation
    assert get_args(get_args(annotation)[1]) == CLASSES
    assert SEGMENTATION_MAPS.metadata[b"classes"].count(b'"') == 2 * len(CLASSES)


def test_the_asset_is_there_where_maps_are_wanted_and_shows_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    region = {"name": "town", "boundary": "region.geojson", "start_point": [0, 0]}
    settings = {"region": region, "data_root": tmp_path, "folder": tmp_path}
    absent = build_definitions(settings=Settings.model_validate(settings)).resolve_asset_graph()
    assert "segmentation_maps" not in {key.path[-1] for key in absent.get_all_asset_keys()}
    layout = layout_of(tmp_path)
    monkeypatch.setattr("geoloc_dagster.learning.segmenter.load_segmenter", lambda section, resolve: Stub())
    defs = build_definitions(settings=Settings.model_validate({**settings, "segmentation": {"model": "m"}}))
    key = dg.AssetKey(["town", "segmentation_maps"])
    assert {parent.path[-1] for parent in defs.resolve_asset_graph().get(key).parent_keys} == {"crops"}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("town_batches", [BATCH])
        job = defs.resolve_implicit_global_asset_job_def()
        run = job.execute_in_process(instance=instance, asset_selection=[key], partition_key=BATCH)
    (made,) = run.asset_materializations_for_node("town__segmentation_maps")
    assert (made.metadata["maps"].value, made.metadata["showing_sky"].value, made.metadata["source"].value) == (2, 2, "stub@1")
    assert made.metadata["share_road"].value == pytest.approx(0.5, abs=0.05)
    assert "data:image/jpeg" in str(made.metadata["picture"].value)
    assert rows_of(layout).keys() == {f"{BATCH}/c{i}" for i in range(3)}
