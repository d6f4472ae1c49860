"""A person at the Dagster UI makes a region: group by group, one buffer's batches by a filter, and looks at what came out."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from geoloc_dagster.config import Layout
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.end_to_end.browser import MODULE, Page, missing_packages, open_browser, processes_naming, serve_ui
from geoloc_dagster_tests.end_to_end.city import MONTHS, ROTATIONS, write_city

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
ARTIFACTS = Path(os.environ.get("GEOLOC_TEST_ARTIFACTS", Path(__file__).resolve().parents[2] / "test-artifacts")) / "ui"
GROUPS = ("region", "coverage", "buffers", "collection", "imagery", "dataset", "training", "evaluation", "release")
PLACES_100M, PLACES_75M = 16, 8
MATERIALIZE = "//button[starts-with(normalize-space(.), 'Materialize')]"


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region of two series: two batches at 100 m, one at 75 m."""
    folder = tmp_path_factory.mktemp("ui")
    config = write_city(folder, places=PLACES_100M + PLACES_75M)
    csv = folder / "new_order_buffer_100.csv"
    places = pd.read_csv(csv, dtype=str)
    places[:PLACES_100M].to_csv(csv, index=False)
    places[PLACES_100M:].to_csv(folder / "new_order_buffer_75.csv", index=False)
    settings = yaml.safe_load(config.read_text())
    for section in ("coverage", "buffers"):
        settings[section]["files"] = ["new_order_buffer_100.csv", "new_order_buffer_75.csv"]
    settings["buffers"]["spacings_m"] = [100, 75]
    config.write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def page(region: Path) -> Iterator[Page]:
    """The UI in a browser that has never been there; nothing of either is left afterwards."""
    missing = missing_packages()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"the browser is missing; Debian: apt-get install {' '.join(missing)}")
    assert not missing, f"the build server must have the Debian packages {', '.join(missing)}"
    shutil.rmtree(ARTIFACTS, ignore_errors=True)
    with (
        serve_ui(region / "geoloc.yaml", None, ARTIFACTS) as url,
        open_browser(url, region / "profile", ARTIFACTS) as page,
    ):
        with page.step("first visit"):
            page.enter()
        yield page
    assert processes_naming(str(region)) == []
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        pass


@pytest.fixture(scope="module")
def registered(page: Page) -> Page:
    """The UI after the unpartitioned groups up to the batches have been materialised, each by its button."""
    for group in ("region", "coverage", "buffers"):
        open_group(page, group)
        with page.step(f"launch {group}"):
            page.click(MATERIALIZE)
            run_id = page.read(r"Launched run\s+([0-9a-f]{8})")[1]
        page.open("/runs")
        with page.step(f"ran {group}"):
            expect_success(page, run_id)
        open_group(page, group)
        with page.step(f"made {group}"):
            page.see("Materialized")
    return page


def open_group(page: Page, group: str) -> None:
    page.open(f"/locations/{MODULE}/asset-groups/{group}")
    page.see(group, "Asset Group in")


def expect_success(page: Page, run_id: str) -> None:
    """Wait for the end of a run or backfill in the list; its row goes from its id to the button at the end."""
    row = rf"\n{run_id}\n(?:(?!\nView\n).)*?\n(Success|Failure|Failed|Canceled)\n"
    assert page.read(row)[1] == "Success"


def test_one_buffer_is_backfilled_by_filtering_its_batches(registered: Page, region: Path) -> None:
    page = registered
    open_group(page, "collection")
    with page.step("choose batches"):
        page.click(MATERIALIZE)
        page.click("//*[@aria-haspopup='dialog' and contains(., 'Select a partition')]")
        page.find("//input[@placeholder='Filter partitions']").send_keys("100m-")
        page.click("//*[contains(text(), 'Select all (') and contains(., 'Select all (2)')]")
    with page.step("chosen batches"):
        page.press("\ue00c")
        page.see("2 partitions", "100m-0000", "100m-0001")
    with page.step("launch backfill"):
        page.click("//button[starts-with(normalize-space(.), 'Launch')]")
        page.see("Created backfill")
    page.open("/runs?view=backfills")
    with page.step("backfilled"):
        backfill = page.read(r"\n(\w{8})\nBackfill\n(?:(?!\nView\n).)*?panoramas")[1]
        expect_success(page, backfill)
    open_group(page, "collection")
    with page.step("filled"):
        page.read("6[67]% filled")
    table = open_table(Layout(region / "data").panoramas)
    assert table.count_rows() == PLACES_100M * ROTATIONS * len(MONTHS)
    assert set(table.to_table(columns=["batch"])["batch"].to_pylist()) == {"100m-0000", "100m-0001"}


def test_lineage_shows_the_whole_graph_in_its_groups(registered: Page) -> None:
    page = registered
    with page.of_width(2_800):
        page.open("/asset-groups")
        with page.step("lineage"):
            page.see("Global asset lineage", *GROUPS)
        with page.step("lineage expanded"):
            page.expand_groups()
            page.see("region_boundary", "grid_points", "buffer_csvs", "panoramas", "crops", "catalog", "checkpoints")
            page.see("evaluations", "champion", "embeddings", "faiss_index", "fusion", "release")


@pytest.mark.parametrize("asset", ["region_boundary", "grid_points", "street_view_metadata", "buffer_csvs"])
def test_an_asset_shows_what_it_is_and_a_picture_of_its_last_materialization(registered: Page, asset: str) -> None:
    page = registered
    page.open(f"/assets/aland/{asset}")
    with page.step(f"asset {asset}"):
        page.see("Latest materialization", "Description", "picture", "path")
        assert "No description" not in page.text()
    with page.step(f"picture {asset}"):
        image = page.show_picture()
        assert image.get_property("naturalWidth") >= 300
        assert image.get_property("naturalHeight") >= 200


def test_automation_lists_the_nightly_collection_and_when_it_is_due(registered: Page) -> None:
    page = registered
    page.open("/automation")
    with page.step("automation"):
        page.read(r"aland_nightly_collection\s+Scheduled At 01:00 AM UTC")
        page.see("aland_automation", "aland_retraining")
