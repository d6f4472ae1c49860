"""Exported models as prediction asks them, through ONNX Runtime: nothing here, or below it, imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from geoloc_dagster.cores import cores
from geoloc_dagster.errors import IntegrityError, ModelMismatchError
from geoloc_dagster.geo.level_table import read_level
from geoloc_dagster.geo.partitioning import HIERARCHY, CellLevel
from geoloc_dagster.learning.onnx_folder import ANSWERS, CLASSES_FILE, MODEL_FILE, PICTURES, REMEDY, OnnxFacts, read_export
from geoloc_dagster.retrieval.encoder import Pictures, Vectors

_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class OnnxGraph:
    """An exported model in memory; may be asked by several threads at once.

    Attributes:
        facts: what it says of itself.
        session: of ONNX Runtime.
    """

    facts: OnnxFacts
    session: Any

    def answers(self, pictures: Pictures, most: int = _BATCH) -> npt.NDArray[np.float32]:
        """Of uint8 pictures (N, 3, side, side), `most` at once: float32 (N, length).

        Raises:
            ValueError: they are no such pictures, or of another side.
        """
        side = self.facts.side
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (3, side, side):
            raise ValueError(f"pictures must be uint8 of shape N x 3 x {side} x {side}, not {pictures.dtype} of {pictures.shape}")
        answers, step = np.empty((len(pictures), self.facts.length), np.float32), min(most, self.facts.batch)
        for start in range(0, len(pictures), step):
            part = np.ascontiguousarray(pictures[start : start + step])
            answers[start : start + len(part)] = self.session.run([ANSWERS], {PICTURES: part})[0]
        return answers


@dataclass(frozen=True, slots=True, eq=False)
class OnnxEncoder:
    """A model of retrieval; fulfils `retrieval.encoder.Encoder`."""

    graph: OnnxGraph
    model_version: str

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.graph.facts.length

    @property
    def image_size(self) -> int:
        """Side in pixels at which pictures are to be read."""
        return self.graph.facts.side

    def embed(self, pictures: Pictures, batch_size: int = _BATCH) -> Vectors:
        """Pictures, uint8 (N, 3, image_size, image_size) -> unit vectors, float32 (N, dimension)."""
        return self.graph.answers(pictures, batch_size)


@dataclass(frozen=True, slots=True, eq=False)
class OnnxClassifier:
    """A classifier of cells; fulfils `prediction.panel.CellClassifier`.

    Attributes:
        graph: of the model.
        model_version: names the exact weights.
        finest: the classes that it answers about.
    """

    graph: OnnxGraph
    model_version: str
    finest: CellLevel

    @property
    def size(self) -> int:
        """Side of the pictures that it takes, pixels."""
        return self.graph.facts.side

    def log_probabilities(self, pictures: Pictures) -> Mapping[str, npt.NDArray[np.float32]]:
        """Of `hierarchy`, (N, classes), of uint8 pictures (N, 3, size, size)."""
        return {HIERARCHY: self.graph.answers(pictures)}


def open_onnx_encoder(folder: Path, model_version: str, *, threads: int | None = None) -> OnnxEncoder:
    """The export of a model of retrieval, every byte of it checked.

    Args:
        folder: of the export.
        model_version: that it must be of.
        threads: that compute one answer; as many as there are cores without it.

    Raises:
        IntegrityError: a file is missing or has changed, or is none that ONNX Runtime can open.
        ModelMismatchError: it is of another model, or of a classifier.
    """
    return OnnxEncoder(_open(folder, model_version, "vectors", threads), model_version)


def open_onnx_classifier(folder: Path, model_version: str, *, threads: int | None = None) -> OnnxClassifier:
    """The export of a classifier; takes and raises what `open_onnx_encoder` does."""
    graph = _open(folder, model_version, "log_probabilities", threads)
    finest = read_level(folder / CLASSES_FILE)
    if len(finest) != graph.facts.length:
        raise IntegrityError(f"{folder} answers about {graph.facts.length} classes and names {len(finest)}", REMEDY)
    return OnnxClassifier(graph, model_version, finest)


def _open(folder: Path, model_version: str, answers: str, threads: int | None) -> OnnxGraph:
    facts = read_export(folder)
    if facts.model_version != model_version or facts.answers != answers:
        raise ModelMismatchError(
            f"{folder} is the export of {facts.model_version} ({facts.answers}), and {model_version} ({answers}) is wanted",
            REMEDY,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle server leaves the cores alone
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise IntegrityError(f"{folder / MODEL_FILE} cannot be opened: {error}", REMEDY) from error
    return OnnxGraph(facts, session)
