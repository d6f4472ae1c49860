"""How good the models are, as the pages show it: evaluations, the fusion, hits and misses, and two models side by side.

Everything is read from the folders that the assets `evaluations` and `fusion` have written; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoloc_dagster.config import Layout
from geoloc_dagster.errors import ModelMismatchError
from geoloc_dagster.explorer.problems import Problem
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.geo.partitioning import HIERARCHY
from geoloc_dagster.prediction.parts import KINDS
from geoloc_dagster.prediction.release import newest_fusion
from geoloc_dagster.storage import read_geoparquet, read_json, read_parquet

_TITLES = {
    "recall": "Found among the first 1, 5 and 10, beside baselines",
    "years": "Found at the first rank, by year of the query",
    "year_matrix": "Found at the first rank, by year of query and of gallery",
    "age_gap": "Found at the first rank, by the years between query and gallery",
    "map": "Hits and misses on the map",
    "sheet": "Queries with their nearest pictures",
    "atlas": "Districts: found, age of imagery, size of regions",
    "reliability": "How often answers are right, by how sure they are",
    "coverage": "How often regions hold the place, by year and district",
    "recall_area": "Share of places found within an area that is searched",
}
_SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg"}
_BOOTSTRAP = 2_000


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model on one split."""

    folder: Path
    recipe: str
    model_version: str
    report: dict[str, Any]

    @property
    def kind(self) -> str:
        """Of its recipe."""
        return str(self.report.get("kind", "retrieval"))

    @property
    def split(self) -> str:
        """That it was measured on."""
        return str(self.report.get("split", "unknown"))


def evaluated(layout: Layout) -> Iterator[Evaluated]:
    """Every evaluation there is, the newest model of a recipe last."""
    for path in sorted(layout.evaluations.glob("*/*/report.json"), key=lambda path: path.stat().st_mtime):
        if not path.parent.name.startswith("."):
            report = read_json(path)
            version = str(report.get("facts", {}).get("model_version") or path.parent.name)
            yield Evaluated(path.parent, path.parent.parent.name, version, report)


def quality(layout: Layout) -> dict[str, Any]:
    """All models on the split that they are held out of, `test` where there is a choice, and the fusion."""
    best: dict[str, Evaluated] = {}
    for one in evaluated(layout):
        known = best.get(one.model_version)
        if known is None or (known.split != "test" and one.split == "test"):
            best[one.model_version] = one
    champions = {champion for kind in KINDS if (champion := _champion(layout, kind)) is not None}
    models = [_model(layout, one, champions) for one in reversed(best.values())]
    return {"fusion": _fusion(layout), "models": models}


def picture_of(layout: Layout, recipe: str, model_version: str, name: str) -> tuple[bytes, str]:
    """A picture of an evaluation, or of the fusion where the recipe is `fusion`: its bytes and media type.

    Raises:
        Problem: there is none (404).
    """
    folder = newest_fusion(layout) if recipe == "fusion" else _find(layout, model_version, recipe).folder
    for suffix, media in _SUFFIXES.items():
        if folder is not None and name in _TITLES and (folder / f"{name}{suffix}").is_file():
            return (folder / f"{name}{suffix}").read_bytes(), media
    raise Problem(404, "there is no such picture")


def hits_and_misses(layout: Layout, recipe: str, model_version: str, *, hit: bool, count: int) -> list[dict[str, Any]]:
    """Queries that were found, or were not, the farthest off first among the misses; raises Problem (404)."""
    one = _find(layout, model_version, recipe)
    rows: list[dict[str, Any]] = []
    for row in read_parquet(one.folder / "queries.parquet").to_pylist():
        retrieved = "first_hit_rank" in row
        error = (row.get("distances_m") or [None])[0] if retrieved else row.get(f"{HIERARCHY}_error_m")
        right = row["first_hit_rank"] == 1 if retrieved else error is not None and error <= _near_m(layout)
        if right == hit:
            found = (row.get("neighbours") or [None])[0] if retrieved else None
            day = row.get("captured_on")
            rows.append(
                {
                    "capture_id": row["capture_id"],
                    "url": f"views/{row['capture_id']}",
                    "hit": right,
                    "distance_m": None if error is None else round(error, 1),
                    "found_url": None if found is None else f"views/{found}",
                    "captured_on": None if day is None else day.isoformat(),
                }
            )
    rows.sort(key=lambda row: (-(row["distance_m"] or 0) if not hit else 0, row["capture_id"]))
    return rows[:count]


