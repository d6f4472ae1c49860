"""The main job as its user runs it: one command from polygon to answer, killed half-way, repeated, asked, and damaged."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pytest

from geoloc_dagster.config import Layout
from geoloc_dagster.storage import read_json, read_parquet
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.docker import finder
from geoloc_dagster_tests.end_to_end.city import MONTHS, ROTATIONS, photo, write_city

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PLACES = 24
ROWS = PLACES * ROTATIONS * len(MONTHS)
SECRETS = {
    "GEOLOC_SERVICE_KEY": "sesame-of-the-service",
    "GEOLOC_SERVICE_SECRET": "c2VzYW1lLXRoYXQtc2lnbnM=",
    "GEOLOC_PROXY_CREDENTIALS": "user:sesame-of-the-way-out",
    "GEOLOC_WEBHOOK_URL": "http://127.0.0.1:9/hooks/sesame-of-the-webhook",
    "MLFLOW_TRACKING_PASSWORD": "sesame-of-the-trainings",
}


def geoloc(*arguments: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "geoloc_dagster", *map(str, arguments)]
    environment = {**os.environ, **SECRETS, "XDG_STATE_HOME": str(cwd / "state"), "COLUMNS": "200"}
    environment.pop("GEOLOC_DATA_ROOT", None)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr + done.stdout
    assert not [value for value in SECRETS.values() if value in done.stderr + done.stdout]
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region's folder after `geoloc run`."""
    folder = tmp_path_factory.mktemp("city")
    write_city(folder, places=PLACES)
    geoloc("run", cwd=folder)
    return folder


def layout_of(folder: Path) -> Layout:
    return Layout(folder / "data")


def test_one_command_leads_from_polygon_to_release(finished: Path) -> None:
    layout = layout_of(finished)
    summary = read_json(layout.reports / "summary.json")
    assets = summary["assets"]
    assert assets["panoramas"] == {"partitions": 3, "rows": ROWS, "seconds": assets["panoramas"]["seconds"]}
    assert assets["crops"]["rows"] == assets["embeddings"]["rows"] == assets["faiss_index"]["rows"] == ROWS
    assert assets["local_features"]["rows"] == ROWS
    figures = summary["recipes"]["small"]["test"]
    recall = figures["same_place"]["recall@1"]
    assert 0 <= recall["low"] <= recall["value"] <= recall["high"] <= 1
    assert set(figures["within_m"]) == {"25", "50", "100"}
    assert {"untrained_small", "thumbnail"} <= set(summary["baselines"])
    assert summary["config_hash"]
    assert summary["versions"]["dagster"].startswith("1.13")


def test_places_stay_together_and_the_index_holds_every_usable_row(finished: Path) -> None:
    catalog = read_parquet(layout_of(finished).catalog)
    splits = catalog.group_by("location_id").aggregate([("split", "count_distinct")])
    assert pc.max(splits["split_count_distinct"]).as_py() == 1
    assert set(catalog["split"].unique().to_pylist()) == {"train", "test"}


