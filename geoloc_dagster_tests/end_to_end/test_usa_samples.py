"""Ten published places of the USA, end to end: cells from the boundary, real photos, a sequence model, maps of its answers."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster import cli
from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.headless import run_headless
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.geo.region_classes import read_classes
from geoloc_dagster.learning.registry import require_training
from geoloc_dagster.storage import read_json, read_parquet

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "usa"
CHAIN = "+evaluations"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def usa(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, Layout, Path]:
    """The example's folder with everything made, its layout, and the folder of the samples."""
    if not (shared_data / "usa" / "samples").is_dir():
        pytest.skip("GEOLOC_SHARED_DATA has no usa/")
    folder = tmp_path_factory.mktemp("usa")
    for name in ("recipes", "lists"):
        shutil.copytree(EXAMPLE / name, folder / name)
    config = folder / "geoloc.yaml"
    config.write_text((EXAMPLE / "samples.yaml").read_text())
    settings = load_settings(config, environ={"GEOLOC_SHARED_DATA": str(shared_data)})
    run_headless(settings, select=CHAIN, report=lambda event: None)
    return config, Layout(settings.data_root), shared_data / "usa" / "samples"


@pytest.fixture
def predict(
    usa: tuple[Path, Layout, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """`geoloc predict …` on the example; what it prints."""

    def run(*arguments: str | Path | int) -> str:
        monkeypatch.setattr(sys, "argv", ["geoloc", "predict", *map(str, arguments), "--config", str(usa[0])])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out

    return run


def test_ten_places_are_learned_from_and_judged_as_the_lists_say(usa: tuple[Path, Layout, Path]):
    config, layout, _ = usa
    catalog = read_parquet(layout.catalog).to_pandas()
    listed = {name: (config.parent / "lists" / f"{name}.txt").read_text().split() for name in ("train", "test")}
    assert {name: sorted(set(catalog.loc[catalog["split"] == name, "location_id"])) for name in listed} == listed
    model = require_training(layout.checkpoints / "sequence_samples")
    facts = read_json(model.folder / "training.json")
    assert (facts["trained_on_places"], facts["trained_on_rows"], facts["trained_on_cells"]) == (7, 21, {"grid": 243})
    level = read_classes(model.folder / "cells").level("grid")
    assert level.counts.sum() == 7
    report = read_json(layout.evaluations / "sequence_samples" / model.model_version / "report.json")
    assert (report["kind"], report["split"], report["n_photos"]) == ("sequence", "test", 3)
    assert set(report["by_views"]) == {"1", "2", "3"}
    assert 0 < report["figures"]["hierarchy"]["mean_m"] < 5_000_000


def test_a_place_is_answered_with_its_distance_and_a_map(
    usa: tuple[Path, Layout, Path], predict: Callable[..., str], tmp_path: Path
):
    config, _, samples = usa
    place = (config.parent / "lists" / "test.txt").read_text().split()[0]
    for file in ("answer.html", "answer.png"):
        assert " km from the true place " in predict("--place", samples / place, "--map", tmp_path / file)
    page = (tmp_path / "answer.html").read_text()
    assert page.count("<path ") == 243
    assert "http" not in page.replace("http-equiv", "")
    for what in ("true place", "answer", "data:image/jpeg", "km from the true place", "<title>"):
        assert what in page
    assert (tmp_path / "answer.png").read_bytes()[:4] == b"\x89PNG"
    listed = json.loads(predict("--place", samples / place, "--json", "--top", 243))[0]
    assert [view["heading_deg"] for view in listed["views"]] == [0.0, 90.0, 180.0]
    assert sum(each["probability"] for each in listed["likeliest"]) == pytest.approx(1, abs=1e-3)
    truth = tuple(map(float, place.split("+")[1].split(",")))
    assert listed["error_km"] == pytest.approx(
        float(great_circle_m(listed["lat_deg"], listed["lng_deg"], *truth)) / 1000, abs=0.01
    )
    views = [f"{heading}:{next((samples / place).glob(f'{heading}_*'))}" for heading in (180, 0, 90)]
    options = [part for view in views for part in ("--views", view)]
    again = json.loads(predict(*options, "--at", f"{truth[0]},{truth[1]}", "--json"))[0]
    assert (again["cell"], again["error_km"]) == (listed["cell"], listed["error_km"])


def test_over_a_list_average_and_median_distances_are_told(
    usa: tuple[Path, Layout, Path], predict: Callable[..., str], tmp_path: Path
):
    config, _, samples = usa
    out, lists = tmp_path / "answers.csv", config.parent / "lists"
    said = predict("--place", samples, "--only", lists / "test.txt", "--out", out)
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 3
    km = np.array([float(row["error_km"]) for row in rows])
    assert f"average distance {km.mean():,.1f} km, median {np.median(km):,.1f} km (3 places)" in said
    seven = predict("--place", samples, "--only", lists / "train.txt")
    learned = float(seven.split("average distance ")[1].split(" km")[0].replace(",", ""))
    assert learned < km.mean()  # what it learned from it knows better than what it has never seen
