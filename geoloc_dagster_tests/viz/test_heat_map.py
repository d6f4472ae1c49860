import io

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from PIL import Image

from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import CellLevel
from geoloc_dagster.viz import style
from geoloc_dagster.viz.cells import heat_map

REASON = (
    "the photo shows nothing that the street views of this region show: of 100 photos taken within it 5 look as strange, "
    "and it could be anywhere in 1.6 km² (asked for: no more than 0.5 km²)"
)


def city() -> CellLevel:
    lat, lng = np.meshgrid(np.linspace(44.99, 45.01, 12), np.linspace(-30.02, -29.98, 12))
    ids = np.unique(s2.parents(s2.leaf_ids(lat.ravel(), lng.ravel()), 15))
    return CellLevel("city", ids, np.ones(ids.size, np.int64), *s2.centres(ids))


def world() -> CellLevel:
    lat, lng = np.meshgrid(np.linspace(-60, 60, 12), np.linspace(-170, 170, 12))
    ids = np.unique(s2.parents(s2.leaf_ids(lat.ravel(), lng.ravel()), 4))
    return CellLevel("world", ids, np.ones(ids.size, np.int64), *s2.centres(ids))


def drawn(level: CellLevel, title: str, subtitle: str) -> np.ndarray:
    spread = np.linspace(1, 2, len(level))
    answer = (float(level.lat_deg[0]), float(level.lng_deg[0]))
    data = heat_map(level, spread / spread.sum(), answer, title=title, subtitle=subtitle)
    return np.array(Image.open(io.BytesIO(data)).convert("L"))


@pytest.mark.parametrize("level", [city(), world()], ids=["city", "world"])
@pytest.mark.parametrize(
    "title", ["photo.jpg: 45.00000, -30.00000", "x" * 150 + ".jpg: 45.00000, -30.00000", "$\\frac$ a_b$.jpg"]
)
def test_all_that_is_said_of_a_photo_fits_into_its_picture(level: CellLevel, title: str):
    short, long = drawn(level, title, "ok"), drawn(level, title, f"not answered: {REASON}")
    assert (long[:, -10:] == 255).all()
    assert (long[:6] == 255).all()
    assert long.shape[1] == short.shape[1]
    lines = len(style.broken(f"not answered: {REASON}", 4.6 if level.name == "city" else 9.0, FontProperties(size=9.5)))
    assert lines > 1
    assert (long.shape[0] - short.shape[0]) / 110 == pytest.approx((lines - 1) * 9.5 * 1.2 / 72, abs=0.02)
    assert (long[-200:] == short[-200:]).all()  # the map itself stays as it was


def test_words_are_kept_whole_where_they_fit():
    font = FontProperties(size=9.5)
    assert style.broken("", 4, font) == [""]
    assert style.broken("one two", 4, font) == ["one two"]
    assert " ".join(style.broken(REASON, 2, font)) == REASON
    assert "".join(style.broken("x" * 200, 1, font)) == "x" * 200
    assert len(style.broken("x" * 200, 1, font)) > 5