def test_a_photo_of_the_collection_is_found_again(finished: Path) -> None:
    done = geoloc("predict", photo(finished), "--json", "--map", finished / "map.png", cwd=finished)
    answer = json.loads(done.stdout)
    first = answer[0] if isinstance(answer, list) else answer
    assert first["candidates"][0]["location_id"] == "0"
    assert first["candidates"][0]["attribution"] == "© Nobody"
    assert (finished / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_a_second_run_adds_no_rows_and_keeps_the_release(finished: Path) -> None:
    layout = layout_of(finished)
    before = read_json(layout.releases / "CURRENT.json")
    version = open_table(layout.panoramas).version
    geoloc("run", "--select", "panoramas,crops,catalog,champion,embeddings,local_features,faiss_index,release", cwd=finished)
    assert open_table(layout.panoramas).version == version
    assert open_table(layout.crops).count_rows() == ROWS
    assert read_json(layout.releases / "CURRENT.json")["release"] == before["release"]


def test_training_and_evaluation_are_linked_with_mlflow_both_ways(finished: Path) -> None:
    from mlflow import MlflowClient

    layout = layout_of(finished)
    training = read_json(next(layout.checkpoints.glob("small/*/training.json")))
    client = MlflowClient(tracking_uri=layout.mlflow_uri)
    run = client.get_run(training["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["dagster.run_id"] == training["provenance"]["dagster_run_id"]
    assert any(name.startswith("test.recall") for name in run.data.metrics)
    assert any(file.path.endswith("sheet.jpg") for file in client.list_artifacts(run.info.run_id, "evaluation"))
    version = client.get_model_version_by_alias("geoloc-aland", "champion")
    assert version.tags["model_version"] == training["model_version"]


def test_no_secret_of_the_environment_is_in_mlflow_the_event_log_or_any_other_file(finished: Path) -> None:
    layout = layout_of(finished)
    assert layout.mlflow_uri.startswith("sqlite:")
    assert list(finished.rglob("mlflow*.db"))
    assert list(layout.dagster_home.rglob("*.db")), "the event log is searched"
    search = finder.load().Search([*SECRETS.values(), "sesame-of-the-way-out"], rules={})
    search.path(finished)
    assert search.found.secrets == []


def test_every_materialization_says_rows_and_shows_one_small_picture(finished: Path) -> None:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(layout_of(finished).dagster_home)) as instance:
        for name in ("region_boundary", "buffer_csvs", "panoramas", "crops", "catalog", "evaluations"):
            event = instance.get_latest_materialization_event(dg.AssetKey(["aland", name]))
            metadata = event.asset_materialization.metadata
            assert {"dagster/row_count", "dagster/partition_row_count"} & set(metadata), name
            assert 1_000 < len(metadata["picture"].value) < 68_000, name  # 50 kB in base64


def test_a_changed_byte_of_the_served_model_is_refused_by_name_and_exit_code(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    weights = next((copy / "data" / "checkpoints").glob("small/*/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    done = geoloc("predict", photo(copy), cwd=copy, check=False)
    assert done.returncode == 2
    assert "GEO-503" in done.stderr
    assert "weights.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_run_that_ends_in_the_middle_goes_on_and_has_every_row_once(tmp_path: Path, how: signal.Signals) -> None:
    write_city(tmp_path, places=PLACES)
    layout = layout_of(tmp_path)
    command = [sys.executable, "-m", "geoloc_dagster", "run", "--select", "+catalog"]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while open_table(layout.panoramas) is None and process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):  # until the first pictures are committed
            process.wait(timeout=0.05)
    process.send_signal(how)
    _, said = process.communicate()
    assert process.returncode == (130 if how is signal.SIGINT else -how), said
    assert ("interrupted; the same command goes on from here" in said) == (how is signal.SIGINT), said
    assert "FAILED" not in said
    assert "Traceback" not in said
    assert not layout.catalog.exists()
    left = set(layout.root.rglob("*.part"))  # a killed process cannot take its temporary file away
    geoloc("run", "--select", "+catalog", cwd=tmp_path)
    for table in (layout.panoramas, layout.crops):
        ids = open_table(table).to_table(columns=["capture_id"])["capture_id"].to_pylist()
        assert len(ids) == len(set(ids)) == ROWS
    assert set(layout.root.rglob("*.part")) <= left


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: (folder / "geoloc.yaml").write_text("version: 1\nregion: {name: a\n"), "GEO-101"),
        (lambda folder: (folder / "region.geojson").write_text('{"type": "FeatureCollection", "features": []}'), "GEO-201"),
        (lambda folder: _spoil_csv(folder / "new_order_buffer_100.csv", ",", ";"), "GEO-202"),
        (lambda folder: _spoil_csv(folder / "new_order_buffer_100.csv", "PanoID", "Panorama"), "GEO-202"),
        (lambda folder: (folder / "views.tar").unlink(), "GEO-301"),
        (lambda folder: _proprietary(folder / "geoloc.yaml"), "GEO-303"),
        (lambda folder: (folder / "recipes" / "small.yaml").write_text("version: 1\nname: small\nloss: {}\n"), "GEO-501"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(finished: Path, tmp_path: Path, spoil: object, code: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("data", "state"))
    if code == "GEO-501":
        shutil.copytree(finished / "data", copy / "data")
    spoil(copy)
    select = "checkpoints" if code == "GEO-501" else "+crops"
    done = geoloc("run", "--select", select, cwd=copy, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if "GEO-" in line]
    assert len(errors) == 1, done.stderr
    assert code in errors[0]
    assert "Traceback" not in done.stderr
    assert not list(copy.rglob("*.part"))


def _spoil_csv(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def _proprietary(path: Path) -> None:
    path.write_text(path.read_text().replace("CC-BY-4.0", "proprietary"))
