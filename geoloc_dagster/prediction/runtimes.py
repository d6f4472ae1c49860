"""How the models of a release are opened: through ONNX Runtime where the release holds their export, else through torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geoloc_dagster.prediction.champion import open_encoder
from geoloc_dagster.prediction.parts import onnx_part
from geoloc_dagster.retrieval.encoder import Encoder

if TYPE_CHECKING:
    from geoloc_dagster.prediction.panel import CellClassifier

Runtime = Literal["onnx", "torch"]
EncoderLoader = Callable[[Path], Encoder]


def encoder_opener(folders: Mapping[str, Path], runtime: Runtime = "onnx") -> EncoderLoader:
    """Opens models of retrieval by their folders.

    Args:
        folders: of the parts of a release, every byte of them checked.
        runtime: `torch` leaves exports aside.
    """

    def opened(folder: Path) -> Encoder:
        export = _export(folders, folder, runtime)
        if export is None:
            return open_encoder(folder)
        from geoloc_dagster.prediction.onnx_models import open_onnx_encoder

        return open_onnx_encoder(export, folder.name)

    return opened


def classifier_opener(folders: Mapping[str, Path], runtime: Runtime = "onnx") -> Callable[[Path], CellClassifier]:
    """Opens trained classifiers by their folders; see `encoder_opener`."""

    def opened(folder: Path) -> CellClassifier:
        export = _export(folders, folder, runtime)
        if export is None:
            from geoloc_dagster.learning.photo_models import load_classifier

            return load_classifier(folder)
        from geoloc_dagster.prediction.onnx_models import open_onnx_classifier

        return open_onnx_classifier(export, folder.name)

    return opened


def _export(folders: Mapping[str, Path], model: Path, runtime: Runtime) -> Path | None:
    return folders.get(onnx_part(model.name)) if runtime == "onnx" else None
