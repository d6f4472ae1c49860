"""The model card: which models answer for a region, what they learned from, how well they do and where, what they cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc

from geoloc_dagster import storage
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.evaluation.bootstrap import Interval
from geoloc_dagster.evaluation.fusion_report import TOGETHER
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.summary import CLASSIFIERS
from geoloc_dagster.evaluation.tables import NONE, markdown_table, percent
from geoloc_dagster.prediction.cards import Card, publish_card
from geoloc_dagster.prediction.champion import Champion, read_champion
from geoloc_dagster.prediction.parts import KINDS
from geoloc_dagster.prediction.release import newest_fusion
from geoloc_dagster.tables import open_table

_FEW: Final = 5  # places; with fewer a group's figure is left out
_LISTED: Final = 40


def make_model_card(settings: Settings, layout: Layout) -> Card:
    """Write the card of the champions as they are.

    Raises:
        NoReleaseError: nothing has been promoted yet.
        IntegrityError: a champion, an evaluation or the catalog is damaged.
        DataRootError, DiskFullError: it cannot be written.
    """
    pointers = {kind: layout.champion_of(kind) for kind in KINDS if layout.champion_of(kind).is_file()}
    champions = {kind: read_champion(layout, pointer) for kind, pointer in pointers.items()} or {
        "retrieval": read_champion(layout)
    }
    facts = {
        "region": settings.region.name,
        "models": {kind: _model(layout, champion) for kind, champion in champions.items()},
        "fusion": _fusion(layout),
        "licences": _licences(layout),
        "permission": settings.capture.permission,
    }
    return publish_card(layout, "model_card", _markdown(facts), facts)


def _model(layout: Layout, champion: Champion) -> dict[str, Any]:
    training: dict[str, Any] = storage.read_json(champion.folder / "training.json")
    provenance: dict[str, Any] = training.get("provenance", {})
    return {
        "model_version": champion.model_version,
        "recipe": champion.recipe,
        "recipe_yaml": (champion.folder / "recipe.yaml").read_text(),
        "promoted_at": champion.promoted_at,
        "reason": champion.reason,
        "finished_at": training["finished_at"],
        "trained_on_rows": training["trained_on_rows"],
        "mlflow_run_id": training.get("mlflow_run_id"),
        "provenance": {name: provenance[name] for name in sorted(provenance)},
        "taken_down_since": _taken_down_since(layout, str(training["finished_at"])),
        "evaluations": _evaluations(layout.evaluations / champion.recipe, champion.model_version),
    }


def _evaluations(folder: Path, model_version: str) -> dict[str, Any]:
    """Split -> what its report says, of the few figures that a card shows."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob(f"{model_version}*/report.json")):
        if path.parent.name == model_version or path.parent.name.startswith(f"{model_version}-"):
            storage.verify_manifest(path.parent)
            report: dict[str, Any] = storage.read_json(path)
            found[str(report.get("split", path.parent.name))] = _figures(report)
    return found


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    if report.get("kind") in CLASSIFIERS:
        figures = {
            f"{answer}, within {radius_name(int(radius))}": share
            for answer, said in report["figures"].items()
            for radius, share in _by_number(said["within_m"])
        }
        return {"asked": f"{report['n_photos']:,} photos", "figures": figures, "parts": {}}
    figures = {f"same place, {cut}": share for cut, share in _by_number(report["same_place"])}
    for radius, cuts in _by_number(report.get("unseen_place", {}).get("within_m", {})):
        figures[f"unseen place, recall@1 within {radius_name(int(radius))}"] = cuts["recall@1"]
    for name, baseline in report.get("baselines", {}).items():
        if not name.startswith("untrained"):  # its weights are drawn anew each time, which would be another card each time
            figures[f"{name}: same place, recall@1"] = baseline["same_place"]["recall@1"]
    asked = f"{report['n_queries']:,} queries"
    asked += f" at {report['n_places']:,} places" if "n_places" in report else ""
    parts = {
        what: {name: {"places": group["n_places"], "recall": group["recall@1"]} for name, group in groups.items()}
        for what, groups in (("district", report.get("by_district", {})), ("capture year", report.get("by_year", {})))
    }
    return {"asked": asked, "figures": figures, "parts": parts}


def _fusion(layout: Layout) -> dict[str, Any] | None:
    folder = newest_fusion(layout)
    if folder is None or not (folder / "report.json").is_file():
        return None
    report: dict[str, Any] = storage.read_json(folder / "report.json")
    within = _by_number({radius: share for radius, share in report["figures"][TOGETHER].items() if radius != "score"})
    return {
        "fusion": folder.name,
        "photos": report["n_questions"],
        "places": report["n_places"],
        "figures": {f"within {radius_name(int(radius))}": share for radius, share in within},
        "expected_calibration_error": dict(_by_number(report["ece"])),
        "coverage": report["coverage"]["overall"]["covered"],
    }


