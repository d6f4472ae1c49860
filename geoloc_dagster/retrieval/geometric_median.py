"""The point with the least weighted sum of distances, for many clouds of points at once.

Weiszfeld's iteration with the step of Vardi and Zhang (2000, doi:10.1073/pnas.97.4.1423) at points of the cloud.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def geometric_medians(points: Floats, weights: Floats, *, tolerance: float = 1e-5, max_steps: int = 1000) -> Floats:
    """The geometric median of each cloud, (N, 2), in the unit of the points.

    The iteration starts from the best of the points and leaves it unless it is the answer. The sum only falls from there, so no
    other point, where Weiszfeld divides by zero, is ever met. Coinciding points count together; of equally good points the
    first is taken. Each cloud goes its own way, so a cloud has the same median alone and among others.

    Args:
        points: (N, k, 2).
        weights: (N, k), not negative; a point without weight does not count, and every cloud has one with weight.
        tolerance: steps shorter than this end the iteration, in the unit of the points.
        max_steps: of the iteration.
    """
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=3)
    sums = np.where(weights > 0, (apart @ weights[:, :, None])[:, :, 0], np.inf)
    current = np.take_along_axis(points, np.argmin(sums, axis=1)[:, None, None], axis=1)[:, 0]
    moving = np.arange(len(points))
    for _ in range(max_steps):
        step = _step(points[moving], weights[moving], current[moving])
        current[moving] += step
        moving = moving[np.linalg.norm(step, axis=1) >= tolerance]
        if not len(moving):
            break
    return current


def _step(points: Floats, weights: Floats, current: Floats) -> Floats:
    """How far each of (n, 2) goes next; nowhere where it is the median."""
    away = points - current[:, None]
    distances = np.linalg.norm(away, axis=2)
    here = distances == 0
    pulls = np.divide(weights, distances, out=np.zeros_like(weights), where=~here)
    pull = (pulls[:, :, None] * away).sum(axis=1)
    strength, held = np.linalg.norm(pull, axis=1), np.where(here, weights, 0).sum(axis=1)
    leaves = strength > held
    share = np.where(leaves, 1 - held / np.where(leaves, strength, 1), 0)
    return pull * (share / np.where(leaves, pulls.sum(axis=1), 1))[:, None]


def geometric_median(points: Floats, weights: Floats) -> Floats:
    """The geometric median of one cloud: `geometric_medians` of (k, 2) points with (k,) weights."""
    return geometric_medians(points[None], weights[None])[0]
