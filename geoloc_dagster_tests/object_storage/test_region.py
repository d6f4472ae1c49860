"""A region whose data root is in object storage, as its user runs it: made, asked elsewhere, killed, cut off, tidied."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings, open_data_root
from geoloc_dagster.object_storage.binding import working_copy_at
from geoloc_dagster.storage import read_json, sha256_file
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.end_to_end.city import MONTHS, ROTATIONS, photo, write_city
from geoloc_dagster_tests.object_storage.server import BUCKET, KEYS, CuttingProxy, client_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PLACES = 24
ROWS = PLACES * ROTATIONS * len(MONTHS)


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("GEOLOC_DATA_ROOT", "GEOLOC_CACHE")}
    return {**kept, **KEYS, "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "200", **more}


def geoloc(*arguments: str | Path, cwd: Path, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "geoloc_dagster", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment(cwd, **more), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done


def write_region(folder: Path, endpoint: str, prefix: str) -> None:
    path = write_city(folder, places=PLACES)
    said: dict[str, Any] = yaml.safe_load(path.read_text())
    said |= {"data_root": f"s3://{BUCKET}/{prefix}", "object_storage": {"endpoint": endpoint}}
    path.write_text(yaml.safe_dump(said))


def layout_of(folder: Path, **environ: str) -> Layout:
    """The layout, of the working copy as it is."""
    return Layout(load_settings(folder, environ=environ).data_root)


@pytest.fixture(scope="module")
def finished(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region's folder after `geoloc run`."""
    folder = tmp_path_factory.mktemp("city")
    write_region(folder, server, "finished")
    geoloc("run", cwd=folder)
    return folder


def test_the_catalog_is_that_of_a_local_root(finished: Path, tmp_path: Path) -> None:
    write_city(tmp_path, places=PLACES)
    geoloc("run", "--select", "+catalog", cwd=tmp_path)
    there, here = layout_of(finished), Layout(tmp_path / "data")
    assert sha256_file(there.catalog) == sha256_file(here.catalog)
    assert read_json(there.reports / "summary.json")["config_hash"] == read_json(here.reports / "summary.json")["config_hash"]
    for name in ("panoramas", "crops"):
        tables = [open_table(getattr(layout, name)).to_table().sort_by("capture_id") for layout in (there, here)]
        of_a_run = {"fetched_at", "run_id"} & set(tables[0].column_names)
        assert tables[0].drop(list(of_a_run)).equals(tables[1].drop(list(of_a_run))), name


def test_the_pictures_are_in_the_store_alone(finished: Path, server: str) -> None:
    layout = layout_of(finished)
    pages = client_of(server).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="finished/")
    objects = {one["Key"].removeprefix("finished/") for page in pages for one in page["Contents"]}
    assert any(name.startswith("tables/panoramas.lance/data/") for name in objects)
    assert not layout.panoramas.exists()
    assert not {name for name in objects if name.startswith(("dagster/", "mlflow/", "service/ledger")) or "/." in name}
    copied = {path.relative_to(layout.root).as_posix() for path in layout.root.rglob("*") if path.is_file()}
    assert {name for name in objects if ".lance/" not in name} <= copied
    for name in ("panoramas", "visits", "crops", "embeddings"):
        verify_table(getattr(layout, name))


def test_another_machine_answers_from_the_same_release(finished: Path, tmp_path: Path) -> None:
    done = geoloc("predict", photo(finished), "--json", cwd=finished, GEOLOC_CACHE=str(tmp_path / "cache"))
    assert json.loads(done.stdout)[0]["candidates"][0]["location_id"] == "0"
    assert (tmp_path / "cache" / BUCKET / "finished" / "releases" / "CURRENT.json").is_file()
    said = json.loads(geoloc("coverage", "--json", cwd=finished, GEOLOC_CACHE=str(tmp_path / "cache")).stdout)
    assert said["captures"] == ROWS


def test_a_second_run_on_another_machine_adds_no_rows_and_keeps_the_release(finished: Path, tmp_path: Path) -> None:
    layout = layout_of(finished)
    before, version = read_json(layout.releases / "CURRENT.json"), open_table(layout.panoramas).version
    select = "buffer_csvs,panoramas,crops,catalog,champion,embeddings,local_features,faiss_index,release"
    geoloc("run", "--select", select, cwd=finished, GEOLOC_CACHE=str(tmp_path / "cache"))
    assert open_table(layout.panoramas).version == version
    assert open_table(layout.crops).count_rows() == ROWS
    working_copy_at(layout.root).pull()
    assert read_json(layout.releases / "CURRENT.json")["release"] == before["release"]


