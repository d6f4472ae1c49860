"""The explorer's API: answers, the game, what is collected, and what is said where something is not there."""

from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mapbox_vector_tile
import numpy as np
import pytest
from fastapi.testclient import TestClient

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.explorer.app import create_app
from geoloc_dagster.explorer.serving import Serving
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.fusing import make_fusion
from geoloc_dagster.retrieval.index import latest_index, load_index
from geoloc_dagster_tests.explorer.city import EMPTY, NEW, PENDING, build_region, loaded, photo_of, region_settings
from geoloc_dagster_tests.prediction.streets import PLACES, place_position
from geoloc_dagster_tests.prediction.world import publish

TEST_PLACE = 2
"""Of the split test, as every third place."""


def ask(client: TestClient, *photos: bytes, **query: object):
    files = [("photos", (f"{number}.jpg", photo, "image/jpeg")) for number, photo in enumerate(photos)]
    return client.post("/predict", files=files, params=query)


def _refreshed(serving: Serving) -> None:
    """Once the watcher or this has loaded what is released."""
    serving.refresh()
    assert serving.problem is None


# --- asking -----------------------------------------------------------------------------------------------------------
def test_a_photo_is_answered_with_region_experts_evidence_and_district(client: TestClient):
    (said,) = ask(client, photo_of(40), heat=True, top=3).json()["answers"]
    lat, lng = place_position(40)
    assert great_circle_m(lat, lng, said["lat_deg"], said["lng_deg"]) < 5
    assert said["answered"]
    assert said["calibrated"]
    assert said["district"] == "old town"
    assert sum(one["probability"] for one in said["districts"]) == pytest.approx(1, abs=0.01)
    assert said["probability_within_m"]["25"] > 0.5
    assert said["region"]["coverage"] == 0.9
    assert set(said["experts"]) == {"retrieval", "places"}
    assert [one["rank"] for one in said["candidates"]] == [1, 2, 3]
    for one in said["candidates"]:
        away = great_circle_m(said["lat_deg"], said["lng_deg"], one["lat_deg"], one["lng_deg"])
        assert one["distance_m"] == pytest.approx(float(away), abs=0.2)
    first = said["candidates"][0]
    assert first["location_id"] == "40"
    assert first["captures"][0]["attribution"] == "A. Photographer"
    assert client.get(f"/{first['captures'][0]['url']}").headers["content-type"] == "image/jpeg"
    assert sum(cell["properties"]["probability"] for cell in said["heat"]["features"]) >= 0.99


def test_many_photos_are_answered_in_their_order_and_a_bad_one_alone_is_refused(client: TestClient):
    places = [3, 50, 77, 8]
    photos = [photo_of(place) for place in places]
    said = ask(client, *photos[:2], b"not a picture", *photos[2:]).json()["answers"]
    assert [one["photo"] for one in said] == [f"{n}.jpg" for n in range(5)]
    assert said[2]["error"]["status"] == 415
    for place, one in zip(places, said[:2] + said[3:], strict=True):
        assert one["candidates"][0]["location_id"] == str(place)


def test_lines_come_one_by_one_where_they_are_asked_for(client: TestClient):
    files = [("photos", (f"{n}.jpg", photo_of(n), "image/jpeg")) for n in range(20)]
    with client.stream("POST", "/predict", files=files, headers={"Accept": "application/x-ndjson"}) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response.iter_lines() if line]
    assert [line["candidates"][0]["location_id"] for line in lines] == [str(n) for n in range(20)]


def test_a_photo_of_elsewhere_is_outside(client: TestClient):
    (said,) = ask(client, photo_of(5_003)).json()["answers"]
    assert not said["answered"]
    assert "outside this region" in said["refusal"]


def test_coverage_and_experts_are_those_that_there_are(client: TestClient):
    wider = ask(client, photo_of(40), coverage=0.95).json()["answers"][0]["region"]["area_km2"]
    assert wider >= ask(client, photo_of(40), coverage=0.5).json()["answers"][0]["region"]["area_km2"]
    assert ask(client, photo_of(40), expert="places").json()["answers"][0]["candidates"]
    for query, why in (({"coverage": 0.7}, "0.5, 0.8, 0.9, 0.95"), ({"expert": "oracle"}, "no expert 'oracle'")):
        refused = ask(client, photo_of(40), **query)
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert why in refused.json()["detail"]


