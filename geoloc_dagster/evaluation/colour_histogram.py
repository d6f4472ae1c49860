"""The baseline without learning: a photo is where the training photo with the most similar colours was taken.

Joint histograms of colour over a grid of the picture, compared by the Hellinger distance, which is the Euclidean one between
square roots; so they are unit vectors, and the nearest is the one with the largest dot product.

Source: Hays and Efros, IM2GPS, CVPR 2008, section 3 (colour histograms as one of its features).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoloc_dagster.evaluation.geolocation import Positions

F32 = npt.NDArray[np.float32]

TIE = 1e-6  # similarities this near are equal: the first training photo wins, whatever the order of additions
_PICTURES = 256
_BLOCK_BYTES = 64 * 2**20


def colour_histograms(pictures: npt.NDArray[np.uint8], *, bins: int = 4, grid: int = 2) -> F32:
    """Square roots of the shares of pixels by part of the picture and colour: (N, grid² · bins³), rows of length 1.

    Args:
        pictures: (N, 3, height, width) RGB.
        bins: per channel, 1 to 256.
        grid: parts along each side; 1 takes the picture as a whole.

    Raises:
        ValueError: these are no such pictures, or fewer pixels than parts along a side.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"need pictures of uint8 as (N, 3, height, width), not {pictures.dtype} as {pictures.shape}")
    _, _, height, width = pictures.shape
    if not (1 <= grid <= min(height, width) and 1 <= bins <= 256):
        raise ValueError(f"{grid} x {grid} parts and {bins} bins do not fit pictures of {width} x {height}")
    part = _parts(height, grid)[:, None] * grid + _parts(width, grid)[None, :]
    blocks = [_histograms(pictures[i : i + _PICTURES], part, bins, grid) for i in range(0, len(pictures), _PICTURES)]
    return np.concatenate(blocks) if blocks else np.empty((0, grid**2 * bins**3), np.float32)


def most_similar(queries: F32, training: F32) -> npt.NDArray[np.int64]:
    """(Q,) the row of the training histogram nearest to each query; of equal ones the first.

    Raises:
        ValueError: there is nothing to choose from, or the two were not made alike.
    """
    if not len(training) or queries.shape[1:] != training.shape[1:]:
        raise ValueError(f"cannot compare {queries.shape} with {training.shape}")
    block = max(1, _BLOCK_BYTES // (4 * len(training)))
    found = np.empty(len(queries), np.int64)
    for i in range(0, len(queries), block):
        similarity = queries[i : i + block] @ training.T
        found[i : i + block] = np.argmax(similarity >= similarity.max(axis=1, keepdims=True) - np.float32(TIE), axis=1)
    return found


def answer_by_colour(queries: F32, training: F32, where: Positions) -> Positions:
    """The position of the training photo with the most similar colours, for each query."""
    return where.take(most_similar(queries, training))


def _parts(pixels: int, grid: int) -> npt.NDArray[np.int64]:
    return np.arange(pixels) * grid // pixels


def _histograms(pictures: npt.NDArray[np.uint8], part: npt.NDArray[np.int64], bins: int, grid: int) -> F32:
    n, size = len(pictures), grid**2 * bins**3
    red, green, blue = (pictures[:, channel].astype(np.int64) * bins // 256 for channel in range(3))
    place = ((part[None] * bins + red) * bins + green) * bins + blue + (np.arange(n) * size)[:, None, None]
    counts = np.bincount(place.ravel(), minlength=n * size).reshape(n, size)
    return np.sqrt(counts / part.size).astype(np.float32)