def test_the_doctor_names_the_data_root_and_what_it_honours(finished: Path) -> None:
    said = geoloc("doctor", cwd=finished, check=False).stdout
    assert f"data root: s3://{BUCKET}/finished, which honours conditional writes" in said


def test_an_explorer_finds_a_release_that_another_machine_publishes(finished: Path, tmp_path: Path) -> None:
    from geoloc_dagster.explorer.serving import Served, Serving
    from geoloc_dagster.retrieval.pointer import read_pointer, write_pointer

    settings = load_settings(finished, environ={"GEOLOC_CACHE": str(tmp_path / "cache")})
    layout = open_data_root(settings)
    pointer = layout.releases / "CURRENT.json"

    def load() -> Served:
        return Served(read_pointer(pointer, "")["release"], None, None, None, None, None)  # type: ignore[arg-type]

    serving = Serving(load, pointer)
    assert serving.refresh()
    first = serving.release
    assert not serving.refresh()
    here = layout_of(finished)
    working_copy_at(here.root).pull()
    served = read_pointer(here.releases / "CURRENT.json", "")
    try:
        write_pointer(here.releases / "CURRENT.json", {**served, "release": "another"})
        assert serving.refresh()
        assert serving.release == "another"
    finally:
        write_pointer(here.releases / "CURRENT.json", served)
    assert serving.refresh()
    assert serving.release == first


def test_loading_the_code_location_asks_no_server(tmp_path: Path) -> None:
    from geoloc_dagster.defs import build_definitions

    write_region(tmp_path, "http://127.0.0.1:1", "nowhere")
    assert build_definitions(config=tmp_path / "geoloc.yaml").resolve_asset_graph().executable_asset_keys


def test_a_run_that_is_killed_and_then_cut_off_goes_on_and_ends_with_every_row_once(
    server: str, tmp_path: Path, prefix: str
) -> None:
    with CuttingProxy(server) as proxy:
        write_region(tmp_path, proxy.url, prefix)
        layout = layout_of(tmp_path)
        command = [sys.executable, "-m", "geoloc_dagster", "run", "--select", "+catalog"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), **quiet)
        _until(lambda: open_table(layout.panoramas) is not None, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not layout.catalog.exists()
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), **quiet)
        _until(lambda: open_table(layout.crops) is not None, process)
        proxy.cuts = -1
        _, said = process.communicate(timeout=300)
        assert process.returncode == 2, said
        assert "GEO-106" in said.splitlines()[-1]
        assert "Traceback" not in said
        proxy.cuts = 0
        geoloc("run", "--select", "+catalog", cwd=tmp_path)
        for table in (layout.panoramas, layout.crops):
            ids = open_table(table).to_table(columns=["capture_id"])["capture_id"].to_pylist()
            assert len(ids) == len(set(ids)) == ROWS
            verify_table(table)
        assert layout.catalog.is_file()


def test_upkeep_and_taking_down_work_there_too(finished: Path, server: str) -> None:
    layout = layout_of(finished)
    assert "could be freed" in geoloc("maintain", cwd=finished).stdout
    assert "freed" in geoloc("maintain", "--apply", cwd=finished).stdout
    working_copy_at(layout.root).pull()
    table = open_table(layout.panoramas).to_table(columns=["pano_id", "image"])
    pano = table["pano_id"][0].as_py()
    pictures = [row["image"] for row in table.to_pylist() if row["pano_id"] == pano]
    done = geoloc("forget", "--pano", pano, "--yes", cwd=finished)
    assert f"panoramas: {len(pictures)} rows deleted" in done.stdout
    client = client_of(server)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="finished/tables/panoramas.lance/")
    for one in [one for page in pages for one in page["Contents"]]:
        content = client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()
        assert not any(picture in content for picture in pictures), one["Key"]
    working_copy_at(layout.root).pull()
    assert list(layout.indexes.glob("*.FORGOTTEN.json"))
    verify_table(layout.panoramas)


def _until(there: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if there():
            return
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"it has not come that far: {process.communicate()[1]}")
