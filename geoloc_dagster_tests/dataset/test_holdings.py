"""What is collected, counted: per year, district and heading, without reading a picture, and the same whatever the pieces."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from geoloc_dagster import cli
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.console import holdings_tables
from geoloc_dagster.dataset import holdings as module
from geoloc_dagster.dataset.holdings import Holdings, holdings
from geoloc_dagster.dataset.schema import CAPTURES, VISITS
from geoloc_dagster.storage import write_geoparquet
from geoloc_dagster.tables import append_rows

TODAY = dt.date(2026, 11, 21)
NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
HEADINGS = (0.0, 90.0, 180.0, 270.0)
WEST, EAST = "Gamla stan", "Södermalm"


def location(number: int) -> dict[str, Any]:
    return {"location_id": str(number), "lat_deg": 59.3, "lng_deg": 18.01 + 0.02 * (number % 2)}


def capture(number: int, day: dt.date | None, heading_deg: float | None, **columns: Any) -> dict[str, Any]:
    rotation = None if heading_deg is not None else number % 4
    return {
        "capture_id": f"{number}-{day}-{heading_deg}-{columns.get('failure')}", "batch": "100m-0000", "provider": "emulator",
        "source": "emulator", "capture_precision": "month", "captured_on": day, "heading_deg": heading_deg, "rotation": rotation,
        "fetched_at": NOW, "run_id": "r", "licence": "CC0-1.0", "attribution": "a", "status": "ok", **location(number), **columns,
    }  # fmt: skip


def visit(number: int, days_ago: int, dates: int, pending: int) -> dict[str, Any]:
    return {
        "location_id": str(number), "batch": "100m-0000", "provider": "emulator", "visited_at": NOW - dt.timedelta(days=days_ago),
        "dates": dates, "views_new": 0, "pending": pending, "run_id": "r",
    }  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    squares = [(18.0, 18.02, WEST), (18.02, 18.04, EAST)]
    features = [
        {
            "type": "Feature",
            "properties": {"name": name},
            "geometry": {"type": "Polygon", "coordinates": [[[w, 59], [e, 59], [e, 60], [w, 60], [w, 59]]]},
        }
        for w, e, name in squares
    ]
    (tmp_path / "districts.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    (tmp_path / "geoloc.yaml").write_text(
        "data_root: data\nregion: {name: town, boundary: r.geojson, start_point: [59.3, 18], districts: districts.geojson}\n"
    )
    return load_settings(tmp_path / "geoloc.yaml", environ={})


@pytest.fixture
def layout(settings: Settings) -> Layout:
    """Ten locations, five in each district; eight were visited, six are complete, one has nothing."""
    layout = Layout(settings.data_root)
    frame = pd.DataFrame([location(number) for number in range(10)])
    write_geoparquet(
        layout.locations,
        gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(frame["lng_deg"], frame["lat_deg"]), crs="EPSG:4326"),
    )
    old, new = dt.date(2016, 11, 21), dt.date(2024, 11, 21)
    rows = [capture(number, day, heading) for number in range(6) for day in (old, new) for heading in HEADINGS]
    rows += [capture(6, None, None), capture(6, new, 359.9, image=b"x" * 1_000_000)]  # a megabyte that nobody may read
    rows += [capture(99, new, 90.0)]  # of a location that is registered no longer
    for heading, kind in zip(HEADINGS, ("gone", "gone", "no_imagery", "too_large"), strict=True):
        rows.append(capture(7, old, heading, status="failed", failure=kind))
    for part in (rows[:20], rows[20:]):
        append_rows(layout.panoramas, pa.Table.from_pylist(part, schema=CAPTURES))
    visits = [visit(number, 3, 2, 0) for number in range(5)] + [
        visit(5, 9, 2, 3),
        visit(5, 2, 2, 1),
        visit(6, 1, 1, 2),
        visit(7, 1, 0, 0),
    ]
    append_rows(layout.visits, pa.Table.from_pylist(visits, schema=VISITS))
    return layout


def test_the_whole(settings: Settings, layout: Layout):
    held = holdings(settings, layout, today=TODAY)
    assert (held.registered, held.visited, held.complete, held.without_pictures, held.to_try_again) == (10, 8, 6, 1, 3)
    assert (held.locations, held.panoramas, held.captures) == (8, 15, 51)
    assert held.complete_share == 0.6
    assert held.failures == {"gone": {"gone": 2}, "no coverage": {"no_imagery": 1}, "quality": {"too_large": 1}}
    assert held.age is not None
    assert (held.age.percentile_10, held.age.median, held.age.percentile_90) == (2.0, 2.0, 10.0)


def test_per_year_district_and_heading(settings: Settings, layout: Layout):
    held = holdings(settings, layout, today=TODAY)
    years = [(year.name, year.locations, year.panoramas, year.captures) for year in held.by_year]
    assert years == [("2016", 6, 6, 24), ("2024", 8, 8, 26), ("undated", 1, 1, 1)]
    districts = {row.name: (row.registered, row.complete, row.locations, row.captures) for row in held.by_district}
    assert districts == {WEST: (5, 3, 4, 26), EAST: (5, 3, 3, 24), "not registered": (0, 0, 1, 1)}
    assert [row.newest for row in held.by_district] == [dt.date(2024, 11, 21)] * 3
    assert held.by_heading == {"0°": 13, "90°": 13, "180°": 12, "270°": 12, "r2": 1}


@pytest.mark.parametrize("rows_per_piece", [1, 7])
def test_it_does_not_matter_in_which_pieces_the_table_is_read(
    settings: Settings, layout: Layout, monkeypatch: pytest.MonkeyPatch, rows_per_piece: int
):
    whole = holdings(settings, layout, today=TODAY)
    monkeypatch.setattr(module, "_CHUNK_ROWS", rows_per_piece)
    monkeypatch.setattr(module, "_PARTS", 3)
    assert holdings(settings, layout, today=TODAY) == whole


def test_no_picture_is_read(settings: Settings, layout: Layout, monkeypatch: pytest.MonkeyPatch):
    import lance

    asked: list[str] = []
    scanner, to_table = lance.LanceDataset.scanner, lance.LanceDataset.to_table

    def noting(original: Any) -> Any:
        def read(self: Any, columns: Any = None, *rest: Any, **options: Any) -> Any:
            assert columns is not None, "all columns are read"
            asked.extend(columns)
            return original(self, columns, *rest, **options)

        return read

    monkeypatch.setattr(lance.LanceDataset, "scanner", noting(scanner))
    monkeypatch.setattr(lance.LanceDataset, "to_table", noting(to_table))
    holdings(settings, layout, today=TODAY)
    assert {"captured_on", "heading_deg", "failure"} <= set(asked)
    assert "image" not in asked


def test_sums_agree_with_rows_counted_one_by_one(settings: Settings):
    rng = np.random.default_rng(3)
    layout = Layout(settings.data_root)
    rows = [
        capture(int(n), dt.date(int(y), 1, 1), float(h), capture_id=str(i))
        for i, (n, y, h) in enumerate(
            zip(rng.integers(0, 40, 900), rng.integers(2009, 2026, 900), rng.integers(0, 360, 900), strict=True)
        )
    ]
    append_rows(layout.panoramas, pa.Table.from_pylist(rows, schema=CAPTURES))
    held = holdings(settings, layout, today=TODAY)
    assert {year.name: year.captures for year in held.by_year} == Counter(str(row["captured_on"].year) for row in rows)
    assert held.panoramas == len({(row["location_id"], row["captured_on"]) for row in rows})
    assert held.by_heading == {f"{int(k)}°": n for k, n in Counter(row["heading_deg"] for row in rows).items()}


# --- on the command line --------------------------------------------------------------------------------------------
def run(settings: Settings, *options: str) -> Any:
    result = CliRunner().invoke(cli.app, ["coverage", "--config", str(settings.folder), *options], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result


def test_the_tables_name_every_number_that_matters(settings: Settings, layout: Layout):
    console = Console(width=160, record=True, file=io.StringIO())
    for table in holdings_tables(holdings(settings, layout, today=TODAY)):
        console.print(table)
    text = console.export_text()
    counts = ("6 (60.0%)", "no picture: gone", "2 (gone 2)", "2.0 (80 % are 2.0 to 10.0)", "3 (60%)")
    for part in (*counts, WEST, EAST, "2024-11", "270°", "r2", "undated"):
        assert part in text, part
    assert WEST in run(settings).stdout


def test_json_holds_the_same(settings: Settings, layout: Layout):
    told = json.loads(run(settings, "--json").stdout)
    held = holdings(settings, layout, today=dt.datetime.now(dt.UTC).date())
    assert told["captures"] == 51
    assert told["complete_share"] == 0.6
    assert told["by_district"][0]["newest"] == "2024-11-21"
    assert told == json.loads(json.dumps(held.to_json()))


def test_the_picture_is_one_and_small(settings: Settings, layout: Layout, tmp_path: Path):
    result = run(settings, "--picture", str(tmp_path / "coverage.png"))
    assert f"wrote {tmp_path / 'coverage.png'}" in result.stderr
    with Image.open(tmp_path / "coverage.png") as picture:
        assert picture.format == "PNG"
        assert picture.width >= 900
    assert (tmp_path / "coverage.png").stat().st_size < 500_000


def test_an_empty_data_root_is_one_clear_line_and_stays_empty(settings: Settings, tmp_path: Path):
    result = run(settings, "--picture", str(tmp_path / "none.png"))
    assert result.stdout == f"nothing is collected below {settings.data_root} yet; `geoloc run` collects\n"
    assert not settings.data_root.exists()
    assert not (tmp_path / "none.png").exists()
    assert json.loads(run(settings, "--json").stdout)["captures"] == 0


def test_locations_without_any_capture_are_worth_a_table(settings: Settings, layout: Layout):
    import shutil

    for table in (layout.panoramas, layout.visits):
        shutil.rmtree(table)
    held: Holdings = holdings(settings, layout, today=TODAY)
    assert (held.registered, held.complete, held.captures, held.age) == (10, 0, 0, None)
    assert "locations registered" in run(settings).stdout
