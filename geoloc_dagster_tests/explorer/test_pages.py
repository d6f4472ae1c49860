"""The pages in a real browser: every view in both themes and at two widths, games by mouse and by keys, no WebGL, no data.

The API behind them is a made-up one (`fake_api`), so that what a page shows can be told from what a region happens to hold.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from geoloc_dagster_tests.explorer.browser import WITHOUT_WEBGL, Viewer, open_viewer
from geoloc_dagster_tests.explorer.fake_api import Fake, serve
from geoloc_dagster_tests.explorer.fake_city import City, view_jpeg

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LOOKS = [("light", 1280), ("dark", 360)]
MORE_LOOKS = [("dark", 1280), ("light", 360)]
MAP = ".maplibregl-canvas, .map-svg"
ROUNDS = 3
DROP = """
const [photos, how] = arguments, held = new DataTransfer();
for (const [name, type, base64] of photos)
  held.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name, {type}));
const of = {bubbles: true, cancelable: true}, zone = document.querySelector('.drop');
if (how === 'drop') zone.dispatchEvent(new DragEvent('drop', {dataTransfer: held, ...of}));
else document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: held, ...of}));
"""


@pytest.fixture(scope="module")
def fake() -> Fake:
    return Fake()


@pytest.fixture(scope="module")
def viewer(fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """One browser for all tests of the module; at its end nothing has been asked of any other server."""
    with serve(fake) as url, open_viewer(url, tmp_path_factory.mktemp("browser")) as viewer:
        yield viewer
        assert viewer.foreign() == []
        assert len(viewer.requested) > 100


@pytest.fixture(autouse=True)
def nothing_is_missing(fake: Fake) -> None:
    fake.missing.clear()
    fake.guesses.clear()
    fake.asked.clear()


def shown(viewer: Viewer, name: str) -> None:
    """What every view must be like, in every look: complete, without complaint, without barrier, no wider than the window."""
    viewer.settle()
    viewer.keep(name)
    assert viewer.barriers() == []
    assert viewer.complaints() == []
    assert viewer.script("return document.documentElement.scrollWidth") <= viewer.script("return innerWidth")
    broken = "return [...document.images].filter((i) => !i.hasAttribute('alt') || (i.complete && !i.naturalWidth)).length"
    assert viewer.script(broken) == 0


def photo(name: str = "a.jpg") -> list[str]:
    return [name, "image/jpeg", base64.b64encode(view_jpeg(name)).decode()]


def ask_sample(viewer: Viewer) -> None:
    viewer.find(".strip button").click()
    viewer.see("True position", "Evidence")


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_ask_answers_a_held_out_view(viewer: Viewer, theme: str, width: int) -> None:
    viewer.open("#ask", theme=theme, width=width)
    ask_sample(viewer)
    viewer.until("markers", lambda: viewer.count(".map-canvas .marker-candidate") == 5)
    assert viewer.count(".map-canvas .marker-truth") == viewer.count(".map-canvas .marker-model") == 1
    assert viewer.count(".map-canvas .marker-expert") == 3
    viewer.see("Photos are stored nowhere", "away", "Within", "retrieval", "Emulated city · CC0-1.0", "With 90")
    viewer.see("90 details in common", "30 details in common")
    shown(viewer, f"ask-{theme}-{width}")


def test_how_fine_an_answer_is_changes_headline_and_map(viewer: Viewer) -> None:
    viewer.open("#ask")
    ask_sample(viewer)
    assert "that it was taken in this district" in viewer.text()
    headlines = [viewer.find(".headline").text]
    for text, said in (("About 100 m", "within 100"), ("Exact", "within 25")):
        viewer.find(f"//label[.='{text}']").click()
        viewer.see(said)
        headlines.append(viewer.find(".headline").text)
        shown(viewer, f"ask-{text.lower().replace(' ', '-')}")
    assert len(set(headlines)) == 3
    assert headlines[1].startswith("About 59.")
    assert headlines[2].count("°") == 2
    viewer.find("//label[.='Candidates']").click()
    viewer.until("no candidates", lambda: viewer.count(".map-canvas .marker-candidate") == 0)


def test_another_coverage_is_asked_for_and_said(viewer: Viewer, fake: Fake) -> None:
    viewer.open("#ask")
    ask_sample(viewer)
    Select(viewer.find("[aria-label='How the answer is shown'] select")).select_by_value("0.5")
    viewer.until("region of 50 %", lambda: "With 50" in viewer.text())


def test_many_photos_become_a_table_that_can_be_taken_along(viewer: Viewer, fake: Fake) -> None:
    viewer.open("#ask")
    viewer.until("samples", lambda: viewer.count(".strip img"))
    viewer.until("map", lambda: viewer.count(MAP))
    photos = [photo(f"{i}.jpg") for i in range(5)] + [["=evil.jpg", "image/jpeg", "AAAA"]]
    before = len(fake.uploads)
    viewer.script(DROP, photos, "drop")
    viewer.see("6 of 6 done", "1 could not be read", "Not a photo")
    assert len(fake.uploads) == before + 6
    assert fake.asked.count("POST /predict") == 2  # at most four at a time, as the API says
    shown(viewer, "ask-batch")
    catch = "window.kept = []; URL.createObjectURL = (blob) => { window.kept.push(blob); return 'data:,'; };"
    viewer.script(catch)
    viewer.button("Download CSV").click()
    viewer.button("Download JSON lines").click()
    read = "const done = arguments[0]; Promise.all(window.kept.map((blob) => blob.text())).then(done)"
    csv, lines = viewer.driver.execute_async_script(read)
    assert csv.splitlines()[0].startswith("photo,answered,refusal,lat_deg,lng_deg,district")
    assert len(csv.splitlines()) == 7
    assert csv.splitlines()[6].startswith("'=evil.jpg,false,")  # a spreadsheet would run it as a formula
    parsed = [json.loads(line) for line in lines.splitlines()]
    assert [one["photo"] for one in parsed] == [*(f"{i}.jpg" for i in range(5)), "=evil.jpg"]
    assert parsed[0]["lat_deg"]
    assert parsed[5]["error"]["status"] == 422


def test_a_pasted_photo_is_answered_and_one_from_elsewhere_refused(viewer: Viewer, fake: Fake) -> None:
    viewer.open("#ask")
    viewer.until("map", lambda: viewer.count(MAP))
    for _ in range(9):  # every ninth photo of the made-up model is from elsewhere
        viewer.script(DROP, [photo()], "paste")
        viewer.until("answered", lambda: viewer.count(".headline") and not viewer.count(".said .busy"))
        if fake.uploads and len(fake.uploads) % 9 == 4:
            break
    viewer.see("Outside this region", "like nothing of it")
    assert viewer.count(".map-canvas .marker-model") == 0
    shown(viewer, "ask-refused")


@pytest.mark.parametrize("width", [1280, 360])
def test_a_game_by_mouse_ends_with_the_points_of_the_data(viewer: Viewer, fake: Fake, width: int) -> None:
    viewer.open("#play", theme="light" if width == 1280 else "dark", width=width)
    viewer.see("New game", "5,000 points")
    shown(viewer, f"play-setup-{width}")
    rounds = viewer.find("#rounds")
    rounds.clear()
    rounds.send_keys(str(ROUNDS))
    viewer.find("#seed").send_keys("11")
    viewer.button("Start").click()
    viewer.find("#player").send_keys("Alva")
    viewer.button("Begin").click()
    for k in range(1, ROUNDS + 1):
        viewer.see(f"Round {k} of {ROUNDS}")
        viewer.until("views", lambda: viewer.count(".views-4 img") == 4)
        target = viewer.find(MAP)
        viewer.script("arguments[0].scrollIntoView({block: 'center'})", target)
        assert not viewer.find("#guess").is_enabled()
        assert len(fake.guesses) == k - 1
        assert "m away" not in viewer.text()
        ActionChains(viewer.driver).move_to_element_with_offset(target, 20 * k, -15 * k).click().perform()
        viewer.until("a guess", lambda: viewer.find("#guess").is_enabled())
        if k == 1:
            shown(viewer, f"play-round-{width}")
        viewer.find("#guess").click()
        viewer.find("#next")
        viewer.until("revealed", lambda: viewer.count(".map-canvas .marker-truth") == 1)
        if k == 1:
            shown(viewer, f"play-reveal-{width}")
        viewer.find("#next").click()
    viewer.until("the end", lambda: viewer.count("#totals"))
    shown(viewer, f"play-end-{width}")
    points = [
        int(item.text.splitlines()[0].replace(",", "")) for item in viewer.driver.find_elements(By.CSS_SELECTOR, "#totals li")
    ]
    sums = [sum(one[who]["score"] for one in fake.guesses) for who in ("you", "model")]
    sums += [sum(one["experts"][name]["score"] for one in fake.guesses) for name in fake.guesses[0]["experts"]]
    assert points == sums
    assert viewer.find("#game-link").get_attribute("value") == f"{viewer.url}/#play/11-{ROUNDS}-4"
    viewer.find("#again").click()
    viewer.see("Played on this device", "Alva", f"{sums[0]:,}")


def test_a_round_is_played_with_the_keyboard_alone(viewer: Viewer, fake: Fake) -> None:
    viewer.open("#play/5-2-1")
    viewer.find("#player")

    def tab_to(css: str) -> None:
        """Press Tab until the focus is there."""
        for _ in range(60):
            if viewer.script("return document.activeElement?.matches(arguments[0])", css):
                return
            ActionChains(viewer.driver).send_keys(Keys.TAB).perform()
        raise AssertionError(f"Tab never reaches {css}")

    ActionChains(viewer.driver).send_keys(Keys.TAB, Keys.ENTER).perform()  # the skip link
    assert viewer.script("return document.activeElement.id") == "main"
    tab_to("#player")
    ActionChains(viewer.driver).send_keys("Kim", Keys.ENTER).perform()
    viewer.see("Round 1 of 2")
    viewer.until("map", lambda: viewer.count(MAP))
    tab_to(MAP)
    ActionChains(viewer.driver).send_keys(Keys.ARROW_RIGHT).perform()
    viewer.until("a guess", lambda: viewer.count(".map-canvas .marker-you") == 1)
    start = [float(viewer.find(f"#{name}").get_attribute("value")) for name in ("lat", "lng")]
    ActionChains(viewer.driver).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP).perform()
    moved = [float(viewer.find(f"#{name}").get_attribute("value")) for name in ("lat", "lng")]
    assert moved[0] > start[0]
    assert moved[1] > start[1]
    ActionChains(viewer.driver).send_keys(Keys.ENTER).perform()
    viewer.find("#next")
    assert viewer.script("return document.activeElement.id") == "next"
    assert fake.guesses[0]["you"]["lat_deg"] == pytest.approx(moved[0], abs=1e-5)
    ActionChains(viewer.driver).send_keys(Keys.ENTER).perform()
    viewer.see("Round 2 of 2")
    viewer.until("map", lambda: viewer.count(MAP))
    tab_to("#lat")
    ActionChains(viewer.driver).send_keys("59.31", Keys.TAB, "18.05", Keys.ENTER).perform()
    viewer.find("#next")
    assert (fake.guesses[1]["you"]["lat_deg"], fake.guesses[1]["you"]["lng_deg"]) == (59.31, 18.05)


def test_a_game_is_gone_on_with_where_the_page_was_left(viewer: Viewer, fake: Fake) -> None:
    viewer.open("#play/8-2-1")
    viewer.button("Begin").click()
    viewer.until("map", lambda: viewer.count(MAP))
    Select(viewer.find("#district")).select_by_index(2)
    viewer.find("#guess").click()
    viewer.find("#next")
    viewer.driver.refresh()
    viewer.see("Round 2 of 2", "Points so far")


def test_a_wrong_code_says_so(viewer: Viewer) -> None:
    viewer.open("#play/nonsense")
    viewer.see("No such game", "Start one on the page Play")
    viewer.read_logs()
    viewer.logged.clear()  # the browser notes the 404 itself


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_coverage_shows_a_place_through_the_years(viewer: Viewer, fake: Fake, theme: str, width: int) -> None:
    viewer.open("#coverage", theme=theme, width=width)
    place = next(place for place in fake.city.places[:200] if len(place.years) == 3)
    chosen = viewer.until("row", lambda: viewer.driver.find_elements(By.CSS_SELECTOR, f"[data-location='{place.location_id}']"))[
        0
    ]
    chosen.send_keys(Keys.ENTER)
    viewer.see(f"Location {place.location_id}", "12 of 3 dates")
    slider = viewer.find("input[type=range]")
    source = viewer.find(".place-view img").get_attribute("src")
    assert f"-{place.years[2]}-" in source
    slider.send_keys(Keys.HOME)
    viewer.until("the oldest", lambda: f"-{place.years[0]}-0" in viewer.find(".place-view img").get_attribute("src"))
    viewer.find("//section[contains(@class, 'place-view')]//label[.='180° S']").click()
    viewer.until("to the south", lambda: f"-{place.years[0]}-180" in viewer.find(".place-view img").get_attribute("src"))
    viewer.see("By year", "By night", "Emulated city")
    shown(viewer, f"coverage-{theme}-{width}")


def test_coverage_filters_and_colours_by_age(viewer: Viewer, fake: Fake) -> None:
    viewer.open("#coverage")
    viewer.until("rows", lambda: viewer.count("[data-location]"))
    Select(viewer.find("//label[contains(., 'Status')]/select")).select_by_value("failed")
    failed = sum(place.status == "failed" for place in fake.city.places)
    viewer.until("failed only", lambda: viewer.count("[data-location]") == failed)
    Select(viewer.find("//label[contains(., 'Status')]/select")).select_by_value("")
    viewer.find("//label[.='Age of the newest picture']").click()
    viewer.see("older than 10 years", "no picture")
    shown(viewer, "coverage-age")


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_quality_shows_models_districts_misses_and_two_side_by_side(viewer: Viewer, theme: str, width: int) -> None:
    viewer.open("#quality", theme=theme, width=width)
    viewer.see("What answers", "champion", "Miss", "finds more", "R@1 by year", "Made by the asset fusion")
    viewer.until("atlas", lambda: viewer.count(".map-legend .swatch") == 6)
    viewer.see("too few places to say", "Västra porten")
    shown(viewer, f"quality-{theme}-{width}")
    viewer.find("//label[.='Hits']").click()
    viewer.until("hits", lambda: viewer.count(".pair") and "Miss," not in viewer.text())


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_data_names_the_asset_behind_everything(viewer: Viewer, theme: str, width: int) -> None:
    viewer.open("#data/fusion", theme=theme, width=width)
    viewer.see("region_boundary", "faiss_index", "not made yet")
    assert viewer.find("tr.selected").text.startswith("fusion")
    shown(viewer, f"data-{theme}-{width}")


@pytest.mark.parametrize(("theme", "width"), MORE_LOOKS)
def test_every_view_in_the_other_looks(viewer: Viewer, theme: str, width: int) -> None:
    for view, text in (
        ("ask", "held-out"),
        ("play", "New game"),
        ("coverage", "p00001"),
        ("quality", "finds more"),
        ("data", "crops"),
    ):
        viewer.open(f"#{view}", theme=theme, width=width)
        viewer.see(text)
        if view == "ask":
            viewer.until("samples", lambda: viewer.count(".strip img"))
            ask_sample(viewer)
        shown(viewer, f"{view}-{theme}-{width}")


def test_the_switch_of_colours_is_kept_and_reaches_the_map(viewer: Viewer) -> None:
    viewer.open("#ask", theme="light")
    viewer.until("map", lambda: viewer.count(MAP))
    background = "return getComputedStyle(document.body).backgroundColor"
    light = viewer.script(background)
    viewer.find("#theme-toggle").click()
    assert viewer.script(background) != light
    viewer.driver.refresh()
    viewer.until("map", lambda: viewer.count(MAP))
    assert viewer.script(background) != light
    assert viewer.find("#theme-toggle").text == "Light"


def test_what_is_not_there_yet_is_said_in_its_place(viewer: Viewer, fake: Fake) -> None:
    sentence = "Nothing has been released yet: `geoloc run` makes a release."
    fake.missing.update(dict.fromkeys(("predict", "play", "coverage", "quality"), sentence))
    for view in ("ask", "play", "coverage", "quality"):
        viewer.open(f"#{view}")
        viewer.see(sentence)
        shown(viewer, f"missing-{view}")
    fake.missing.clear()
    viewer.see("What answers")  # without anybody having loaded the page again


def test_axe_finds_what_is_wrong(viewer: Viewer) -> None:
    viewer.open("#data")
    viewer.see("crops")
    viewer.script("document.querySelector('main').append(document.createElement('button'))")
    assert any("button-name" in barrier for barrier in viewer.barriers())


def test_without_webgl_a_picture_takes_the_guesses(fake: Fake, tmp_path: Path) -> None:
    with serve(fake) as url, open_viewer(url, tmp_path, WITHOUT_WEBGL) as viewer:
        viewer.open("#ask")
        viewer.until("samples", lambda: viewer.count(".strip img"))
        viewer.until("picture", lambda: viewer.count(".map-svg"))
        ask_sample(viewer)
        viewer.until("drawn", lambda: viewer.count(".map-svg [data-layer='districts-heat'] path") >= 2)
        shown(viewer, "svg-ask")
        viewer.open("#play/5-1-1", theme="dark")
        viewer.button("Begin").click()
        target = viewer.find(".map-svg")
        viewer.script("arguments[0].scrollIntoView({block: 'center'})", target)
        ActionChains(viewer.driver).move_to_element_with_offset(target, 0, 0).click().perform()
        viewer.until("a guess", lambda: viewer.find("#guess").is_enabled())
        west, south, east, north = fake.city.outline.bounds
        assert float(viewer.find("#lat").get_attribute("value")) == pytest.approx((south + north) / 2, abs=0.0005)
        assert float(viewer.find("#lng").get_attribute("value")) == pytest.approx((west + east) / 2, abs=0.001)
        viewer.find("#guess").click()
        viewer.find("#next")
        shown(viewer, "svg-reveal")
        viewer.open("#coverage")
        viewer.until("dots", lambda: viewer.count(".map-svg circle") > 300)
        viewer.script("document.querySelector('.map-svg circle').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
        viewer.see("Location p00000")
        viewer.open("#quality")
        viewer.until("atlas", lambda: viewer.count(".map-svg [data-layer='atlas'] path") > 5)
        assert "maplibre-gl.mjs" not in " ".join(fake.asked)
        assert viewer.foreign() == []


def test_what_a_model_says_is_never_certain(viewer: Viewer) -> None:
    viewer.open("#ask")
    said = viewer.script(
        "return import(new URL('static/format.mjs', document.baseURI)).then((m) => [0, 0.87, 0.996, 1, null].map(m.probability))"
    )
    assert [text.replace("\u202f", " ") for text in said] == ["0 %", "87 %", ">99 %", ">99 %", "–"]


def test_many_locations_come_as_tiles_and_a_region_of_no_calibration_says_so(tmp_path: Path) -> None:
    fake = Fake(City(5200, districts=False, calibrated=False), region_name="Storstad")
    with serve(fake) as url, open_viewer(url, tmp_path) as viewer:
        viewer.open("#coverage")
        viewer.until("rows", lambda: viewer.count("[data-location]") == 200)
        viewer.until("tiles", lambda: any("/tiles/" in path for path in fake.asked))
        shown(viewer, "coverage-tiles")
        viewer.open("#ask", theme="dark")
        viewer.until("samples", lambda: viewer.count(".strip img"))
        ask_sample(viewer)
        viewer.see("not calibrated", "One model alone answers")
        assert viewer.count("input[value=district]") == 0
        shown(viewer, "ask-not-calibrated")
        assert viewer.foreign() == []