def test_a_held_out_sample_does_not_find_itself(client: TestClient, layout: Layout):
    samples = client.get("/samples", params={"n": 30}).json()["samples"]
    assert len({one["capture_id"] for one in samples}) == 30
    assert not any("lat_deg" in one for one in samples)
    for sample in samples[:5]:
        said = client.get(f"/predict/sample/{sample['capture_id']}").json()
        shown = {capture["capture_id"] for one in said["candidates"] for capture in one["captures"]}
        assert sample["capture_id"] not in shown
        assert said["truth"]["distance_m"] < 5
        assert said["truth"]["score"] > 4900
    index = load_index(latest_index(layout.indexes))
    assert samples[0]["capture_id"] in index.rows["capture_id"].to_pylist()  # a photo from outside would find it
    for other in (
        "c000-2",
        "c001-2",
        "c002-0",
    ):  # of train, of dev, and an older picture of a place of test, which would find itself
        assert other in index.rows["capture_id"].to_pylist()
        assert client.get(f"/predict/sample/{other}").status_code == 404


def test_without_a_fusion_a_sample_does_not_find_itself_either(settings: Settings, tmp_path: Path):
    own = settings.model_copy(update={"data_root": tmp_path})
    layout = build_region(own)
    shutil.rmtree(layout.fusions)
    publish(layout)
    with TestClient(create_app(own, layout, load=lambda: loaded(own, layout)), base_url="http://127.0.0.1:8050") as client:
        client.app.state.explorer.serving.refresh()
        assert not client.get("/region").json()["calibrated"]
        for sample in client.get("/samples", params={"n": 5}).json()["samples"]:
            said = client.get(f"/predict/sample/{sample['capture_id']}").json()
            shown = {capture["capture_id"] for one in said["candidates"] for capture in one["captures"]}
            assert sample["capture_id"] not in shown
            assert said["truth"]["distance_m"] < 5
            assert said["probability_within_m"] is None
        assert client.post("/games/s1r1v1/rounds/1/guess", json={"lat_deg": 59, "lng_deg": 18}).json()["model"]["score"] > 4900


def test_another_release_is_served_without_a_restart(settings: Settings, layout: Layout, client: TestClient):
    serving = client.app.state.explorer.serving
    before = client.get("/health").json()["release"]
    stricter = settings.model_copy(update={"fusion": settings.fusion.model_copy(update={"refused": 0.2})})
    make_fusion(stricter, layout)
    publish(layout)
    _refreshed(serving)
    after = ask(client, photo_of(40)).json()["answers"][0]["release"]
    assert after == client.get("/health").json()["release"] != before
    make_fusion(settings, layout)
    publish(layout)
    _refreshed(serving)


def test_no_request_fails_while_the_release_changes(settings: Settings, layout: Layout, client: TestClient):
    serving = client.app.state.explorer.serving
    releases = set[str]()

    def served(_: int) -> str:
        said = ask(client, photo_of(40))
        assert said.status_code == 200, said.text
        return said.json()["answers"][0]["release"]

    with ThreadPoolExecutor(4) as crew:
        for refused in (0.2, settings.fusion.refused):
            asked = crew.map(served, range(20))
            make_fusion(settings.model_copy(update={"fusion": settings.fusion.model_copy(update={"refused": refused})}), layout)
            publish(layout)
            _refreshed(serving)
            releases |= {*asked, *crew.map(served, range(4))}
    assert len(releases) == 2


def test_what_is_served_stays_where_the_new_release_is_broken(layout: Layout, client: TestClient):
    serving, pointer = client.app.state.explorer.serving, layout.releases / "CURRENT.json"
    content = pointer.read_text()
    pointer.write_text(content.replace("activated_at", "activated_at "))
    try:
        assert not serving.refresh()
        assert ask(client, photo_of(40)).status_code == 200
        assert "CURRENT.json" in client.get("/health").json()["problem"]
    finally:
        pointer.write_text(content)
        os.utime(pointer)
        serving.refresh()
    assert client.get("/health").json()["problem"] is None


