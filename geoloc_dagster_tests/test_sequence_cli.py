"""Several views of one place on the command line: what cannot be asked is one clear error."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster import cli
from geoloc_dagster.learning.loop import TrainedModel
from geoloc_dagster.learning.sequence_model import load_sequence_model
from geoloc_dagster.learning.sequence_training import train_sequence
from geoloc_dagster.prediction.place_page import place_map, place_page
from geoloc_dagster.prediction.places import ask_places, read_places
from geoloc_dagster_tests.end_to_end.regions import write_region
from geoloc_dagster_tests.learning.crossroads import HEADINGS, TOWNS, make_crossroads, sequence_recipe, view


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    folder = tmp_path_factory.mktemp("model")
    world = make_crossroads(folder, places=64)
    recipe = sequence_recipe(heads={"classes": "grid_cells"}, budget={"epochs": 2, "batch_size": 16})
    return train_sequence(recipe, world.catalog, world.grid, world.crops, folder / "models")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two places in the published naming, one of them in two months."""
    folder, rng = tmp_path_factory.mktemp("places"), np.random.default_rng(0)
    for town, month in ((1, "2012-05"), (1, "2019-04"), (4, "2007-12")):
        place = folder / f"{town}0+{TOWNS[town][0]},{TOWNS[town][1]}"
        place.mkdir(exist_ok=True)
        for heading in HEADINGS:
            (place / f"{heading:.0f}_{month}.jpg").write_bytes(view(town, heading, rng))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["geoloc", "predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_places_are_read_by_name_and_month(places: Path):
    found = read_places(places)
    assert [place.name for place in found] == ["10+48.8,2.3 2012-05", "10+48.8,2.3 2019-04", "40+40.7,-74.0 2007-12"]
    assert [heading for heading, _ in found[0].views] == [0.0, 90.0, 180.0]
    assert found[2].truth == TOWNS[4]
    assert [place.name for place in read_places(places / "10+48.8,2.3")] == [place.name for place in found[:2]]


def test_a_page_and_a_picture_show_every_class(model: TrainedModel, places: Path):
    asked = load_sequence_model(model.folder)
    answer = ask_places(asked, read_places(places))[2]
    page = place_page(asked, answer)
    assert page.count("<path ") == 9
    assert page.count("data:image/jpeg") == 3
    assert f"{answer.error_m / 1000:,.1f} km from the true place" in page
    assert "://" not in page
    assert place_map(asked, answer, max_bytes=500_000)[:4] == b"\x89PNG"
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_answers_are_printed_for_one_place_and_for_several(
    model: TrainedModel, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, "--place", places / "40+40.7,-74.0", "--checkpoint", model.folder) == 0
    assert " km from the true place 40.70000, -74.00000" in capsys.readouterr().out
    assert run(monkeypatch, "--place", places, "--checkpoint", model.folder / "weights.safetensors") == 0
    assert "(3 places)" in capsys.readouterr().out
    file = places / "40+40.7,-74.0" / "90_2007-12.jpg"
    assert run(monkeypatch, "--views", f"90:{file}", "--views", f"?:{file}", "--checkpoint", model.folder) == 0
    shown = capsys.readouterr().out
    assert "answer " in shown
    assert "true place " not in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--views", "east.jpg"], "'east.jpg' is no HEADING:FILE"),
        (["--views", "east:east.jpg"], "is no HEADING:FILE"),
        (["--views", "0:gone.jpg", "--at", "91,0"], "'91,0' is no LAT,LNG"),
        (["--views", "0:gone.jpg"], "cannot read gone.jpg"),
        (["--views", "0:gone.jpg", "--place", "."], "the views of one place, or folders"),
        (["--place", "nowhere"], "there is no folder nowhere"),
        (["--place", "PLACES", "--map", "x.html"], "a map shows one place"),
        (["--place", "PLACES", "--at", "1,1"], "goes with --views"),
        (["--place", "PLACES", "--only", "LIST"], "names 1 places that are not there, the first is '7+1,1'"),
        (["--views", "0:gone.jpg", "--map", "x.gif"], "FILE.html or FILE.png"),
        (["--place", "ODD"], "does not say which place and heading it shows"),
        (["photo.jpg", "--place", "PLACES"], "go without single photos"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_error(
    model: TrainedModel,
    places: Path,
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("7+1,1\n")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "north.jpg").write_bytes(b"x")
    names = {"PLACES": str(places), "LIST": "list.txt", "ODD": "odd"}
    given = [names.get(argument, argument) for argument in arguments]
    assert run(monkeypatch, *given, "--checkpoint", model.folder) == 2
    assert told in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_region_without_a_trained_sequence_says_what_to_do(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config = write_region(tmp_path)
    assert run(monkeypatch, "--place", places, "--config", config) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no recipe of kind `sequence` has been trained" in said
    assert "geoloc train --recipe sequence" in said
