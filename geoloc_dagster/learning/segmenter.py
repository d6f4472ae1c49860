"""Models of semantic segmentation, of torchvision or transformers, that give class maps in the common list of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoloc_dagster.config.dataset import SegmentationSettings
from geoloc_dagster.dataset.class_maps import ClassMaps
from geoloc_dagster.errors import ModelMismatchError, WeightsError
from geoloc_dagster.learning.backbones import read_state_dict
from geoloc_dagster.learning.segmentation_categories import CATEGORIES, class_numbers, plain

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: what both libraries train these models with
_OFFLINE = "Give local weights (`segmentation.weights`, or a folder as `segmentation.model`), or run once with network access."
_INSTALL = "Install it: pip install 'geoloc-dagster[segmentation]'."


class TorchSegmenter:
    """A model and what its outputs stand for; gives the class with the greatest score, category by category.

    Args:
        name: of the model, for the tables.
        logits: N x 3 x S x S normalised pictures -> N x categories x h x w.
        model: whose weights these are.
        categories: in the order of the outputs.
        settings: the `segmentation:` section.

    Raises:
        ModelMismatchError: the mapping does not go with the categories.
    """

    def __init__(
        self,
        name: str,
        logits: Callable[[Tensor], Tensor],
        model: nn.Module,
        categories: Sequence[str],
        settings: SegmentationSettings,
        *,
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
    ) -> None:
        self._numbers = class_numbers(categories, settings.mapping)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)
        self._logits = logits
        self._mean, self._std = (torch.tensor(values, device=self._device)[:, None, None] for values in (mean, std))
        self.size = settings.size
        self.model_version = f"{name}@{_digest(model, self._numbers, self.size)}"
        self.categories = tuple(map(plain, categories))

    @torch.inference_mode()
    def class_maps(self, pictures: npt.NDArray[np.uint8]) -> ClassMaps:
        """Class of each pixel, (N, S, S) uint8, of RGB pictures (N, 3, S, S).

        Raises:
            ModelMismatchError: the model has another number of outputs than categories.
        """
        inputs = torch.from_numpy(pictures).to(self._device).float().div_(255).sub_(self._mean).div_(self._std)
        scores = self._logits(inputs)
        if scores.shape[1] != len(self._numbers):
            raise ModelMismatchError(
                f"{self.model_version} has {scores.shape[1]} outputs for {len(self._numbers)} categories",
                "Correct `segmentation.categories`.",
            )
        if scores.shape[-2:] != inputs.shape[-2:]:
            scores = interpolate(scores, size=inputs.shape[-2:], mode="bilinear", align_corners=False)
        return self._numbers[scores.argmax(dim=1).cpu().numpy()]


def load_segmenter(settings: SegmentationSettings, resolve: Callable[[Path], Path]) -> TorchSegmenter:
    """Load the model that the configuration names.

    Args:
        settings: the `segmentation:` section.
        resolve: makes a path of the configuration absolute.

    Raises:
        ModelMismatchError: there is no such model, or its categories do not go with the mapping.
        WeightsError: the weights cannot be had, or are not of this model; or transformers is not installed.
        UnsafeFileError: the weights are a pickle.
    """
    assert settings.model is not None, "checked by the settings"
    if settings.library == "transformers":
        return _transformers(settings, settings.model, resolve)
    return _torchvision(settings, settings.model, resolve)


# --- torchvision -----------------------------------------------------------------------------------------------------
def _torchvision(settings: SegmentationSettings, name: str, resolve: Callable[[Path], Path]) -> TorchSegmenter:
    from torchvision.models import get_model, get_model_weights, list_models, segmentation

    available = list_models(segmentation)
    if name not in available:
        raise ModelMismatchError(
            f"torchvision has no segmentation model {name!r}", f"`segmentation.model` is one of {', '.join(available)}."
        )
    if settings.weights == "hub":
        weights: Any = get_model_weights(name)["DEFAULT"]
        categories: Sequence[str] = weights.meta["categories"]
        model = _downloaded(name, lambda: get_model(name, weights=weights))
    else:
        chosen = settings.categories
        categories = CATEGORIES[chosen] if isinstance(chosen, str) else chosen
        model = get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
        _load_file(model, resolve(Path(settings.weights)), len(categories))
    return TorchSegmenter(f"torchvision/{name}", lambda pictures: model(pictures)["out"], model, categories, settings)


def _load_file(model: nn.Module, path: Path, categories: int) -> None:
    """Load every tensor of the model; the auxiliary classifier that some are trained with is left behind."""
    state = {name: value for name, value in read_state_dict(path).items() if not name.startswith("aux_classifier.")}
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("aux_classifier.")}
    heads = {name for name in own if name in state and own[name].shape != state[name].shape}
    strange = sorted(heads | (own.keys() ^ state.keys()))
    if strange:
        kind = "another shape" if strange[0] in heads else "no counterpart"
        cause = f"{path} does not fit the model: {len(strange)} tensors, {strange[0]} for one, have {kind}"
        remedy = f"It was built for {categories} categories: correct `segmentation.model` or `segmentation.categories`."
        raise WeightsError(cause, remedy)
    model.load_state_dict(state, strict=False)


def _downloaded(name: str, load: Callable[[], nn.Module]) -> nn.Module:
    try:
        return load()
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"the weights of {name} cannot be had: {_first_line(error)}", _OFFLINE) from error


# --- transformers ----------------------------------------------------------------------------------------------------
def _transformers(settings: SegmentationSettings, name: str, resolve: Callable[[Path], Path]) -> TorchSegmenter:
    try:
        from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation
    except ImportError as error:
        raise WeightsError("the package transformers is not installed", _INSTALL) from error
    folder = resolve(Path(name))
    local = folder.is_dir()
    if not local and name.startswith((".", "/", "~")):
        raise WeightsError(f"there is no folder {folder}", "`segmentation.model` is a folder, or a name on the hub.")
    if local and not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} holds no safetensors", "Save it with `model.save_pretrained(folder)`; nothing else is read."
        )
    source = str(folder) if local else name
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        loaded, said = AutoModelForSemanticSegmentation.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
        raise WeightsError(f"the model {source} cannot be loaded: {_first_line(error)}", _OFFLINE) from error
    if said["missing_keys"]:
        missing = sorted(map(str, said["missing_keys"]))
        raise WeightsError(f"{source} has no weights for {len(missing)} tensors of the model, e.g. {missing[0]}")
    model, labels = cast("nn.Module", loaded), cast("Mapping[int, str]", loaded.config.id2label)
    categories = [labels[number] for number in range(len(labels))]
    mean, std = _normalisation(AutoImageProcessor, source, options)
    return TorchSegmenter(
        f"transformers/{folder.name if local else name}",
        lambda pictures: model(pixel_values=pictures).logits,
        model,
        categories,
        settings,
        mean=mean,
        std=std,
    )


def _normalisation(processors: Any, source: str, options: dict[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation that the model was trained with; those of ImageNet where it does not say."""
    try:
        processor: Any = processors.from_pretrained(source, **options)
    except (OSError, ValueError, ImportError):
        return _MEAN, _STD
    return getattr(processor, "image_mean", None) or _MEAN, getattr(processor, "image_std", None) or _STD


def _digest(model: nn.Module, numbers: npt.NDArray[np.uint8], size: int) -> str:
    """Of everything that decides what the maps are."""
    digest = hashlib.sha256(f"{size} {numbers.tolist()}".encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
