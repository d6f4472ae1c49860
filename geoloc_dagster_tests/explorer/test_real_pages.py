"""The pages over the real API of a small region: every view, and a game of ten rounds whose points are those of the data."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from selenium.webdriver.common.by import By

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.explorer.app import create_app
from geoloc_dagster.explorer.game import read_code, rounds_of
from geoloc_dagster.explorer.places import Places
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster_tests.explorer.browser import Viewer, open_viewer
from geoloc_dagster_tests.explorer.city import loaded
from geoloc_dagster_tests.explorer.server import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CODE = "s7r10v1"
GUESS = (59.32, 18.06)


@pytest.fixture(scope="module")
def page(settings: Settings, layout: Layout) -> FastAPI:
    return create_app(settings, layout, load=lambda: loaded(settings, layout))


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
        ("coverage", ["123", "360", "By series"]),
        ("quality", ["all together", "retrieval", "old town"]),
        ("data", ["faiss_index", "panoramas", "region_boundary"]),
    ],
)
def test_every_view_shows_the_region(viewer: Viewer, view: str, texts: list[str], theme: str, width: int) -> None:
    viewer.open(f"#{view}", theme=theme, width=width)
    viewer.see(*texts)
    viewer.settle()
    viewer.keep(f"real-{view}-{theme}-{width}")
    assert viewer.barriers() == []
    assert viewer.complaints() == []


def test_a_held_out_view_is_answered_with_its_truth(viewer: Viewer) -> None:
    viewer.open("#ask")
    viewer.until("samples", lambda: viewer.count(".strip img"))
    viewer.find(".strip button").click()
    viewer.see("True position", "m away", "Evidence", "A. Photographer")
    assert viewer.complaints() == []


def test_ten_rounds_through_the_page_earn_what_the_data_say(viewer: Viewer, layout: Layout, page: FastAPI) -> None:
    truths = [rows[0] for rows in rounds_of(read_code(CODE), Places(layout))]
    score_m = page.state.explorer.score_m
    away = [float(great_circle_m(*GUESS, row["lat_deg"], row["lng_deg"])) for row in truths]
    points = sum(round(5000 * 2.718281828459045 ** (-metres / score_m)) for metres in away)
    viewer.open(f"#play/{CODE}")
    viewer.button("Begin").click()
    for number, row in enumerate(truths, 1):
        viewer.see(f"Round {number} of {len(truths)}")
        for name, value in zip(("lat", "lng"), GUESS, strict=True):
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


def guesses(viewer: Viewer) -> int:
    """How often the page has sent one."""
    viewer.read_logs()
    return sum(url.endswith("/guess") for url in viewer.requested)