# --- the game ---------------------------------------------------------------------------------------------------------
def test_a_game_is_its_code_and_says_nothing_before_the_guess(client: TestClient):
    made = client.post("/games", json={"seed": 11, "rounds": 10})
    assert made.status_code == 201
    code = made.json()["code"]
    assert client.get(f"/games/{code}").json() == made.json() == client.post("/games", json={"seed": 11, "rounds": 10}).json()
    assert made.json()["places"] == 10
    total = 0
    for number in range(1, 11):
        shown = client.get(f"/games/{code}/rounds/{number}")
        picture = client.get(f"/{shown.json()['views'][0]['url']}")
        assert picture.headers["content-type"] == "image/jpeg"
        for said in (shown.text, str(dict(shown.headers)), str(dict(picture.headers))):
            assert not re.search(r"59\.3|18\.0|c\d{3}-\d|lat_deg|location_id|old town|new town", said)
        guess = {"lat_deg": 59.32, "lng_deg": 18.06}
        told = client.post(f"/games/{code}/rounds/{number}/guess", json=guess).json()
        truth = told["truth"]
        away = float(great_circle_m(59.32, 18.06, truth["lat_deg"], truth["lng_deg"]))
        assert (truth["lat_deg"], truth["lng_deg"]) == pytest.approx(place_position(int(truth["location_id"])))
        assert told["you"]["distance_m"] == pytest.approx(away, abs=0.1)
        scale = client.get("/region").json()["score_m"]
        assert told["you"]["score"] == round(5000 * np.exp(-away / scale))
        assert told["model"]["score"] > 4900
        assert set(told["experts"]) == {"retrieval", "places"}
        total += told["you"]["score"]
    assert 0 < total < 50_000
    assert client.get(f"/games/{code}/rounds/11").status_code == 404


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"rounds": 0}, 422),
        ({"rounds": 51}, 422),
        ({"views": 3}, 422),
        ({"seed": -1}, 422),
        ({"rounds": "x"}, 422),
        ({"cheat": 1}, 422),
    ],
)
def test_games_that_cannot_be_are_refused(client: TestClient, wanted: dict, status: int):
    assert client.post("/games", json=wanted).status_code == status


def test_four_headings_are_needed_for_a_game_of_four(client: TestClient):
    said = client.post("/games", json={"views": 4})
    assert said.status_code == 409
    assert "four headings" in said.json()["detail"]


@pytest.mark.parametrize("code", ["s1r99v1", "s1r10v2", "../s1r1v1", "s-1r1v1", "s1r1v1 "])
def test_a_wrong_code_is_no_game(client: TestClient, code: str):
    assert client.get(f"/games/{code}").status_code == 404
    assert client.get(f"/games/{code}/rounds/1").status_code == 404


# --- what is collected ------------------------------------------------------------------------------------------------
def test_locations_have_the_state_of_their_collection(client: TestClient):
    features = client.get("/locations").json()["features"]
    status = {one["properties"]["location_id"]: one["properties"]["status"] for one in features}
    assert len(status) == PLACES + 3
    assert (status["0"], status[PENDING], status[EMPTY], status[NEW]) == ("collected", "pending", "empty", "new")
    pending = client.get("/locations", params={"status": "pending"}).json()["features"]
    assert [one["properties"]["location_id"] for one in pending] == [PENDING]
    lat, lng = place_position(30)
    box = f"{lng - 1e-4},{lat - 1e-4},{lng + 1e-4},{lat + 1e-4}"
    assert [one["properties"]["location_id"] for one in client.get("/locations", params={"bbox": box}).json()["features"]] == [
        "30"
    ]
    assert client.get("/locations", params={"since": 2030}).json()["features"] == []
    assert client.get("/locations", params={"status": "lost"}).status_code == 422
    assert client.get("/locations", params={"bbox": "1,2,3"}).status_code == 422


def test_tiles_hold_the_same_locations(client: TestClient):
    lat, lng = place_position(0)
    zoom = 12
    count = 2**zoom
    x = int((lng + 180) / 360 * count)
    y = int((1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * count)
    tile = mapbox_vector_tile.decode(client.get(f"/tiles/{zoom}/{x}/{y}.mvt").content)
    found = {one["properties"]["location_id"]: one["properties"]["status"] for one in tile["locations"]["features"]}
    assert found["0"] == "collected"
    assert client.get(f"/tiles/{zoom}/{count}/0.mvt").status_code == 404
    assert client.get("/tiles/99/0/0.mvt").status_code == 404


def test_a_location_shows_its_views_through_the_years(client: TestClient):
    said = client.get("/locations/7").json()
    assert [view["captured_on"] for view in said["views"]] == sorted(view["captured_on"] for view in said["views"])
    assert len(said["views"]) == said["captures"] == 3
    assert client.get("/locations/nowhere").status_code == 404


def test_what_is_collected_is_counted(client: TestClient):
    said = client.get("/coverage").json()
    assert said["locations"] == PLACES + 3
    assert said["captures"] == 3 * PLACES == sum(one["captures"] for one in said["by_year"])
    (series,) = said["by_series"]
    assert (series["collected"], series["pending"], series["empty"], series["new"]) == (PLACES, 1, 1, 1)
    assert said["nights"] == [{"date": "2026-11-20", "captures": 3 * PLACES}]


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc%2fpasswd", "../catalog", "c000-0'; DROP", "%00", "c000-0%2F..%2Fc001-0", "x" * 5000]
)
def test_ids_are_names_and_never_paths(client: TestClient, name: str):
    for route in ("views", "locations", "predict/sample", "quality/retrieval/x/pictures", "games"):
        assert client.get(f"/{route}/{name}").status_code in (404, 405), route


