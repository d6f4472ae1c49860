"""One buffer's batches are backfilled on production by a person: a browser, the login, a filter, and a wait until it is done."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from geoloc_dagster.config import Layout
from geoloc_dagster.storage import read_json
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.end_to_end.browser import Page, missing_packages, open_browser
from geoloc_dagster_tests.end_to_end.regions import ORIGIN, rectangle, write_region
from geoloc_dagster_tests.stack.driver import RunningStack, open_folder, running_stack
from geoloc_dagster_tests.stack.test_production import require_programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
ARTIFACTS = Path(os.environ.get("GEOLOC_TEST_ARTIFACTS", Path(__file__).resolve().parents[2] / "test-artifacts")) / "production"
REGION, POOL, SERIES = "nightly", "geoloc_emulator", "60m"
DEFINITIONS = """from pathlib import Path

from geoloc_dagster.defs import build_definitions

defs = build_definitions(config=Path(__file__).with_name("geoloc.yaml"))
"""
LAUNCH = """mutation($assets: [AssetKeyInput!]!) { launchPipelineExecution(executionParams: {mode: "default", runConfigData: {},
    selector: {repositoryLocationName: "nightly", repositoryName: "__repository__", pipelineName: "__ASSET_JOB",
    assetSelection: $assets}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
LIMIT = 'mutation { setConcurrencyLimit(concurrencyKey: "geoloc_emulator", limit: 1) }'
SLOTS = '{ instance { concurrencyLimit(concurrencyKey: "geoloc_emulator") { slotCount claimedSlots { runId } } } }'
FAR_S = 600.0


@pytest.fixture
def stack() -> Generator[RunningStack]:
    """A region at an emulated city in production, its batches registered, and one place in the pool of the service."""
    require_programs()
    with open_folder() as folder:
        region = folder / REGION
        region.mkdir()
        (lat, lng), reach = ORIGIN, 0.0014
        write_region(region, boundary=rectangle((lat - reach, lng - reach), (lat + reach, lng + reach)))
        (region / "definitions.py").write_text(DEFINITIONS)
        with running_stack(region, "--no-mlflow", "--no-explorer", "--poll-s", "2", "--free-slots-s", "5", wait_s=400) as up:
            up.graphql(LIMIT)
            make(up, "region_boundary", "grid_points")
            make(up, "street_view_metadata")
            make(up, "buffer_csvs")
            yield up


def make(stack: RunningStack, *names: str) -> None:
    """Materialise assets without partitions, and wait."""
    answer = stack.graphql(LAUNCH, assets=[{"path": [REGION, name]} for name in names])["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run = answer["run"]["runId"]
    stack.wait_for(lambda: status_of(stack, run) in ("SUCCESS", "FAILURE", "CANCELED"), f"{names} made", FAR_S)
    assert status_of(stack, run) == "SUCCESS", names


def status_of(stack: RunningStack, run: str) -> str:
    return next(one["status"] for one in stack.runs() if one["runId"] == run)


def batches(stack: RunningStack) -> dict[str, list[str]]:
    """Series -> its registered batches."""
    import pyarrow.parquet as pq

    found: dict[str, set[str]] = {}
    for row in pq.read_table(Layout(stack.region / "data").locations, columns=["series", "batch"]).to_pylist():
        found.setdefault(row["series"], set()).add(row["batch"])
    return {series: sorted(keys) for series, keys in found.items()}


def asked(stack: RunningStack) -> list[str]:
    """The pictures that the emulated service was asked for."""
    port = read_json(stack.folder.ports)["emulator"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/emulator/hits")
    hits: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return [str(hit["what"]) for hit in hits["requests"] if hit["endpoint"] == "image"]


def enter(page: Page, stack: RunningStack) -> None:
    """Without the login nothing is to be seen; with it everything, for as long as the browser is open."""
    assert stack.request("GET", "/", login=False)[0] == 401
    page.driver.get(
        page.url.replace("//", f"//{stack.credentials}@") + "/server_info"
    )  # a page may ask nothing under such an address
    page.see("dagster_version")
    page.open("/")
    page.see("Catalog", "Lineage")


def test_a_buffer_is_backfilled_by_a_browser_through_the_proxy(stack: RunningStack) -> None:
    missing = missing_packages()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"the browser is missing; Debian: apt-get install {' '.join(missing)}")
    assert not missing
    shutil.rmtree(ARTIFACTS, ignore_errors=True)
    keys = batches(stack)[SERIES]
    assert 2 <= len(keys) < sum(map(len, batches(stack).values()))
    with open_browser(f"http://127.0.0.1:{stack.port}", stack.region / "profile", ARTIFACTS) as page:
        with page.step("login"):
            enter(page, stack)
        page.open(f"/assets/{REGION}/panoramas")
        with page.step("asset"):
            page.see("panoramas", "Materialize")
        with page.step("choose batches"):
            page.click("//button[starts-with(normalize-space(.), 'Materialize')]")
            page.click("//*[@aria-haspopup='dialog' and contains(., 'Select a partition')]")
            page.find("//input[@placeholder='Filter partitions']").send_keys(f"{SERIES}-")
            page.click(f"//*[contains(text(), 'Select all (') and contains(., 'Select all ({len(keys)})')]")
        with page.step("launch"):
            page.press("\ue00c")
            page.see(f"{len(keys)} partitions")
            page.click("//button[starts-with(normalize-space(.), 'Launch')]")
            page.see("Created backfill")
        page.open("/runs?view=backfills")
        with page.step("complete"):
            backfill = page.read(r"\n(\w{8})\nBackfill\n(?:(?!\nView\n).)*?panoramas")[1]
            row = rf"\n{backfill}\n(?:(?!\nView\n).)*?\n(Success|Failure|Failed|Canceled)\n"
            assert page.read(row)[1] == "Success"
        page.open(f"/assets/{REGION}/panoramas?view=partitions")
        with page.step("partitions"):
            page.see(*keys)
    runs = [run for run in stack.runs() if {"key": "dagster/backfill", "value": backfill} in run["tags"]]
    assert Counter(run["partition"] for run in runs) == dict.fromkeys(keys, 1), (
        "one run of each batch; what follows from them is automation's"
    )
    assert {run["status"] for run in runs} == {"SUCCESS"}
    path = Layout(stack.region / "data").panoramas
    verify_table(path)
    rows = open_table(path).to_table(columns=["capture_id", "batch"]).to_pydict()
    assert set(rows["batch"]) == set(keys)
    assert len(set(rows["capture_id"])) == len(rows["capture_id"]) > 0
    pictures = asked(stack)
    assert len(pictures) == len(set(pictures)) > 0, "a picture was fetched twice"
    stack.wait_for(lambda: not stack.graphql(SLOTS)["instance"]["concurrencyLimit"]["claimedSlots"], "no place held", 60)
    assert stack.graphql(SLOTS)["instance"]["concurrencyLimit"]["slotCount"] == 1