def _by_number(figures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Figures by the number in their names, as radii and cuts are read; files hold them by the alphabet."""
    return sorted(figures.items(), key=lambda one: int("".join(filter(str.isdigit, one[0])) or 0))


def _licences(layout: Layout) -> dict[str, int]:
    """Licence -> usable rows of the catalog."""
    rows = storage.read_parquet(layout.catalog, ["licence", "usable"]).filter(pc.field("usable"))
    counted = rows.group_by("licence").aggregate([([], "count_all")]).to_pylist()
    return {row["licence"]: row["count_all"] for row in sorted(counted, key=lambda row: (-row["count_all"], row["licence"]))}


def _taken_down_since(layout: Layout, finished_at: str) -> int:
    """Captures that were taken down after the training, which the model may have learned from."""
    import datetime as dt

    table = open_table(layout.tombstones)
    if table is None:
        return 0
    finished = dt.datetime.fromisoformat(finished_at)
    finished = finished if finished.tzinfo else finished.replace(tzinfo=dt.UTC)
    rows = table.to_table(columns=["forgotten_at"], filter="kind = 'capture'")
    return sum(at > finished for at in rows["forgotten_at"].to_pylist())


def _markdown(facts: Mapping[str, Any]) -> str:
    parts = [f"# Model card: {facts['region']}"]
    for kind, model in facts["models"].items():
        parts += _model_part(kind, model)
    parts += _fusion_part(facts["fusion"])
    parts += ["## Limits", "\n".join(f"- {line}" for line in _limits(facts))]
    licences = ", ".join(f"{name} ({count:,} rows)" for name, count in facts["licences"].items()) or NONE
    permitted = f" Training on them is permitted by: {facts['permission']}." if facts["permission"] else ""
    parts += ["## Licence and attribution", f"The pictures are under {licences}; the data card says whom to name.{permitted}"]
    for model in facts["models"].values():
        parts += [f"## Recipe of `{model['model_version']}`", f"```yaml\n{model['recipe_yaml'].strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _model_part(kind: str, model: Mapping[str, Any]) -> list[str]:
    seen = ", ".join(f"{name} `{str(value)[:16]}`" for name, value in model["provenance"].items() if value is not None)
    lines = [
        f"- recipe `{model['recipe']}`, trained on {model['trained_on_rows']:,} rows, finished {model['finished_at'][:19]}",
        f"- data: {seen or NONE}",
        f"- promoted {model['promoted_at'][:19]}: {model['reason']}",
        f"- MLflow run `{model['mlflow_run_id']}`" if model["mlflow_run_id"] else "- not tracked in MLflow",
    ]
    parts = [f"## {kind}: `{model['model_version']}`", "\n".join(lines)]
    for split, said in model["evaluations"].items():
        rows = [[name, percent(_interval(share))] for name, share in said["figures"].items()]
        parts += [f"### On `{split}`: {said['asked']}", markdown_table(["what", "%, with 95 % interval"], rows)]
        parts += [table for what, groups in said["parts"].items() if (table := _part_table(what, groups))]
    return parts if model["evaluations"] else [*parts, "It has not been evaluated."]


def _part_table(what: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Recall of each part that has enough places."""
    shown = [(name, group) for name, group in groups.items() if group["places"] >= _FEW][:_LISTED]
    rows = [[name, f"{group['places']:,}", percent(_interval(group["recall"]))] for name, group in shown]
    return markdown_table([what, "places", "recall@1, %"], rows) if rows else ""


def _fusion_part(fusion: Mapping[str, Any] | None) -> list[str]:
    if fusion is None:
        return ["## Answers", "There is no fusion: answers are those of the nearest pictures, and are not calibrated."]
    rows = [[name, percent(_interval(share))] for name, share in fusion["figures"].items()]
    rows.append(["regions that hold the place", percent(_interval(fusion["coverage"]))])
    errors = ", ".join(f"{value:.3f} within {radius} m" for radius, value in fusion["expected_calibration_error"].items())
    return [
        f"## Answers: fusion `{fusion['fusion']}`",
        f"All experts together on {fusion['photos']:,} photos of {fusion['places']:,} held-out places.",
        markdown_table(["what", "%, with 95 % interval"], rows),
        f"Expected calibration error: {errors}.",
    ]


def _limits(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"It knows the region {facts['region']} and nothing else: a photo from elsewhere has no right answer here."]
    for kind, model in facts["models"].items():
        said: Sequence[Mapping[str, Any]] = list(model["evaluations"].values())
        if not said:
            lines.append(f"How well `{model['model_version']}` ({kind}) does is not known.")
        if model["taken_down_since"]:
            lines.append(
                f"{model['taken_down_since']:,} captures were taken down since `{model['model_version']}` was trained, and it "
                "may have learned from them."
            )
        lines += [f"{kind}: {worst}" for one in said[-1:] if (worst := _weakest(one["parts"]))]
    lines.append("Figures are of held-out places of the same collection: photos of other cameras, seasons and angles do worse.")
    return lines


def _weakest(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The part of each kind with the lowest figure, where there are two to compare."""
    named: list[str] = []
    for what, groups in parts.items():
        large = {name: group for name, group in groups.items() if group["places"] >= _FEW}
        if len(large) >= 2:
            name = min(large, key=lambda one: large[one]["recall"]["value"])
            named.append(f"{what} {name} ({percent(_interval(large[name]['recall']))} %)")
    return f"weakest in {', '.join(named)}." if named else ""


def _interval(share: Mapping[str, float]) -> Interval:
    return Interval(float(share["value"]), float(share["low"]), float(share["high"]))
