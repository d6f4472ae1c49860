"""The figures of a region in one place: what `reports/summary.json` says of recipes and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoloc_dagster.config import Layout
from geoloc_dagster.evaluation.geolocation import HIERARCHY
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.learning.registry import newest_training
from geoloc_dagster.storage import read_json

CLASSIFIERS = ("cells", "sequence")
"""Kinds whose reports say how far answers lie from the truth."""
_KEPT_OF_VIEWS = ("by_views", "over_single_view")
_KEPT = ("n_queries", "n_gallery", "n_places", "same_place", "within_m", "by_year", "by_district", "variants", "gained_over")
_HEADLINE_UNSEEN_M = ("250",)
_NEW = ("unseen_place",)  # evaluations of before do not have it
_KEPT_OF_CELLS = ("kind", "n_photos", "n_groups", "figures", "hierarchy_against", "oracle", "baselines", "merit", "scene")


def recipe_figures(layout: Layout, recipes: Sequence[str]) -> dict[str, Any]:
    """`recipes.{name}.{split}` and `baselines.{name}.{split}` of every evaluated recipe, the newest model of each."""
    found: dict[str, Any] = {}
    baselines: dict[str, Any] = {}
    for recipe in recipes:
        training = newest_training(layout.checkpoints / recipe)
        if training is None:
            continue
        folders = sorted((layout.evaluations / recipe).glob(f"{training.model_version}*/report.json"))
        for report in (read_json(path) for path in folders):
            split = report["split"]
            if report.get("kind") == "scenes":
                entry = found.setdefault(recipe, {"model_version": training.model_version})
                entry[split] = {name: report[name] for name in ("kind", "n_photos", "accuracy", "by_scene", "commonest_scene")}
                continue
            if report.get("kind") in CLASSIFIERS:
                entry = found.setdefault(recipe, {"model_version": training.model_version})
                entry[split] = {name: report[name] for name in (*_KEPT_OF_CELLS, *_KEPT_OF_VIEWS) if name in report}
                continue
            entry = found.setdefault(recipe, {"model_version": training.model_version})
            entry[split] = {name: report[name] for name in (*_KEPT, *(new for new in _NEW if new in report))}
            for name, baseline in report["baselines"].items():
                label = name if name == "thumbnail" else f"{name}_{recipe}"
                baselines.setdefault(label, {})[split] = {key: baseline[key] for key in (*_KEPT, *_NEW) if key in baseline}
    return {"recipes": found, "baselines": baselines, "figures": _lines(found, baselines)}


def headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The few figures of an evaluation that are worth plotting over time; the rest is in `report.json`.

    Args:
        metrics: split -> report, as `summarise` makes it, with its baselines.
    """
    figures: dict[str, float] = {}
    for split, report in metrics.items():
        if report.get("kind") == "scenes":
            figures |= {f"{split}.accuracy": report["accuracy"]["value"], f"{split}.photos": float(report["n_photos"])}
            continue
        if report.get("kind") in CLASSIFIERS:
            figures |= _headline_of_cells(split, report)
            continue
        for cut, interval in report["same_place"].items():
            figures[f"{split}.{cut}"] = interval["value"]
        first = report["same_place"]["recall@1"]
        figures |= {f"{split}.recall@1.low": first["low"], f"{split}.recall@1.high": first["high"]}
        for radius, recall in report["within_m"].items():
            figures[f"{split}.within_{radius}m.recall@1"] = recall["recall@1"]["value"]
        for radius in _HEADLINE_UNSEEN_M:
            if radius in report.get("unseen_place", {}).get("within_m", {}):
                share = report["unseen_place"]["within_m"][radius]["recall@1"]
                figures[f"{split}.unseen_place.within_{radius}m.recall@1"] = share["value"]
        for name, baseline in report["baselines"].items():
            figures[f"{split}.{name}.recall@1"] = baseline["same_place"]["recall@1"]["value"]
        figures |= {f"{split}.queries": report["n_queries"], f"{split}.gallery": report["n_gallery"]}
    return figures


def _lines(recipes: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[list[str]]:
    """Label and value pairs for the terminal."""
    lines: list[list[str]] = []
    for name, splits in [*recipes.items(), *baselines.items()]:
        for split, figures in splits.items():
            if isinstance(figures, dict) and figures.get("kind") in CLASSIFIERS:
                lines.append([f"{name} on {split}", _line_of_cells(figures)])
            elif isinstance(figures, dict) and figures.get("kind") == "scenes":
                right = figures["accuracy"]
                text = f"scene right {right['value']:.3f}  (95 % {right['low']:.3f}-{right['high']:.3f})"
                lines.append([f"{name} on {split}", f"{text}, always the commonest {figures['commonest_scene']:.3f}"])
            elif isinstance(figures, dict):
                same = figures["same_place"]
                cuts = sorted(same, key=lambda cut: int(cut.removeprefix("recall@")))
                recalls = "  ".join(f"R@{cut.removeprefix('recall@')} {same[cut]['value']:.3f}" for cut in cuts)
                first = same["recall@1"]
                lines.append([f"{name} on {split}", f"{recalls}  (R@1 95 % {first['low']:.3f}-{first['high']:.3f})"])
    return lines


def _headline_of_cells(split: str, report: Mapping[str, Any]) -> dict[str, float]:
    figures = {f"{split}.photos": float(report["n_photos"]), f"{split}.merit": report["merit"]}
    for p_key, said in report["figures"].items():
        for radius, share in said["within_m"].items():
            figures[f"{split}.{p_key}.within_{radius}m"] = share["value"]
        figures[f"{split}.{p_key}.geo_score"] = said["geo_score"]["value"]
    return figures


def _line_of_cells(figures: Mapping[str, Any]) -> str:
    """Shares of the answer of all levels together."""
    said = figures["figures"][HIERARCHY]
    radii = sorted(said["within_m"], key=int)
    shares = "  ".join(f"{radius_name(int(radius))} {said['within_m'][radius]['value']:.3f}" for radius in radii)
    return f"within {shares}  (GeoScore {said['geo_score']['value']:.0f})"
