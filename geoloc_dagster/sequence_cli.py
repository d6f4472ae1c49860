"""`geoloc predict --views …` and `--place …`: several views of one place, answered as one by a sequence model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoloc_dagster.config.loader import load_settings, open_data_root
from geoloc_dagster.console import open_console
from geoloc_dagster.storage import write_bytes

if TYPE_CHECKING:
    from geoloc_dagster.learning.sequence_model import SequenceModel
    from geoloc_dagster.prediction.places import PlaceAnswer, PlaceViews

_MAP_BYTES = 500_000
_WIDTH = 160  # of tables that go into a file

Views = Annotated[
    list[str] | None,
    typer.Option("--views", help="HEADING:FILE, a view of one place, e.g. 90:east.jpg; ?:FILE without a heading. Repeated."),
]
Place = Annotated[
    list[Path] | None,
    typer.Option("--place", help="A folder CELL+LAT,LNG with pictures HEADING_YYYY-MM.jpg, or one that holds such. Repeated."),
]
Only = Annotated[
    Path | None, typer.Option("--only", help="Of the folders of --place those that this text file names, one a line.")
]
At = Annotated[str | None, typer.Option("--at", help="LAT,LNG: where the place of --views truly is, to be told the distance.")]


def predict_places(
    views: list[str],
    folders: list[Path],
    only: Path | None,
    at: str | None,
    *,
    as_json: bool,
    map_file: Path | None,
    top: int,
    out: Path | None,
    checkpoint: Path | None,
    gpu: bool | None,
    config: Path | None,
    data_root: Path | None,
) -> None:
    """Answer the place of some views, or places in folders; one answer and average distances are printed."""
    places = _places(views, folders, only, at)
    if map_file is not None and (len(places) != 1 or map_file.suffix.lower() not in (".html", ".png")):
        raise typer.BadParameter("a map shows one place, as FILE.html or FILE.png", param_hint="--map")
    model = _model(checkpoint, gpu, config, data_root)
    from geoloc_dagster.prediction.places import answer_json, ask_places

    answers = ask_places(model, places)
    if as_json:
        typer.echo(json.dumps([answer_json(model, answer, top) for answer in answers], indent=2))
    else:
        _show(model, answers, top)
    if out is not None:
        _write_csv(model, answers, out)
    if map_file is not None:
        _write_map(model, answers[0], map_file)


def _places(views: list[str], folders: list[Path], only: Path | None, at: str | None) -> list[PlaceViews]:
    if bool(views) == bool(folders):
        raise typer.BadParameter("give the views of one place, or folders with --place", param_hint="--views")
    from geoloc_dagster.prediction.places import PlaceViews, only_listed, read_places

    if views:
        if only is not None:
            raise typer.BadParameter("goes with --place", param_hint="--only")
        return [PlaceViews("place", tuple(map(_view, views)), None if at is None else _position(at))]
    if at is not None:
        raise typer.BadParameter("goes with --views; folders say in their names where they are", param_hint="--at")
    places = [place for folder in folders for place in read_places(folder)]
    return places if only is None else only_listed(places, only)


def _view(text: str) -> tuple[float, Path]:
    heading, colon, file = text.partition(":")
    try:
        degrees = math.nan if heading == "?" else float(heading)
    except ValueError:
        degrees = math.inf
    if not colon or not file or math.isinf(degrees):
        raise typer.BadParameter(f"{text!r} is no HEADING:FILE such as 90:east.jpg, or ?:FILE", param_hint="--views")
    return degrees % 360, Path(file)


def _position(text: str) -> tuple[float, float]:
    try:
        lat, lng = map(float, text.split(","))
    except ValueError:
        lat = lng = math.nan
    if not (abs(lat) <= 90 and abs(lng) <= 180):
        raise typer.BadParameter(f"{text!r} is no LAT,LNG in degrees such as 39.29,-117.91", param_hint="--at")
    return lat, lng


def _model(checkpoint: Path | None, gpu: bool | None, config: Path | None, data_root: Path | None) -> SequenceModel:
    if checkpoint is not None and not checkpoint.exists():
        raise typer.BadParameter(f"{checkpoint} does not exist", param_hint="--checkpoint")
    from geoloc_dagster.learning.sequence_model import load_sequence_model
    from geoloc_dagster.prediction.places import newest_sequence_model

    if checkpoint is not None:
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    else:
        settings = load_settings(config, data_root=data_root)
        open_data_root(settings)
        folder = newest_sequence_model(settings)
    return load_sequence_model(folder, device="" if gpu is None else "cuda" if gpu else "cpu")


def _show(model: SequenceModel, answers: list[PlaceAnswer], top: int) -> None:
    from geoloc_dagster.console import text_table
    from geoloc_dagster.prediction.places import average_line, candidates_table, places_table, verdict

    console = open_console(piped_width=_WIDTH)
    if len(answers) == 1:
        console.print(text_table(candidates_table(model, answers[0], top)))
        typer.echo(verdict(answers[0]))
        return
    console.print(text_table(places_table(model, answers)))
    average = average_line(answers)
    if average:
        typer.echo(average)


def _write_csv(model: SequenceModel, answers: list[PlaceAnswer], out: Path) -> None:
    import csv
    import io

    from geoloc_dagster.prediction.places import answer_json

    stream = io.StringIO()
    writer = csv.writer(stream)
    columns = ("place", "cell", "lat_deg", "lng_deg", "error_km")
    writer.writerow(columns)
    for answer in answers:
        said = answer_json(model, answer, 1)
        writer.writerow(["" if said[column] is None else said[column] for column in columns])
    write_bytes(out, stream.getvalue().encode())
    typer.echo(f"wrote {out}", err=True)


def _write_map(model: SequenceModel, answer: PlaceAnswer, map_file: Path) -> None:
    from geoloc_dagster.prediction.place_page import place_map, place_page

    if map_file.suffix.lower() == ".html":
        write_bytes(map_file, place_page(model, answer).encode())
    else:
        write_bytes(map_file, place_map(model, answer, max_bytes=_MAP_BYTES))
    typer.echo(f"wrote {map_file}", err=True)