def compare(layout: Layout, a: str, b: str) -> dict[str, Any]:
    """What one model gains over another on the queries of both, overall, by district and by year.

    Raises:
        Problem: one has not been evaluated (404), or they have no split or no query in common (409).
    """
    from geoloc_dagster.evaluation.compare_recipes import OVERALL, compare_queries
    from geoloc_dagster.evaluation.geolocation import scale_of

    first, second = (_splits(layout, version) for version in (a, b))
    common = sorted(set(first) & set(second))
    if not common:
        raise Problem(409, "the two models were not evaluated on one split")
    split = "test" if "test" in common else common[-1]
    west, south, east, north = read_boundary(layout.boundary).geometry.bounds
    try:
        queries = [read_parquet(one[split].folder / "queries.parquet") for one in (first, second)]
        result = compare_queries(
            queries[0],
            queries[1],
            read_parquet(layout.catalog, ["capture_id", "year", "district"]),
            scale_of(score_m(south, west, north, east)),
            names=(a, b),
            split=split,
            bootstrap=_BOOTSTRAP,
        )
    except ModelMismatchError as error:
        raise Problem(409, f"{error.cause}. {error.remedy}") from error
    measure = result.gains[0].measure
    overall = next(gain for gain in result.gains if gain.part == OVERALL and gain.measure == measure)
    said: dict[str, Any] = {"a": a, "b": b, "metric": measure, "split": split, "n_queries": result.n_common}
    said |= {"a_value": overall.a, "b_value": overall.b, "difference": overall.difference.difference}
    said |= {"low": overall.difference.low, "high": overall.difference.high, "verdict": overall.verdict}
    for column, key in (("district", "name"), ("year", "year")):
        parts = [gain for gain in result.gains if gain.measure == measure and gain.part.startswith(f"{column} ")]
        said[f"by_{column}"] = [
            {key: gain.part.removeprefix(f"{column} "), "n": gain.difference.n_queries, "a": gain.a, "b": gain.b}
            for gain in parts
        ]
    return said


def atlas(layout: Layout, of: str) -> dict[str, Any]:
    """GeoJSON of the districts, of the fusion or of a model; raises Problem (404) where there is none."""
    folder = newest_fusion(layout) if of == "fusion" else _find(layout, of).folder
    if folder is None or not (folder / "atlas.parquet").is_file():
        raise Problem(404, "there is no atlas of that")
    frame: Any = read_geoparquet(folder / "atlas.parquet")
    features: list[dict[str, Any]] = []
    for row in frame.itertuples(index=False):
        values = row._asdict()
        shape = values.pop("geometry")
        geometry = None if shape is None or shape.is_empty else shape.__geo_interface__
        features.append({"type": "Feature", "geometry": geometry, "properties": {k: _plain(v) for k, v in values.items()}})
    return {"type": "FeatureCollection", "features": features}


# --- parts ------------------------------------------------------------------------------------------------------------
def _model(layout: Layout, one: Evaluated, champions: set[str]) -> dict[str, Any]:
    training = layout.checkpoints / one.recipe / one.model_version / "training.json"
    facts: Mapping[str, Any] = read_json(training) if training.is_file() else {}
    written = datetime.fromtimestamp((one.folder / "report.json").stat().st_mtime, UTC)
    return {
        "model_version": one.model_version,
        "recipe": one.recipe,
        "kind": one.kind,
        "split": one.split,
        "champion": one.model_version in champions,
        "evaluated_at": written.isoformat(timespec="seconds"),
        "trained_at": facts.get("finished_at"),
        "mlflow_run_id": facts.get("mlflow_run_id"),
        "n_queries": one.report.get("n_queries", one.report.get("n_photos")),
        "headline": _headline(one.report),
        "pictures": _pictures(one.folder, f"quality/{one.recipe}/{one.model_version}/pictures"),
    }


