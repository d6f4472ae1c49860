"""The pages over the real API of a region: every view, and a game of ten rounds whose points are those of the data.

The region is a small made-up one, or that of the folder GEOLOC_EXPLORER_REGION (after `geoloc run`), such as that of
`make demo`: an emulated city.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import pytest
from fastapi import FastAPI
from selenium.webdriver.common.by import By

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.explorer.app import create_app
from geoloc_dagster.explorer.game import read_code, rounds_of
from geoloc_dagster.explorer.places import Places
from geoloc_dagster.explorer.state import State
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.release import newest_fusion
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.explorer.browser import Viewer, open_viewer
from geoloc_dagster_tests.explorer.city import loaded
from geoloc_dagster_tests.explorer.server import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CODE = "s7r10v1"


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> FastAPI:
    folder = os.environ.get("GEOLOC_EXPLORER_REGION")
    if folder is not None:
        settings = load_settings(Path(folder) / "geoloc.yaml")
        return create_app(settings, Layout(settings.data_root))
    settings, layout = request.getfixturevalue("settings"), request.getfixturevalue("layout")
    return create_app(settings, layout, load=lambda: loaded(settings, layout))


@pytest.fixture(scope="module")
def region(page: FastAPI) -> State:
    return page.state.explorer


@pytest.fixture(scope="module")
def viewer(page: FastAPI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """One browser; at its end nothing has been asked of any other server."""
    with running(page) as port, open_viewer(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("browser")) as viewer:
        yield viewer
        assert viewer.foreign() == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 360)])
@pytest.mark.parametrize(
    ("view", "texts"),
    [
        ("ask", ["held-out"]),
        ("play", ["New game"]),
        ("coverage", ["By series"]),
        ("quality", ["all together", "retrieval"]),
        ("data", ["faiss_index", "panoramas", "region_boundary"]),
    ],
)
def test_every_view_shows_the_region(viewer: Viewer, region: State, view: str, texts: list[str], theme: str, width: int) -> None:
    viewer.open(f"#{view}", theme=theme, width=width)
    viewer.see(*texts, *of_the_tables(region).get(view, []))
    viewer.settle()
    viewer.keep(f"real-{view}-{theme}-{width}")
    assert viewer.barriers() == []
    assert viewer.complaints() == []


def test_a_held_out_view_is_answered_with_its_truth(viewer: Viewer, region: State) -> None:
    viewer.open("#ask")
    viewer.until("samples", lambda: viewer.count(".strip img"))
    viewer.find(".strip button").click()
    viewer.see("True position", "m away", "Evidence", attribution(region))
    assert viewer.complaints() == []


def test_ten_rounds_through_the_page_earn_what_the_data_say(viewer: Viewer, region: State) -> None:
    truths = [rows[0] for rows in rounds_of(read_code(CODE), Places(region.layout))]
    score_m, guess = region.score_m, region.settings.region.start_point
    away = [float(great_circle_m(*guess, row["lat_deg"], row["lng_deg"])) for row in truths]
    points = sum(round(5000 * 2.718281828459045 ** (-metres / score_m)) for metres in away)
    viewer.open(f"#play/{CODE}")
    viewer.button("Begin").click()
    for number, row in enumerate(truths, 1):
        viewer.see(f"Round {number} of {len(truths)}")
        for name, value in zip(("lat", "lng"), guess, strict=True):
            viewer.find(f"#{name}").clear()
            viewer.find(f"#{name}").send_keys(str(value))
        viewer.until("a guess", lambda: viewer.find("#guess").is_enabled())
        assert guesses(viewer) == number - 1  # no answer has come before the guess, and the picture has no name
        assert viewer.count(".map-canvas .marker-truth") == 0
        assert row["capture_id"] not in viewer.script("return document.documentElement.outerHTML + JSON.stringify(localStorage)")
        viewer.find("#guess").click()
        viewer.find("#next").click()
    viewer.until("the end", lambda: viewer.count("#totals"))
    first = viewer.driver.find_elements(By.CSS_SELECTOR, "#totals li")[0].text
    assert int(first.splitlines()[0].replace(",", "")) == points
    assert viewer.complaints() == []


def of_the_tables(region: State) -> dict[str, list[str]]:
    """What some views have to say of this region, counted from its tables and not through the API."""
    locations = read_parquet(region.layout.locations)
    pictures = open_table(region.layout.panoramas)
    assert pictures is not None
    fusion = newest_fusion(region.layout)
    assert fusion is not None
    districts = gpd.read_parquet(fusion / "atlas.parquet")["name"]
    return {
        "coverage": [f"{locations.num_rows:,}", f"{pictures.count_rows('sha256 IS NOT NULL'):,}"],
        "quality": [str(districts.iloc[0])],
    }


def attribution(region: State) -> str:
    """Whom the pictures are credited to."""
    return read_parquet(region.layout.catalog)["attribution"][0].as_py()


def guesses(viewer: Viewer) -> int:
    """How often the page has sent one."""
    viewer.read_logs()
    return sum(url.endswith("/guess") for url in viewer.requested)
