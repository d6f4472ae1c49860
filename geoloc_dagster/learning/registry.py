"""Which models of a recipe exist on disk; cheap enough for a sensor (reads JSON, imports no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geoloc_dagster.errors import NoReleaseError
from geoloc_dagster.storage import MANIFEST, read_json

TRAINING = "training.json"


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training.

    Attributes:
        folder: of the model.
        model_version: names it everywhere.
        trained_on_rows: pictures that it learned from.
        usable_rows: usable rows of its splits in the catalog of that day, which is what retraining counts from.
        finished_at: ISO 8601.
    """

    folder: Path
    model_version: str
    trained_on_rows: int
    usable_rows: int
    finished_at: str


def trainings(recipe_folder: Path) -> list[Training]:
    """All finished trainings of one recipe, oldest first."""
    found: list[Training] = []
    for path in recipe_folder.glob(f"*/{TRAINING}"):
        if not path.parent.name.startswith(".") and (path.parent / MANIFEST).is_file():
            facts = read_json(path)
            rows = int(facts["trained_on_rows"])
            usable = int(facts.get("provenance", {}).get("usable_rows", rows))
            found.append(Training(path.parent, str(facts["model_version"]), rows, usable, str(facts["finished_at"])))
    return sorted(found, key=lambda training: (training.finished_at, training.model_version))


def newest_training(recipe_folder: Path) -> Training | None:
    """The newest finished training of one recipe; None where there is none yet."""
    found = trainings(recipe_folder)
    return found[-1] if found else None


def require_training(recipe_folder: Path) -> Training:
    """The newest finished training of one recipe.

    Raises:
        NoReleaseError: the recipe has not been trained yet.
    """
    newest = newest_training(recipe_folder)
    if newest is None:
        raise NoReleaseError(
            f"recipe {recipe_folder.name} has no finished training below {recipe_folder}",
            "Materialise `checkpoints` for it first.",
        )
    return newest
