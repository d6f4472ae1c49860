"""`geoloc predict` where the release has a fusion: one calibrated answer of all experts, or of one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from geoloc_dagster.config import Layout
from geoloc_dagster.console import open_console
from geoloc_dagster.storage import write_bytes, write_json

if TYPE_CHECKING:
    from geoloc_dagster.prediction.fused import FusedPrediction, FusedPredictor


def answer_fused(
    photos: list[Path], layout: Layout, *, as_json: bool, map_file: Path | None, top: int, coverage: float, expert: str | None
) -> None:
    """Print the answers to photos, and draw that to the first where a map is wanted."""
    from geoloc_dagster.config.settings import COVERAGES
    from geoloc_dagster.console import candidates_table
    from geoloc_dagster.prediction.fused import load_fused

    if coverage not in COVERAGES:
        raise typer.BadParameter(f"one of {', '.join(map(str, COVERAGES))}", param_hint="--coverage")
    predictor = load_fused(layout)
    answers = predictor.predict(photos, coverage=coverage, expert=expert)
    if as_json:
        typer.echo(json.dumps([_with_photo(photo, answer, top) for photo, answer in zip(photos, answers, strict=True)], indent=2))
    else:
        console = open_console()
        for photo, answer in zip(photos, answers, strict=True):
            console.print(fused_table(photo.name, answer))
            if answer.candidates:
                console.print(candidates_table("The most similar known places", answer.candidates, top))
    if map_file is not None:
        _write_map(predictor, photos[0], answers[0], map_file)


def fused_table(photo: str, answer: FusedPrediction) -> Table:
    """Position, probabilities, region, and what each expert said."""
    from geoloc_dagster.evaluation.geolocation_reports import radius_name
    from geoloc_dagster.evaluation.tables import area, probability

    table = Table(
        title=f"{photo}: {answer.lat_deg:.6f}, {answer.lng_deg:.6f} (lat, lng)", title_justify="left", show_header=False
    )
    if answer.refusal:
        table.add_row("not answered", answer.refusal)
    for radius, within in answer.within.items():
        table.add_row(f"within {radius_name(radius)}", probability(within))
    table.add_row(f"region that holds the place in {answer.coverage:.0%} of cases", area(answer.region_km2))
    for name, said in answer.experts.items():
        table.add_row(f"{name} alone", f"{said['lat_deg']:.6f}, {said['lng_deg']:.6f} (weight {said['weight']:.2f})")
    return table


def _with_photo(photo: Path, answer: FusedPrediction, top: int) -> dict[str, Any]:
    said = answer.to_json()
    return {"photo": str(photo), **said, "candidates": said["candidates"][:top]}


def _write_map(predictor: FusedPredictor, photo: Path, answer: FusedPrediction, path: Path) -> None:
    """The heat map: cells with their probabilities as GeoJSON, or a picture of them."""
    from geoloc_dagster.photo_cli import MAP_BYTES
    from geoloc_dagster.prediction.fused import heat_features
    from geoloc_dagster.prediction.picture import fused_heat_map

    said = predictor.log_probabilities([photo])[0]
    if path.suffix.lower() in (".geojson", ".json"):
        features = heat_features(predictor.fusion, said)
        region = {"type": "Feature", "geometry": answer.region, "properties": {"coverage": answer.coverage}}
        point = {"type": "Point", "coordinates": [answer.lng_deg, answer.lat_deg]}
        features["features"] += [region, {"type": "Feature", "geometry": point, "properties": {"answer": photo.name}}]
        write_json(path, features)
    else:
        write_bytes(path, fused_heat_map(predictor.fusion.grid, said, answer, photo.name, max_bytes=MAP_BYTES))
    typer.echo(f"wrote {path}", err=True)
