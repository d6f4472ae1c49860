"""Random changes of a batch of training pictures, on the tensor, on whatever device it lies."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from geoloc_dagster.learning.cells_recipe import MirroredAugmentationSpec
from geoloc_dagster.learning.device import moved
from geoloc_dagster.learning.recipe_parts import AugmentationSpec, Normalisation
from geoloc_dagster.learning.shared_batch import rand

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_FLAT = 1.0  # of 255: a picture of one colour stays one


def normalise(pictures: Tensor, by: Normalisation = "published") -> Tensor:
    """Bring float pictures of 0..255 to about zero mean and unit spread; channels last in memory.

    Args:
        pictures: N x 3 x H x W.
        by: the mean and spread that published weights expect, or each picture's own, per channel, which takes the level of
            light and its colour out.
    """
    if by == "picture":
        std, mean = torch.std_mean(pictures, dim=(2, 3), keepdim=True)
        return ((pictures - mean) / (std + _FLAT)).contiguous(memory_format=torch.channels_last)
    mean = torch.tensor(_MEAN, device=pictures.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(_STD, device=pictures.device).view(1, 3, 1, 1) * 255
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def plain(pictures: Tensor, size: int, by: Normalisation | Literal["none"] = "published") -> Tensor:
    """Prepare uint8 pictures, N x 3 x any size, for embedding: resized to `size` without cropping, normalised unless `none`."""
    values = pictures.float()
    if values.shape[-2:] != (size, size):
        values = F.interpolate(values, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return values if by == "none" else normalise(values, by)


def prepared(pictures: Tensor, size: int, by: Normalisation = "published") -> Tensor:
    """As `plain`, resized in bytes where the device can, which takes a tenth of the time and rounds each value to 1 of 255."""
    if pictures.shape[-2:] != (size, size):
        if pictures.is_cuda:
            return plain(pictures, size, by)
        bytes_last = pictures.contiguous(memory_format=torch.channels_last)
        pictures = F.interpolate(bytes_last, size=(size, size), mode="bilinear", antialias=True)
    if by == "picture":
        return normalise(pictures.float(), by)
    values = pictures.float().contiguous(memory_format=torch.channels_last)
    rows = values.permute(0, 2, 3, 1).flatten(2)  # N x H x W3, the same memory: three channels a time are too short for vectors
    scale = torch.tensor(_STD, device=pictures.device).mul(255).reciprocal()
    shift = torch.tensor(_MEAN, device=pictures.device).mul(255) * scale
    rows.mul_(scale.repeat(size)).sub_(shift.repeat(size))
    return values


def augment(
    pictures: Tensor, size: int, spec: AugmentationSpec, generator: torch.Generator, by: Normalisation = "published"
) -> Tensor:
    """Prepare uint8 pictures, N x 3 x S x S, for training: random crops of side `size`, random colours, normalised.

    All random numbers come from `generator`, which lives on the CPU.
    """
    return _changed(_cut(pictures.float(), _windows(len(pictures), size, spec, generator), "bilinear"), spec, generator, by)


def augment_with_maps(
    pictures: Tensor, maps: Tensor, size: int, spec: MirroredAugmentationSpec, generator: torch.Generator, by: Normalisation
) -> tuple[Tensor, Tensor]:
    """As `mirror` and `augment`; the class maps, uint8, N x S x S, are turned and cut as their pictures, to N x size x size."""
    turned = _turned(len(pictures), spec.mirror, generator)
    grid = _windows(len(pictures), size, spec, generator)
    values = _changed(_cut(_where_turned(pictures, turned).float(), grid, "bilinear"), spec, generator, by)
    cut = _cut(_where_turned(maps[:, None], turned).float(), grid, "nearest")
    return values, cut[:, 0].to(maps.dtype)


def _changed(values: Tensor, spec: AugmentationSpec, generator: torch.Generator, by: Normalisation) -> Tensor:
    """Other colours, and what else changes without moving anything."""
    values = _colours(values, spec, generator)
    if spec.blur:
        blurred = F.avg_pool2d(values, 3, stride=1, padding=1)
        values = torch.where(_chosen(values, spec.blur, generator), blurred, values)
    values = normalise(values, by)
    return _erase(values, spec.erase, generator) if spec.erase else values


def _uniform(values: Tensor, channels: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return moved(rand(len(values), channels, 1, 1, generator=generator) * (high - low) + low, values.device)


def _chosen(values: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    return _uniform(values, 1, 0, 1, generator) < probability


def _windows(n: int, size: int, spec: AugmentationSpec, generator: torch.Generator) -> Tensor:
    """Where each of `n` pictures is sampled: a window of random size, aspect and position, N x size x size x 2, from -1 to 1."""
    draw = rand(n, 4, generator=generator)
    side = spec.min_scale + (1 - spec.min_scale) * draw[:, 0]
    stretch = torch.exp((draw[:, 1] * 2 - 1) * spec.aspect)
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    window = torch.zeros(n, 2, 3)
    window[:, 0, 0], window[:, 1, 1] = width, height
    window[:, 0, 2], window[:, 1, 2] = (draw[:, 2] * 2 - 1) * (1 - width), (draw[:, 3] * 2 - 1) * (1 - height)
    return F.affine_grid(window, [n, 3, size, size], align_corners=False)


def _cut(values: Tensor, grid: Tensor, mode: Literal["bilinear", "nearest"]) -> Tensor:
    return F.grid_sample(values, moved(grid, values.device), mode=mode, padding_mode="border", align_corners=False)


def _colours(values: Tensor, spec: AugmentationSpec, generator: torch.Generator) -> Tensor:
    """Change saturation, contrast, brightness and white balance, each by its own random amount per picture."""
    grey = values.mean(1, keepdim=True)
    values = grey + (values - grey) * _uniform(values, 1, 1 - spec.saturation, 1 + spec.saturation, generator)
    if spec.grey:
        values = torch.where(_chosen(values, spec.grey, generator), grey, values)
    level = grey.mean((2, 3), keepdim=True)
    values = level + (values - level) * torch.exp(_uniform(values, 1, -spec.contrast, spec.contrast, generator))
    values = values * torch.exp(_uniform(values, 1, -spec.brightness, spec.brightness, generator))
    if spec.colour_cast:
        values = values * torch.exp(_uniform(values, 3, -spec.colour_cast, spec.colour_cast, generator))
    return values.clamp(0, 255)


def _erase(values: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Blank one rectangle of 10 to 45 % of the side in some pictures."""
    side = values.shape[-1]
    draw = rand(len(values), 5, generator=generator)
    extent = (draw[:, :2] * 0.35 + 0.10) * side
    start = draw[:, 2:4] * (side - extent)
    axis = torch.arange(side)
    rows = (axis >= start[:, :1]) & (axis < (start + extent)[:, :1])
    columns = (axis >= start[:, 1:]) & (axis < (start + extent)[:, 1:])
    blank = rows[:, :, None] & columns[:, None, :] & (draw[:, 4] < probability)[:, None, None]
    return values.masked_fill(moved(blank[:, None], values.device), 0)


def mirror(pictures: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Turn some pictures left to right; for photos of the world only, because a mirrored street is another street."""
    return _where_turned(pictures, _turned(len(pictures), probability, generator))


def _turned(count: int, probability: float, generator: torch.Generator) -> Tensor:
    return rand(count, generator=generator) < probability


def _where_turned(values: Tensor, turned: Tensor) -> Tensor:
    return torch.where(moved(turned, values.device).view(-1, 1, 1, 1), values.flip(3), values)
