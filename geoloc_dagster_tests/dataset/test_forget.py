"""Taking pictures down: the bytes are gone from every file, nothing is fetched again, and a killed request is completed."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from geoloc_dagster.config import Layout
from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.crops import write_crops
from geoloc_dagster.dataset.forget import MARK, Request, forget, matching
from geoloc_dagster.dataset.schema import CAPTURES
from geoloc_dagster.emulator.process import serve_in_thread
from geoloc_dagster.errors import ConfigError
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.collect import collect_batch
from geoloc_dagster.imagery.google import GoogleStreetView
from geoloc_dagster.imagery.provider import Location, Terms, View
from geoloc_dagster.imagery.tombstones import read_tombstones
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.retrieval.local_table import make_local_features
from geoloc_dagster.storage import write_json, write_parquet
from geoloc_dagster.tables import append_rows, open_table, verify_table
from geoloc_dagster_tests.dataset.exported import NOW, fill
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, STEP_DEG, TODAY, StubCity
from geoloc_dagster_tests.imagery.pictures import jpeg
from geoloc_dagster_tests.retrieval.city import FakeEncoder

MARKER = b"these bytes are a person's"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Forty captures of ann, in four batches, and two of bob with a marker in their bytes."""
    layout = Layout(tmp_path / "data")
    fill(layout, 40, per_batch=20)
    table = open_table(layout.panoramas)
    assert table is not None
    some = table.to_table(limit=2).to_pylist()
    for number, row in enumerate(some):
        row |= {"capture_id": f"b0b{number}", "creator": "bob", "pano_id": f"pano'{number}", "image": jpeg(99) + MARKER}
        row["sha256"] = hashlib.sha256(row["image"]).hexdigest()
        row |= {"lat_deg": 60.5 + number, "lng_deg": 20.0}
    append_rows(layout.panoramas, pa.Table.from_pylist(some, schema=CAPTURES))
    return layout


def files_with(folder: Path, content: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and content in path.read_bytes()]


def rows(path: Path) -> int:
    table = open_table(path)
    return 0 if table is None else int(table.count_rows())


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        (Request("creator", "bob"), 2),
        (Request("pano", "pano'1"), 1),
        (Request("bbox", "60,19,61,21"), 1),
        (Request("provider", "panoramax"), 42),
    ],
)
def test_what_is_forgotten_is_gone_from_every_table(layout: Layout, request_: Request, count: int):
    result = forget(layout, request_, now=NOW)
    assert result.captures == result.deleted["panoramas"] == count
    assert rows(layout.panoramas) == 42 - count
    verify_table(layout.panoramas)
    assert forget(layout, request_, now=NOW).deleted["panoramas"] == 0


def test_the_bytes_are_in_no_file_and_no_older_version(layout: Layout):
    assert files_with(layout.root, MARKER)
    forget(layout, Request("creator", "bob"), now=NOW)
    assert files_with(layout.root, MARKER) == []
    table = open_table(layout.panoramas)
    assert table is not None
    assert len(table.versions()) == 1
    seals = layout.panoramas.with_name("panoramas.lance.sha256")
    manifests = list((layout.panoramas / "_versions").glob("*.manifest"))
    assert {seal.name for seal in seals.iterdir()} >= {manifests[0].name}


def test_crops_go_with_their_captures(layout: Layout):
    batch = "100m-0000"
    write_crops(layout.panoramas, layout.crops, batch, CropSettings(size=16, min_decodable_share=0))
    before = rows(layout.crops)
    result = forget(layout, Request("creator", "ann"), now=NOW)
    assert result.deleted["crops"] > 0
    assert rows(layout.crops) == before - result.deleted["crops"]
    assert batch in result.batches


def test_vectors_of_every_network_and_local_features_go_with_their_captures(layout: Layout):
    batch = "100m-0000"
    write_crops(layout.panoramas, layout.crops, batch, CropSettings(size=16, min_decodable_share=0))
    tables = {"embeddings": layout.embeddings, "embeddings-wide": layout.embeddings_of("wide")}
    for path in tables.values():
        embed_batch(FakeEncoder(), layout.crops, path, batch)
    tables["local_features"] = layout.local_features
    make_local_features(layout.crops, layout.local_features, batch)
    result = forget(layout, Request("creator", "ann"), now=NOW)
    for name, path in tables.items():
        assert result.deleted[name] == result.deleted["crops"] > 0
        assert rows(path) == rows(layout.crops)