# --- quality and lineage -----------------------------------------------------------------------------------------------
def test_quality_shows_fusion_and_models_with_intervals(client: TestClient):
    said = client.get("/quality").json()
    fusion = said["fusion"]
    assert {one["name"] for one in fusion["experts"]} == {"retrieval", "places", "fusion"}
    assert all(one["low"] <= one["value"] <= one["high"] for one in fusion["headline"])
    for picture in fusion["pictures"]:
        assert client.get(f"/{picture['url']}").headers["content-type"] == "image/png"
    assert client.get("/quality/fusion/pictures/fusion.json").status_code == 404
    districts = client.get("/atlas").json()["features"]
    assert {one["properties"]["name"] for one in districts} == {"old town", "new town"}
    assert client.get("/atlas", params={"of": "nobody"}).status_code == 404


def test_every_asset_says_where_it_lies_and_how_much_it_is(client: TestClient):
    assets = {one["asset"]: one for one in client.get("/lineage").json()["assets"]}
    assert assets["panoramas"]["rows"] == 3 * PLACES
    assert assets["catalog"]["path"] == "dataset/catalog.parquet"
    assert assets["release"]["updated_at"] is not None
    assert assets["grid_points"]["rows"] is None


def test_links_lead_to_the_uis_that_are_configured(layout: Layout, settings: Settings):
    linked = settings.explorer.model_copy(update={"dagster_url": "http://127.0.0.1:3000/", "mlflow_url": "http://127.0.0.1:5000"})
    own = settings.model_copy(update={"explorer": linked})
    with TestClient(create_app(own, layout, load=lambda: loaded(own, layout))) as client:
        assets = {one["asset"]: one for one in client.get("/lineage").json()["assets"]}
    assert assets["catalog"]["dagster_url"] == "http://127.0.0.1:3000/assets/testville/catalog"


# --- nothing there ------------------------------------------------------------------------------------------------------
def test_an_empty_region_says_what_is_not_there(tmp_path: Path):
    own = region_settings(tmp_path)
    with TestClient(create_app(own, Layout(tmp_path))) as client:
        client.app.state.explorer.serving.refresh()
        region = client.get("/region").json()
        assert all(isinstance(why, str) and "geoloc run" in why for why in region["has"].values())
        assert client.get("/health").json()["status"] == "no release"
        refused = ask(client, photo_of(1))
        assert refused.status_code == 503
        assert "geoloc run" in refused.json()["detail"]
        assert client.get("/coverage").json()["locations"] == 0
        assert client.get("/locations").json()["features"] == []
        assert client.get("/quality").json() == {"fusion": None, "models": []}
        assert client.post("/games", json={}).status_code == 409
        assert client.get("/samples").json() == {"samples": []}
        assert client.get("/lineage").status_code == 200
        assert client.get("/views/c000-0").status_code == 404


# --- the web ------------------------------------------------------------------------------------------------------------
def test_every_answer_carries_the_headers_that_keep_other_hosts_out(client: TestClient):
    for path in ("/health", "/nowhere", "/predict", "/static/nothing.js"):
        response = client.get(path)
        assert response.headers["content-security-policy"].startswith("default-src 'self'")
        assert response.headers["x-content-type-options"] == "nosniff"
    for missing in ("/nowhere", "/static/nothing.js", "/docs"):
        assert client.get(missing).json()["status"] == 404
        assert client.get(missing).headers["content-type"] == "application/problem+json"
    assert client.get("/predict").status_code == 405
    assert "docs" not in client.get("/openapi.json").json()["paths"]


def test_what_breaks_here_is_an_answer_too(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(client.app.state.explorer.places, "samples", broken)
    refused = client.get("/samples")
    assert refused.status_code == 500
    assert refused.headers["content-security-policy"].startswith("default-src 'self'")
    assert "secret" not in refused.text
    assert client.get("/health").status_code == 200


def test_other_sites_cannot_post(client: TestClient):
    refused = client.post("/games", json={}, headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403
    assert client.post("/games", json={}, headers={"Origin": "http://127.0.0.1:8050"}).status_code == 201


def test_metrics_count_photos_and_requests(client: TestClient):
    ask(client, photo_of(40))
    text = client.get("/metrics").text
    assert re.search(r'geoloc_photos_total\{outcome="answered"\} [1-9]', text)
    assert 'geoloc_requests_total{route="/predict",status="200"}' in text
    assert "geoloc_index_rows" in text
