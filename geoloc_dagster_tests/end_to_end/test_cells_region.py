"""From somebody's photos to a released classifier of cells, and from the command line to its answers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from geoloc_dagster import cli
from geoloc_dagster.config import Layout
from geoloc_dagster.config.dataset import SceneSettings
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.dataset.scene_labels import write_scene_labels
from geoloc_dagster.defs.headless import run_headless
from geoloc_dagster.geo.partitioning_folder import read_partitioning
from geoloc_dagster.learning.registry import require_training
from geoloc_dagster.learning.scene_classifier import load_scene_classifier
from geoloc_dagster.storage import read_json, read_parquet
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.end_to_end.regions import rectangle, write_region
from geoloc_dagster_tests.imagery.exif_photos import write
from geoloc_dagster_tests.learning.globe import TOWNS, cells_recipe, town_photo

PHOTOS = 300
PEOPLE = 30
META = ["IMG_ID", "AUTHOR", "LAT", "LON", "S3_Label", "Prob_indoor", "Prob_natural", "Prob_urban"]


def write_photos(folder: Path, photos: int, seed: int) -> None:
    """A folder of photos in six towns, and a list that says where, by whom, and of which scene."""
    rng = np.random.default_rng(seed)
    rows: list[list[Any]] = []
    for number in range(photos):
        town, district = number % len(TOWNS), int(rng.integers(2))
        scene = rng.dirichlet([0.3, 0.3, 0.3])
        lat, lng = TOWNS[town][0] + district * 0.6 + rng.normal(0, 0.02), TOWNS[town][1] + rng.normal(0, 0.02)
        name = f"{number // 100}/{number:03d}.jpg"
        write(folder / "photos" / name, town_photo(town, district, int(scene.argmax()), rng))
        rows.append([name, f"person {number % PEOPLE}", f"{lat:.6f}", f"{lng:.6f}", int(scene.argmax()), *scene])
    with (folder / "meta.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([META, *rows])


def region(folder: Path) -> Path:
    write_photos(folder, PHOTOS, 0)
    config = write_region(
        folder,
        boundary=rectangle((-90, -180), (90, 180)),
        region={"start_point": [0, 0], "max_area_km2": 6e8},
        coverage={"provider": "csv"},
        buffers={"batch_size": 1000},
        capture={"provider": "photo_list", "photos": {"files": ["photos", "meta.csv"], "processes": 1}, "licence": "CC-BY-4.0"},
        crops={"size": 48},
        scenes={"source": "list"},
        service={"base_url": "http://127.0.0.1:9", "attempts": 1},  # nobody listens there
    )
    said = yaml.safe_load(config.read_text())
    del said["capture"]["size"], said["coverage"]["lookups_per_run"]
    said["splits"] = {"by": "creator", "test_share": 0.25, "dev_share": 0.2}
    said["cells"] = {"levels": {"coarse": [4, 60], "fine": [4, 20]}}
    said["recipes"] = ["town", "town_by_scene", "shown"]
    config.write_text(yaml.safe_dump(said))
    (folder / "recipes").mkdir()
    (folder / "recipes" / "town.yaml").write_text(cells_recipe(name="town").to_yaml())
    (folder / "recipes" / "shown.yaml").write_text(cells_recipe(name="shown", heads={"levels": [], "scene": {}}).to_yaml())
    per_scene = cells_recipe(
        name="town_by_scene",
        scene_networks={"base": "town"},
        budget={"epochs": 2, "batch_size": 16},
        optimiser={"name": "adamw", "learning_rate": 0.002},
    )
    (folder / "recipes" / "town_by_scene.yaml").write_text(per_scene.to_yaml())
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Layout]:
    config = region(tmp_path_factory.mktemp("towns"))
    settings = load_settings(config, environ={})
    run_headless(settings, report=lambda event: None)
    return config, Layout(settings.data_root)


def geoloc(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "geoloc_dagster", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_graph_ends_in_a_release_of_a_classifier(made: tuple[Path, Layout]):
    _, layout = made
    cells = read_partitioning(layout.s2_partitions)
    assert [level.name for level in cells.levels] == ["coarse", "fine"]
    labels = read_parquet(layout.cell_labels)
    assert labels.num_rows == PHOTOS
    champion = read_json(layout.cells_champion)
    assert champion["recipe"] in ("town", "town_by_scene")
    assert champion["evaluation"]["geo_score_share"] > 0.5
    assert not layout.champion.exists()
    assert not layout.embeddings.exists()
    summary = read_json(layout.reports / "summary.json")
    assert set(summary["recipes"]) == {"town", "town_by_scene", "shown"}
    shown = summary["recipes"]["shown"]["test"]
    assert shown["accuracy"]["low"] > shown["commonest_scene"]
    test = summary["recipes"]["town"]["test"]
    assert test["figures"]["hierarchy"]["within_m"]["200000"]["value"] > 0.7
    assert test["baselines"]["random training photo"]["within_m"]["200000"]["value"] < 0.3
    lead = layout.report.read_text().split("<h2>")[0]
    share = summary["recipes"][champion["recipe"]]["test"]["figures"]["hierarchy"]["within_m"]["200000"]
    assert f"<b>{share['value']:.1%}</b> of cases (95 % interval {share['low']:.1%} to {share['high']:.1%}" in lead
    per_scene = next(layout.evaluations.glob("town_by_scene/*-test/report.json"))
    assert read_json(per_scene)["over_base"]["200 km"]["n_queries"] == test["n_photos"]
    people = read_parquet(layout.catalog, ["creator", "split"]).to_pandas().groupby("creator")["split"].nunique()
    assert people.max() == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_folder_is_answered_as_a_csv_and_measured(made: tuple[Path, Layout], tmp_path: Path):
    config, layout = made
    write_photos(tmp_path, 60, seed=5)
    said = geoloc("predict", "--image-dir", tmp_path / "photos", "--out", tmp_path / "out.csv", "--cpu", "--config", config)
    assert said.returncode == 0, said.stderr
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert list(rows[0]) == ["img_id", "p_key", "pred_class", "pred_lat", "pred_lng", "confidence"]
    assert {row["p_key"] for row in rows} == {"coarse", "fine", "hierarchy"}
    assert len(rows) == 3 * 60
    assert "60 photos answered by town" in said.stdout
    newest = read_json(layout.cells_champion)["folder"]
    dirs = ["--image-dirs", tmp_path / "photos", "--meta-files", tmp_path / "meta.csv"]
    model = layout.root / newest
    tested = geoloc(
        "test", *dirs, "--checkpoint", model / "weights.safetensors", "--out", tmp_path / "tested", "--bootstrap", "50"
    )
    assert tested.returncode == 0, tested.stderr
    assert "hierarchy" in tested.stdout
    report = read_json(tmp_path / "tested" / "meta" / "report.json")
    assert report["n_photos"] == 60
    assert report["figures"]["hierarchy"]["within_m"]["200000"]["value"] > 0.7
    assert {"table.md", "errors.png", "levels.png", "predictions.csv"} <= {
        path.name for path in (tmp_path / "tested/meta").iterdir()
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_photo_is_answered_at_every_level(made: tuple[Path, Layout], monkeypatch: Any, capsys: pytest.CaptureFixture[str]):
    config, layout = made
    photo = config.parent / "photos/0/003.jpg"
    heat = layout.root / "heat.png"
    for form in (["--map", str(heat)], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["geoloc", "predict", str(photo), *form, "--config", str(config)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
    assert heat.read_bytes()[:4] == b"\x89PNG"
    assert heat.stat().st_size < 500_000
    table, _, listed = capsys.readouterr().out.partition("[\n")
    assert "hierarchy" in table
    answer = json.loads("[\n" + listed)[0]
    truth = next(row for row in csv.reader((config.parent / "meta.csv").open()) if row[0] == "0/003.jpg")
    said = answer["cells"]["coarse"]
    assert abs(said["lat_deg"] - float(truth[2])) < 1
    token = said["token"]
    assert token in (layout.s2_partitions / "coarse.csv").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_trained_classifier_of_scenes_labels_photos_whose_list_says_none(made: tuple[Path, Layout], tmp_path: Path):
    _, layout = made
    model = require_training(layout.checkpoints / "shown").folder
    settings = SceneSettings(source="model", model=model)
    labels = tmp_path / "scene_labels.lance"
    result = write_scene_labels(
        layout.crops, labels, "photos-0000", settings, photos_path=None, load_classifier=lambda: load_scene_classifier(model)
    )
    assert result.from_model == result.rows == PHOTOS
    columns = ["capture_id", "scene", "source"]
    by_model, by_list = (open_table(path).to_table(columns=columns).to_pandas() for path in (labels, layout.scene_labels))  # type: ignore[union-attr]
    both = by_model.merge(by_list, on="capture_id")
    assert (both["scene_x"] == both["scene_y"]).mean() > 0.6
    assert set(by_model["source"]) == {model.name}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_classifier_is_asked_as_hparams_say(made: tuple[Path, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, _ = made
    (tmp_path / "ask.yaml").write_text("inference: {crops: 10, hierarchy: equal, answer: likeliest}\n")
    folder, found = config.parent / "photos" / "0", dict[str, list[dict[str, str]]]()
    for name, options in {"own": [], "asked": ["--hparams", str(tmp_path / "ask.yaml"), "--precision", "bf16"]}.items():
        out = tmp_path / f"{name}.csv"
        command = [
            "geoloc",
            "predict",
            "--image-dir",
            str(folder),
            "--out",
            str(out),
            "--num-workers",
            "0",
            "--config",
            str(config),
        ]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        found[name] = list(csv.DictReader(out.open()))
    own, asked = (np.array([float(row["confidence"]) for row in found[name]]) for name in ("own", "asked"))
    assert len(own) == len(asked) == 300
    assert np.abs(own - asked).max() > 1e-3
    same = np.mean([a["pred_class"] == b["pred_class"] for a, b in zip(found["own"], found["asked"], strict=True)])
    assert same > 0.7


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_corrupted_photos_are_named_and_skipped_and_the_exit_code_says_so(made: tuple[Path, Layout], tmp_path: Path):
    config, _ = made
    write_photos(tmp_path, 20, seed=6)
    whole = (tmp_path / "photos/0/003.jpg").read_bytes()
    (tmp_path / "photos/0/003.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos/0/004.jpg").write_bytes(b"not a picture")
    (tmp_path / "photos/0/005.jpg").write_bytes(b"")
    out = tmp_path / "out.csv"
    said = geoloc(
        "predict", "--image-dir", tmp_path / "photos", "--out", out, "--num-workers", "2", "--batch-size", "4", "-c", config
    )
    assert said.returncode == 1
    for name in ("0/003.jpg", "0/004.jpg", "0/005.jpg"):
        assert f"skipped {name}: " in said.stderr
    assert "3 photos could not be read" in said.stderr
    assert len(list(csv.DictReader(out.open()))) == 3 * 17


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--image-dir", "nowhere", "--out", "out.csv"], "nowhere is no folder"),
        (["--image-dir", "."], "--out"),
        ([], "name photos, or a folder"),
        (["--image-dir", ".", "--out", "o.csv", "--precision", "8"], "32, bf16 or 16"),
        (["--image-dir", ".", "--out", "o.csv", "--checkpoint", "gone"], "gone does not exist"),
        (["--image-dir", ".", "--out", "o.csv", "--gpu"], "no GPU"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(
    made: tuple[Path, Layout],
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["geoloc", "predict", *arguments, "--config", str(made[0])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert told in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_again_measures_the_champion_again_and_serves_what_was_served(
    made: tuple[Path, Layout], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Last, because it adds a model to the region of the others."""
    config, layout = made
    champion = read_json(layout.cells_champion)
    recipe, served = champion["recipe"], read_json(layout.releases / "CURRENT.json")
    path = config.parent / "recipes" / f"{recipe}.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    measured = layout.evaluations / recipe / champion["model_version"] / "report.json"
    before = measured.stat().st_mtime_ns
    monkeypatch.setattr(sys, "argv", ["geoloc", "train", "--recipe", recipe, "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0, capsys.readouterr().err
    newest = require_training(layout.checkpoints / recipe)
    assert newest.model_version != champion["model_version"]
    assert (layout.evaluations / recipe / newest.model_version / "report.json").is_file()
    assert measured.stat().st_mtime_ns > before
    assert read_json(layout.cells_champion) == champion
    assert read_json(layout.releases / "CURRENT.json") == served