def _headline(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of a report that say most, with their intervals."""
    from geoloc_dagster.evaluation.geolocation_reports import radius_name

    if "same_place" in report:
        named = {name.replace("recall@", "R@"): value for name, value in report["same_place"].items()}
    elif "figures" in report:
        figures = report["figures"].get(HIERARCHY) or next(iter(report["figures"].values()))
        named = {f"within {radius_name(int(radius))}": value for radius, value in figures.get("within_m", {}).items()}
        named |= {"GeoScore": figures["geo_score"]} if "geo_score" in figures else {}
    else:
        named = {}
    order = sorted(named, key=lambda name: (name == "GeoScore", _number(name)))
    return [{"name": name, **_interval(named[name])} for name in order if named[name] is not None]


def _fusion(layout: Layout) -> dict[str, Any] | None:
    folder = newest_fusion(layout)
    if folder is None or not (folder / "report.json").is_file():
        return None
    report = read_json(folder / "report.json")
    experts = [{"name": name, "figures": _figures(values)} for name, values in report["figures"].items()]
    overall = report["coverage"]["overall"]
    return {
        "fusion": folder.name,
        "n_queries": report["n_questions"],
        "headline": next((expert["figures"] for expert in experts if expert["name"] == "fusion"), []),
        "experts": experts,
        "ece": report["ece"],
        "coverage": {"asked": report["coverage"]["nominal"], "held": overall["covered"]["value"], **_bounds(overall["covered"])},
        "pictures": _pictures(folder, "quality/fusion/pictures"),
    }


def _figures(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    from geoloc_dagster.evaluation.geolocation_reports import radius_name

    radii = sorted((name for name in values if name.isdigit()), key=int)
    named = [(f"within {radius_name(int(name))}", values[name]) for name in radii]
    return [{"name": name, **_interval(value)} for name, value in [*named, ("GeoScore", values["score"])]]


def _pictures(folder: Path, url: str) -> list[dict[str, str]]:
    there = [name for name in _TITLES if any((folder / f"{name}{suffix}").is_file() for suffix in _SUFFIXES)]
    return [{"name": name, "title": _TITLES[name], "url": f"{url}/{name}"} for name in there]


def _find(layout: Layout, model_version: str, recipe: str | None = None) -> Evaluated:
    splits = _splits(layout, model_version)
    one = splits.get("test") or next(iter(splits.values()))
    if recipe is not None and one.recipe != recipe:
        raise Problem(404, "no such model has been evaluated")
    return one


def _splits(layout: Layout, model_version: str) -> dict[str, Evaluated]:
    found = {one.split: one for one in evaluated(layout) if one.model_version == model_version}
    if not found:
        raise Problem(404, "no such model has been evaluated")
    return found


def _champion(layout: Layout, kind: str) -> str | None:
    pointer = layout.champion_of(kind)
    return str(read_json(pointer)["model_version"]) if pointer.is_file() else None


def _near_m(layout: Layout) -> float:
    """Within which an answer of a classifier is called a hit: a tenth of where the score has fallen to 1 / e."""
    west, south, east, north = read_boundary(layout.boundary).geometry.bounds
    return score_m(south, west, north, east) / 10


def _interval(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": value["value"], **_bounds(value)}


def _bounds(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"low": value["low"], "high": value["high"]}


def _number(name: str) -> float:
    digits = "".join(character for character in name if character.isdigit())
    return float(digits or 0) * (1000 if "km" in name else 1)


def _plain(value: Any) -> Any:
    """A value of a data frame as JSON knows it."""
    if value is None or value != value:
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value
