"""Which models of a recipe exist on disk; cheap enough for a sensor (reads JSON, imports no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoloc_dagster.errors import NoReleaseError
from geoloc_dagster.storage import MANIFEST, read_json

TRAINING = "training.json"
# Tables are numbered anew by whoever compacts them; the catalog names each of its crops by sha256.
_NOT_COMPARED = frozenset({"dagster_run_id", "crops_version"})


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training.

    Attributes:
        folder: of the model.
        model_version: names it everywhere.
        trained_on_rows: pictures that it learned from.
        usable_rows: usable rows of its splits in the catalog of that day, which is what retraining counts from.
        finished_at: ISO 8601.
        recipe_hash: of the recipe as it was trained.
        provenance: what it was trained from.
    """

    folder: Path
    model_version: str
    trained_on_rows: int
    usable_rows: int
    finished_at: str
    recipe_hash: str
    provenance: Mapping[str, Any]

    def answers_for(self, recipe_hash: str, provenance: Mapping[str, Any]) -> bool:
        """Whether training this recipe from what there is now would only repeat it."""
        return self.recipe_hash == recipe_hash and _compared(self.provenance) == _compared(provenance)


def _compared(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in provenance.items() if name not in _NOT_COMPARED}


def trainings(recipe_folder: Path) -> list[Training]:
    """All finished trainings of one recipe, oldest first."""
    found: list[Training] = []
    for path in recipe_folder.glob(f"*/{TRAINING}"):
        if not path.parent.name.startswith(".") and (path.parent / MANIFEST).is_file():
            facts = read_json(path)
            rows = int(facts["trained_on_rows"])
            provenance: dict[str, Any] = facts.get("provenance", {})
            found.append(
                Training(
                    folder=path.parent,
                    model_version=str(facts["model_version"]),
                    trained_on_rows=rows,
                    usable_rows=int(provenance.get("usable_rows", rows)),
                    finished_at=str(facts["finished_at"]),
                    recipe_hash=str(facts.get("recipe_hash")),
                    provenance=provenance,
                )
            )
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
