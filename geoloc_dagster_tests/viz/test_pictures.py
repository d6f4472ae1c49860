from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import MultiPolygon, Polygon, box

from geoloc_dagster.evaluation.bootstrap import Interval
from geoloc_dagster.evaluation.retrieval import Group
from geoloc_dagster.viz import style
from geoloc_dagster.viz.charts import growth_chart, growth_exponent, recall_bars, recall_by_year
from geoloc_dagster.viz.encode import MAX_BYTES, fit_bytes, fit_unshrunk
from geoloc_dagster.viz.maps import Layer, points_map, recall_map, scale_length_m
from geoloc_dagster.viz.sheets import Tile, contact_sheet

LAKE = [(18.04, 59.32), (18.06, 59.32), (18.06, 59.33), (18.04, 59.33)]
REGION = MultiPolygon([Polygon(box(18.0, 59.3, 18.1, 59.35).exterior.coords, [LAKE]), box(18.12, 59.3, 18.13, 59.31)])


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def jpeg(side: int = 64, seed: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(data: bytes, colour: str, tolerance: int = 24) -> int:
    """Pixels of about that colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((abs(pixels(data) - wanted).max(axis=2) <= tolerance).sum())


# --- encoding -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_even_noise_fits_in_the_cap(kind):
    data = fit_bytes(noise(420, 300), kind)
    assert len(data) <= MAX_BYTES
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind.upper()
        assert abs(image.width / image.height - 1.4) < 0.05


def test_a_simple_picture_is_kept_as_it_is():
    plain = Image.new("RGB", (400, 300), "#0072B2")
    assert (pixels(fit_bytes(plain, "png")) == pixels(fit_bytes(plain, "png", 5000))).all()
    assert pixels(fit_bytes(plain, "png")).shape == (300, 400, 3)


def test_a_cap_that_nothing_fits_is_an_error_and_not_a_larger_picture():
    with pytest.raises(ValueError, match="no picture fits in 100 bytes"):
        fit_bytes(noise(64, 64), "jpeg", 100)
    assert fit_unshrunk(noise(700, 500), "jpeg") is None


def test_few_colours_keep_the_rare_ones():
    picture = noise(300, 220)
    for i in range(12):
        picture.paste(style.MISS, (20 * i, 100, 20 * i + 5, 105))
    data = fit_bytes(picture, "png", keep=style.PALETTE)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"  # it did not fit with all its colours
    assert count(data, style.MISS, 0) >= 12 * 25


# --- maps -----------------------------------------------------------------------------------------------------------
def test_a_map_of_outcomes_shows_each_kind_and_the_outline():
    rng = np.random.default_rng(0)
    lat, lng = rng.uniform(59.3, 59.35, 30), rng.uniform(18.0, 18.1, 30)
    found = np.repeat([0.0, 0.5, 1.0], 10)
    data = recall_map(REGION, lat, lng, found, title="t", subtitle="s", attribution="© Test")
    assert len(data) <= MAX_BYTES
    for colour in (style.MISS, style.ORANGE, style.HIT, style.LAND):
        assert count(data, colour) > 300, colour
    without_misses = recall_map(REGION, lat, lng, np.ones(30), title="t")
    assert count(without_misses, style.MISS) < 120  # its legend entry alone


def test_a_hole_of_the_region_is_not_land():
    solid = points_map(box(18.0, 59.3, 18.1, 59.35), [], title="t")
    holed = points_map(Polygon(box(18.0, 59.3, 18.1, 59.35).exterior.coords, [LAKE]), [], title="t")
    assert count(holed, style.LAND, 4) < 0.97 * count(solid, style.LAND, 4)


@pytest.mark.parametrize("lat_deg", [0.0, 59.3])
def test_metres_are_equally_long_both_ways(lat_deg):
    from geoloc_dagster.geo.distance import great_circle_m

    dy = 0.01
    dx = dy / np.cos(np.radians(lat_deg))
    assert great_circle_m(lat_deg, 0, lat_deg, dx) == pytest.approx(
        great_circle_m(lat_deg - dy / 2, 0, lat_deg + dy / 2, 0), rel=1e-3
    )
    square = box(18, lat_deg - dy / 2, 18 + dx, lat_deg + dy / 2)
    land = (abs(pixels(points_map(square, [], title="t")) - [237, 240, 242]).max(axis=2) <= 3).nonzero()
    height, width = np.ptp(land[0]), np.ptp(land[1])
    assert width == pytest.approx(height, rel=0.02)


def test_many_points_still_fit_and_a_single_one_does_too():
    rng = np.random.default_rng(0)
    many = Layer(rng.uniform(59.3, 59.35, 50_000), rng.uniform(18.0, 18.1, 50_000), "grid point")
    assert len(points_map(REGION, [many], title="t")) <= MAX_BYTES
    one = Layer(np.array([59.3]), np.array([18.0]), "place")
    assert len(points_map(None, [one], title="t", zoom=True)) <= MAX_BYTES


def test_an_empty_layer_is_drawn_and_an_empty_map_is_refused():
    empty = Layer(np.empty(0), np.empty(0), "none")
    assert points_map(REGION, [empty], title="t", zoom=True)
    with pytest.raises(ValueError, match="a boundary or at least one point"):
        points_map(None, [empty], title="t")


@pytest.mark.parametrize(("at_most", "length"), [(999, 500), (1000, 1000), (4_900, 2000), (0.7, 0.5), (23, 20)])
def test_scale_bars_have_round_lengths(at_most, length):
    assert scale_length_m(at_most) == pytest.approx(length)


# --- contact sheets -------------------------------------------------------------------------------------------------
def test_hits_and_misses_differ_in_colour_and_in_shape():
    grey = io.BytesIO()
    Image.new("RGB", (64, 64), "#808080").save(grey, "JPEG")
    sheets = {hit: contact_sheet([[Tile(grey.getvalue(), ("5014 · r0",), hit=hit)]], title="t") for hit in (True, False, None)}
    assert count(sheets[True], style.HIT, 40) > 1200 > count(sheets[True], style.MISS, 40)
    assert count(sheets[False], style.MISS, 40) > 1000 > count(sheets[False], style.HIT, 40)
    assert count(sheets[None], style.HIT, 40) + count(sheets[None], style.MISS, 40) < 50
    # Without colour, too: the frame of a miss has gaps.
    assert count(sheets[False], style.MISS, 40) < 0.85 * count(sheets[True], style.HIT, 40)


def test_a_sheet_of_noise_fits_and_a_missing_picture_is_a_grey_square():
    rows = [[Tile(jpeg(seed=10 * i + j), ("a" * 80, "b"), hit=bool(j % 2)) for j in range(5)] for i in range(5)]
    assert len(contact_sheet(rows, title="t" * 300, subtitle="s" * 300, attribution="© Test")) <= MAX_BYTES
    assert count(contact_sheet([[Tile(None)]], title="t"), style.GREY, 12) > 5000


def test_the_attribution_is_written_on_the_sheet():
    tile = Tile(jpeg())
    named, bare = (contact_sheet([[tile, tile, tile]], title="t", attribution=text) for text in ("© Test City (CC0)", ""))
    assert (pixels(named)[-22:] < 160).any()
    assert (pixels(bare)[-22:] > 240).all()


def test_a_sheet_without_pictures_is_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([[]], title="t")


# --- charts ---------------------------------------------------------------------------------------------------------
def test_bars_are_as_high_as_their_recall():
    def bar_height(value: float) -> int:
        recall = {"recall@1": Interval(value, value, value)}
        data = pixels(recall_bars({"ours": recall}, title="t"))
        blue = (abs(data - [0, 114, 178]).max(axis=2) <= 12).sum(axis=0)
        return int(blue.max())

    assert bar_height(0.8) == pytest.approx(2 * bar_height(0.4), rel=0.05)


def test_a_year_with_few_places_is_marked_and_shown_without_an_interval():
    def chart(places: int) -> bytes:
        group = Group(20, 100, places, {"recall@1": Interval(0.5, 0.2, 0.8)})
        return recall_by_year({"2019": group, "2020": group}, title="t")

    filled, hollow = count(chart(20), style.BLUE, 12), count(chart(2), style.BLUE, 12)
    assert hollow < 0.75 * filled
    assert count(chart(20), style.MUTED, 12) > 1.2 * count(chart(2), style.MUTED, 12)


def test_the_growth_exponent_is_read_off_measurements():
    n = np.array([1e4, 1e5, 1e6])
    assert growth_exponent(n, 3e-5 * n) == pytest.approx(1)
    assert growth_exponent(n, [1.0, 100.0, np.nan]) == pytest.approx(2)
    assert len(growth_chart(n, {"a": 3e-5 * n, "b": [1.0, 100.0, np.nan]}, title="t", x_label="n", y_label="s")) <= MAX_BYTES


def test_pyplot_and_its_global_state_are_never_loaded():
    code = (
        "import sys, geoloc_dagster.viz.charts, geoloc_dagster.viz.maps, geoloc_dagster.viz.sheets\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
