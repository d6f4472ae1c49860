"""Export of trained models to ONNX; one that answers otherwise than its model, beyond a stated tolerance, is refused.

What is compared is what prediction really asks: `Encoder.embed` and `log_probabilities` of a model that is loaded from its
folder, on a CPU at 32 bits, about noise, about pictures with the smooth areas and edges of streets, and about black and white,
one at a time and several at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from geoloc_dagster.errors import GeolocError, OnnxExportError
from geoloc_dagster.geo.level_table import write_level
from geoloc_dagster.geo.partitioning import HIERARCHY, CellLevel
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.learning.onnx_folder import (
    ANSWERS,
    CLASSES_FILE,
    FACTS_FILE,
    MODEL_FILE,
    PICTURES,
    OnnxFacts,
    export_name,
    read_export,
)
from geoloc_dagster.learning.onnx_graphs import EncoderGraph, PhotoGraph, SequenceGraph
from geoloc_dagster.learning.photo_models import SingleViews, load_classifier
from geoloc_dagster.learning.recipe import Recipe, recipe_of
from geoloc_dagster.storage import MANIFEST, atomic_folder, sha256_file, write_json, write_manifest

VECTOR_TOLERANCE = 1e-3
"""Of the distance between unit vectors: no cosine changes by more."""
LOG_TOLERANCE = 1e-3
"""Of a log-probability: no probability changes by more than a thousandth of itself."""
_OPSET = 20
_MOST_VIEWS = 64
_LARGE_BYTES = 1 << 30  # one protobuf file holds twice as much at most
logger = logging.getLogger(__name__)
Pictures = npt.NDArray[np.uint8]
Answers = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """An exported model: its folder, what it says of itself, and whether this call wrote it."""

    folder: Path
    facts: OnnxFacts
    created: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A trained model: how torch answers, and the graph that is to answer the same.

    Attributes:
        graph: to be exported.
        ask: the model itself.
        model_version: names the exact weights.
        side: of the pictures.
        length: of an answer.
        finest: the classes that a classifier answers about; None of an encoder.
        crops: in which it looks at each picture.
    """

    graph: nn.Module
    ask: Callable[[Pictures], Answers]
    model_version: str
    side: int
    length: int
    finest: CellLevel | None
    crops: int = 1


