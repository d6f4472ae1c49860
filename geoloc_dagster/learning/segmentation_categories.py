"""What the categories of segmentation models are in the common list of classes: names of VOC, Cityscapes, ADE20K and COCO.

Models of transformers name their categories; weights from a file do not, so their order is packaged for two of these.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from geoloc_dagster.dataset.class_maps import CLASSES
from geoloc_dagster.errors import ModelMismatchError

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "voc": (
        "__background__", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
        "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ),
    "cityscapes": (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
        "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
}  # fmt: skip
"""In the order of a model's outputs: VOC as torchvision has it, Cityscapes by its training ids."""


@cache
def packaged() -> Mapping[str, str]:
    """The class of each category that is not `other`."""
    text = files("geoloc_dagster.learning").joinpath("segmentation_categories.csv").read_text(encoding="utf-8")
    return {row["category"]: row["class"] for row in csv.DictReader(text.splitlines())}


def class_numbers(categories: Sequence[str], mapping: Mapping[str, str]) -> npt.NDArray[np.uint8]:
    """The number of the class of each category of a model.

    Args:
        categories: the model's names in the order of its outputs; of several synonyms (`car, auto`) the first counts.
        mapping: classes of categories, before the packaged ones.

    Raises:
        ModelMismatchError: the mapping names a category that the model lacks, or none of the model's is known.
    """
    names = [plain(name) for name in categories]
    wanted = {plain(name): kind for name, kind in mapping.items()}
    for name in wanted:
        if name not in names:
            near = ", ".join(difflib.get_close_matches(name, names, 3) or names[:5])
            raise ModelMismatchError(f"segmentation.mapping names {name!r}, no category of the model", f"It has e.g. {near}.")
    known = {**packaged(), **wanted}
    if not any(name in known for name in names):
        raise ModelMismatchError(
            f"none of the model's {len(names)} categories is known ({', '.join(names[:3])}, …)",
            f"Say in `segmentation.mapping` what they are: {', '.join(CLASSES)}.",
        )
    return np.array([CLASSES.index(known.get(name, "other")) for name in names], np.uint8)


def plain(name: str) -> str:
    """A category in small letters, without synonyms and underscores."""
    first = name.lower().replace(";", ",").split(",")[0].strip()
    return first if first.startswith("__") else first.replace("_", " ")