@pytest.mark.parametrize("point", ["forget.buried:1", "table.deleted:1", "table.purged:1"])
def test_a_killed_request_is_completed_by_the_next(layout: Layout, point: str):
    program = (
        "import sys, datetime as dt; from pathlib import Path; from geoloc_dagster.config import Layout\n"
        "from geoloc_dagster.dataset.forget import Request, forget\n"
        "forget(Layout(Path(sys.argv[1])), Request('creator', 'bob'), now=dt.datetime(2026, 11, 21, tzinfo=dt.UTC))"
    )
    command = [sys.executable, "-c", program, str(layout.root)]
    killed = subprocess.run(command, env={**os.environ, "GEOLOC_FAILPOINT": point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert {"b0b0", "b0b1"} <= read_tombstones(layout.tombstones).captures
    assert forget(layout, Request("creator", "bob"), now=NOW).captures == 2
    assert files_with(layout.root, MARKER) == []
    assert rows(layout.panoramas) == 40
    assert rows(layout.tombstones) == 3
    verify_table(layout.panoramas)


def test_indexes_and_releases_made_with_it_are_marked(layout: Layout):
    write_parquet(layout.indexes / "index-1" / "rows.parquet", pa.table({"capture_id": ["b0b0", "x"]}))
    write_parquet(layout.indexes / "index-2" / "rows.parquet", pa.table({"capture_id": ["x"]}))
    write_json(layout.releases / "r1" / "manifest.json", {"index": "index-1"})
    result = forget(layout, Request("creator", "bob"), now=NOW)
    assert [folder.name for folder in result.marked] == ["index-1", "r1"]
    assert "creator=bob" in (layout.releases / f"r1.{MARK}").read_text()


@pytest.mark.parametrize("area", ["1,2,3", "south", "61,19,60,21", "18,59,19,60.5,7", "0,0,91,1"])
def test_an_area_that_is_none_is_refused(area: str):
    with pytest.raises(ConfigError, match="is no area"):
        Request("bbox", area)


def test_nothing_to_forget_is_remembered_all_the_same(tmp_path: Path):
    layout = Layout(tmp_path)
    assert matching(layout, Request("creator", "eve")).num_rows == 0
    assert forget(layout, Request("creator", "eve"), now=NOW).captures == 0
    assert "eve" in read_tombstones(layout.tombstones).creators


def test_what_was_forgotten_is_never_asked_for_again(tmp_path: Path):
    layout = Layout(tmp_path)
    locations = [Location(str(i), ORIGIN[0] + i * STEP_DEG, ORIGIN[1]) for i in range(3)]
    views = [View(0.0, None, 0.0, 90.0), View(90.0, None, 0.0, 90.0)]
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]

        def collect(later: int) -> int:
            client = ServiceClient("emulator", emulator.url, Etiquette(requests_per_second=500, burst=50))
            street = GoogleStreetView(client, Terms("CC0-1.0", "emulated city"), name="emulator", has_history=True)
            result = asyncio.run(
                collect_batch(
                    street, locations, "100m-0000", layout.panoramas, visits_path=layout.visits, run_id="one",
                    now=NOW + dt.timedelta(days=later), commit_rows=8, views=views,
                    forgotten=read_tombstones(layout.tombstones),
                )
            )  # fmt: skip
            assert result.pending == 0
            return result.rows_new

        assert collect(0) == 24
        box = f"{ORIGIN[0] - 0.001},{ORIGIN[1] - 0.001},{ORIGIN[0] + 0.001},{ORIGIN[1] + 0.001}"
        assert forget(layout, Request("bbox", box), now=NOW).captures == 8
        emulator.clear_hits()
        assert collect(60) == 0
        assert not [hit for hit in emulator.hits()["requests"] if hit["endpoint"] == "image"]
        assert rows(layout.panoramas) == 16