def export_model(model_folder: Path, out_folder: Path) -> OnnxExport:
    """Export a trained model as `out_folder/<its version>-onnx<format>/`; one that is there, and whole, is kept.

    Raises:
        IntegrityError: a file of the model is missing or has changed.
        OnnxExportError: it cannot be exported, or the export answers otherwise.
    """
    digest = sha256_file(model_folder / MANIFEST) if (model_folder / MANIFEST).is_file() else ""
    kept = _kept(out_folder / export_name(model_folder.name), digest)
    if kept is not None:
        return kept
    asked = _open(model_folder)
    with atomic_folder(out_folder / export_name(asked.model_version)) as folder:
        made_by = _write_graph(asked, folder / MODEL_FILE)
        difference, tolerance = _difference(asked, folder / MODEL_FILE)
        if not difference <= tolerance:
            raise OnnxExportError(
                f"the export of {asked.model_version} answers otherwise than the model: by {difference:.2g}, over {tolerance:g}"
            )
        facts = OnnxFacts(
            answers="vectors" if asked.finest is None else "log_probabilities",
            model_version=asked.model_version,
            model_manifest_sha256=digest,
            side=asked.side,
            length=asked.length,
            batch=max(1, _MOST_VIEWS // asked.crops),
            tolerance=tolerance,
            difference=difference,
            made_by=made_by,
        )
        write_json(folder / FACTS_FILE, facts.model_dump())
        if asked.finest is not None:
            write_level(folder / CLASSES_FILE, asked.finest)
        write_manifest(folder, kind="onnx", model_version=asked.model_version)
    return OnnxExport(out_folder / export_name(asked.model_version), facts, True)


def probe_pictures(side: int, seed: int = 0) -> Pictures:
    """What models and their exports are compared on: noise, drawn streets, black and white, uint8 (12, 3, side, side)."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (4, 3, side, side), dtype=np.uint8)
    flat = np.stack([np.zeros((3, side, side), np.uint8), np.full((3, side, side), 255, np.uint8)])
    return np.concatenate([noise, np.stack([_street(side, rng) for _ in range(6)]), flat])


def _street(side: int, rng: np.random.Generator) -> Pictures:
    """A sky that fades, a ground, fronts with windows, and a camera's noise."""
    rows = np.linspace(0, 1, side)[None, :, None]
    picture = np.broadcast_to(rng.uniform(120, 250, (3, 1, 1)) - 60 * rows * rng.uniform(0, 1), (3, side, side)).copy()
    picture[:, int(side * rng.uniform(0.6, 0.8)) :] = rng.uniform(40, 140, (3, 1, 1))
    for _ in range(5):
        top, left = (rng.uniform(0, 0.6, 2) * side).astype(int)
        height, width = (rng.uniform(0.15, 0.4, 2) * side).astype(int)
        picture[:, top : top + height, left : left + width] = rng.uniform(20, 230, (3, 1, 1))
        picture[:, top + 1 : top + height : 4, left + 1 : left + width : 3] *= rng.uniform(0.3, 0.8)
    return (picture + rng.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)


def _kept(folder: Path, digest: str) -> OnnxExport | None:
    """An export of the same model that is whole."""
    if not folder.is_dir():
        return None
    try:
        facts = read_export(folder)
    except GeolocError as error:
        logger.warning("%s; it is exported again", error.cause)
        return None
    return OnnxExport(folder, facts, False) if facts.model_manifest_sha256 == digest else None


def _open(folder: Path) -> _Asked:
    recipe = recipe_of(folder)
    if isinstance(recipe, Recipe):
        encoder = load_encoder(folder, device="cpu", precision="32")
        graph = EncoderGraph(encoder.network, encoder.recipe)
        return _Asked(graph, encoder.embed, encoder.model_version, encoder.image_size, encoder.dimension, None)
    model = load_classifier(folder, device="cpu")
    if not isinstance(model, SingleViews) and not model.levels:
        raise OnnxExportError(f"{model.model_version} tells no cells", "Only what a release answers with is exported.")
    graph = SequenceGraph(model.model) if isinstance(model, SingleViews) else PhotoGraph(model)

    def ask(pictures: Pictures) -> Answers:
        return model.log_probabilities(pictures)[HIERARCHY].numpy()

    crops = 1 if isinstance(model, SingleViews) else model.inference.crops
    return _Asked(graph, ask, model.model_version, model.size, len(model.finest), model.finest, crops)


def _write_graph(asked: _Asked, path: Path) -> dict[str, str]:
    """Write the graph; the versions of what made it."""
    import onnx

    pictures = torch.from_numpy(probe_pictures(asked.side)[:2])
    options: dict[str, Any] = {
        "dynamic_shapes": ({0: torch.export.Dim(PICTURES)},),
        "input_names": [PICTURES],
        "output_names": [ANSWERS],
        "opset_version": _OPSET,
        "verbose": False,
    }
    try:
        with torch.no_grad():
            program = torch.onnx.export(asked.graph.eval(), (pictures,), **options)
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OnnxExportError(f"{asked.model_version} cannot be exported to ONNX: {first}") from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # paths and lines of the code that was traced
    weights = sum(tensor.numel() * tensor.element_size() for tensor in asked.graph.state_dict().values())
    program.save(path, external_data=weights > _LARGE_BYTES)
    return {"torch": str(torch.__version__), "onnx": onnx.__version__, "opset": str(_OPSET)}


def _difference(asked: _Asked, path: Path) -> tuple[float, float]:
    """By how much the graph answers otherwise at most, and what is allowed."""
    import onnxruntime

    pictures = probe_pictures(asked.side)
    differences: list[float] = []
    for part in (pictures[:1], pictures[1:]):
        try:
            session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            got = np.asarray(session.run([ANSWERS], {PICTURES: part})[0])
        except Exception as error:
            raise OnnxExportError(f"ONNX Runtime cannot ask the export of {asked.model_version}: {error}") from error
        wanted = asked.ask(part)
        if got.shape != wanted.shape or not np.isfinite(got).all():
            raise OnnxExportError(f"the export of {asked.model_version} answers {got.shape} where the model says {wanted.shape}")
        off = np.abs(got - wanted)
        differences.append(float(np.linalg.norm(off, axis=1).max() if asked.finest is None else off.max()))
    return max(differences), VECTOR_TOLERANCE if asked.finest is None else LOG_TOLERANCE
