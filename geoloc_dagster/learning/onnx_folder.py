"""A trained model exported for serving, as a folder; light, because what serves it imports no torch.

`model.onnx` takes uint8 pictures and gives what the model says, resizing and normalising included; `export.json` says what is
needed to ask it; `classes.parquet` holds the classes of a classifier; `manifest.json` the sha256 of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.learning.recipe_parts import Section
from geoloc_dagster.storage import read_json, verify_manifest

MODEL_FILE, FACTS_FILE, CLASSES_FILE = "model.onnx", "export.json", "classes.parquet"
PICTURES, ANSWERS = "pictures", "answers"
"""Names of the input, uint8 (N, 3, side, side), and of the output, float32 (N, length)."""
FORMAT = 1
"""Of the folder and of the graph: another one gets another folder, so that releases keep theirs."""
REMEDY = "Materialise `onnx_models` and then `release` again, or activate an earlier release."


class OnnxFacts(Section):
    """What `export.json` says of a model."""

    answers: Literal["vectors", "log_probabilities"] = Field(description="Unit vectors, or of the finest classes.")
    model_version: str
    model_manifest_sha256: str = Field(description="Of the folder of the trained model.")
    side: int = Field(gt=0, description="Of the pictures, pixels.")
    length: int = Field(gt=0, description="Of a vector, or the number of the finest classes.")
    batch: int = Field(gt=0, description="Pictures at once, at most; fewer where each is looked at in several crops.")
    tolerance: float = Field(description="By which answers may differ from the trained model's.")
    difference: float = Field(description="By which they differ at most, of the pictures that were tried.")
    made_by: dict[str, str] = Field(description="Versions of the libraries that exported it.")


def export_name(model_version: str) -> str:
    """The folder of the export of a model: the same model, the same folder."""
    return f"{model_version}-onnx{FORMAT}"


def read_export(folder: Path) -> OnnxFacts:
    """What an export says of itself, after checking every byte of its folder.

    Raises:
        IntegrityError: a file is missing or has changed, or is none of an export.
    """
    verify_manifest(folder, remedy=REMEDY)
    try:
        return OnnxFacts.model_validate(read_json(folder / FACTS_FILE))
    except ValidationError as error:
        raise IntegrityError(
            f"{folder / FACTS_FILE} does not describe an exported model: {error.errors()[0]['msg']}", REMEDY
        ) from error
