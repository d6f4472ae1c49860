"""Which models are exported for serving: those that the next release can hold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoloc_dagster.config import Layout
from geoloc_dagster.errors import OnnxExportError
from geoloc_dagster.prediction.champion import read_champion
from geoloc_dagster.prediction.ensemble import members_of
from geoloc_dagster.prediction.parts import KINDS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exports:
    """What became of the models.

    Attributes:
        made: model version -> the largest difference between its export and itself.
        refused: model version -> why it has none, and is served through torch.
        bytes: of all exports.
    """

    made: dict[str, float]
    refused: dict[str, str]
    bytes: int


def export_served(layout: Layout, ensemble: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Exports:
    """Export the champion of every kind, and the newest models of `fusion.ensemble`; what is there already is kept.

    A model that cannot be exported holds up no other, and no release.

    Raises:
        IntegrityError: a champion or a model has changed since it was written.
    """
    from geoloc_dagster.learning.onnx_export import export_model

    folders = served_models(layout, ensemble)
    made, refused, size = dict[str, float](), dict[str, str](), 0
    for done, folder in enumerate(folders, 1):
        try:
            export = export_model(folder, layout.onnx_models)
        except OnnxExportError as error:
            logger.warning("%s", error)
            refused[folder.name] = error.cause
        else:
            made[folder.name] = export.facts.difference
            size += sum(file.stat().st_size for file in export.folder.iterdir())
        if progress is not None:
            progress(done, len(folders))
    return Exports(made, refused, size)


def served_models(layout: Layout, ensemble: Sequence[str]) -> list[Path]:
    """The folders of the champions, every byte of them checked, and of what looks beside them."""
    pointers = [layout.champion_of(kind) for kind in KINDS]
    champions = [read_champion(layout, pointer).folder for pointer in pointers if pointer.exists()]
    return champions + [member.folder for member in members_of(layout, ensemble)]
