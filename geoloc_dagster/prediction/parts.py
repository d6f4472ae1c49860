"""What the parts of a release are called, and what to do where one is damaged; light, because serving imports it first."""

from __future__ import annotations

from collections.abc import Mapping

BESIDE = ":"
"""Between the name of an expert or a part and the recipe of its model, where that is not the champion's."""
CLASSIFIERS = ("cells", "scenes", "sequence")
"""Kinds of models beside retrieval, the leading one first; each is an expert of the fusion."""
KINDS = ("retrieval", *CLASSIFIERS)
"""All kinds of models that say where photos were taken; each has a champion of its own."""
_TRAIN_AGAIN = "Restore that folder, materialise `checkpoints` and what follows again, or activate an earlier release."
_REMEDIES = {
    "data_card": "Materialise `data_card` and then `release` again, or activate an earlier release.",
    "model_card": "Materialise `model_card` and then `release` again, or activate an earlier release.",
    "fusion": "Materialise `fusion` and then `release` again, or activate an earlier release.",
    "index": "Materialise `faiss_index` and then `release` again, or activate an earlier release.",
    "onnx": "Materialise `onnx_models` and then `release` again, or activate an earlier release.",
}


def kind_of(part: str) -> str:
    """`index` of `index` and of `index:wide`."""
    return part.partition(BESIDE)[0]


def is_model(part: str) -> bool:
    """Whether a part is a trained model."""
    return kind_of(part) in ("model", *CLASSIFIERS)


def onnx_part(model_version: str) -> str:
    """The part that is the export of a model."""
    return f"onnx{BESIDE}{model_version}"


def remedy_of(part: str) -> str:
    """What to do where a part is damaged."""
    return _REMEDIES.get(kind_of(part), _TRAIN_AGAIN)


def named_members(fitted: Mapping[str, str], expert: str) -> dict[str, str]:
    """Recipe -> model version of the members among the experts that a fusion was fitted with."""
    mark = expert + BESIDE
    return {name.removeprefix(mark): version for name, version in fitted.items() if name.startswith(mark)}
