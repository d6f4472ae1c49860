"""Do two pictures show the same walls? Local features of a picture, and how many of them two pictures share.

The vector of a whole picture says what it looks like, and many streets look alike. Corners and blobs of a facade that lie in the
same arrangement in another picture, whatever the light and whatever stands in front, hardly ever do by chance.

Features are SIFT's, upright as street views are, each descriptor reduced to one bit per number: whether it exceeds the median of
its descriptor. Two features match where each is the other's nearest; of the matches those count that one shift, turn and scale
explains (RANSAC). Sources: Lowe, Distinctive Image Features from Scale-Invariant Keypoints, IJCV 60 (2004); Zhou et al., Binary
SIFT, ICIMCS 2012; Philbin et al., Object Retrieval with Large Vocabularies and Fast Spatial Matching, CVPR 2007. Measured in
benchmarks/RESULTS.md, "One answer from all experts".
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
SIDE = 200
"""Pixels of a side of the pictures that are compared."""
MOST = 400
"""Features of a picture, the strongest."""
POINT, BITS = 2, 128
WIDTH = POINT + BITS // 8
"""Bytes of a feature: x, y, and the bits of its descriptor."""
VERSION = f"sift-{SIDE}-{MOST}"
"""Names how features are made; those of another version are not compared with these."""
_CONTRAST = 0.02  # half of what OpenCV takes: crops are small
_OFF_BY = 6.5  # pixels
_ROUNDS = 300
_LEAST_MATCHES = 4
_LEAST_SCALE, _MOST_SCALE, _MOST_TURN = 0.4, 2.5, np.sin(np.radians(25))


def local_features(picture: U8) -> U8:
    """The features of a picture, (n, WIDTH): x and y in pixels, and 128 bits packed in bytes; n is `MOST` or less.

    Args:
        picture: RGB, (SIDE, SIDE, 3).
    """
    if picture.shape != (SIDE, SIDE, 3) or picture.dtype != np.uint8:
        raise ValueError(f"a picture must be uint8 of shape {(SIDE, SIDE, 3)}, not {picture.dtype} of {picture.shape}")
    cv2 = _opencv()
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    detector = cv2.SIFT_create(MOST, contrastThreshold=_CONTRAST)
    upright = dict[tuple[float, float, int], Any]()
    for point in sorted(detector.detect(grey, None), key=lambda point: -point.response):
        point.angle = 0.0  # one of several angles of a point is enough
        upright.setdefault((*point.pt, point.octave), point)
    points, descriptors = detector.compute(grey, list(upright.values())[:MOST])
    if descriptors is None or not len(points):
        return np.empty((0, WIDTH), np.uint8)
    bits = np.packbits(descriptors > np.median(descriptors, axis=1, keepdims=True), axis=1)
    places = np.clip(np.rint([point.pt for point in points]), 0, SIDE - 1).astype(np.uint8)
    return np.concatenate([places, bits], axis=1)


def inliers(first: U8, second: U8) -> int:
    """How many features of two pictures match in one arrangement; 0 where no such is plausible for one place."""
    if min(len(first), len(second)) < _LEAST_MATCHES:
        return 0
    agreement = _signs(first) @ _signs(second).T  # bits that agree less those that do not; OpenCV's matcher takes longer
    nearest = agreement.argmax(axis=1)
    mutual = np.flatnonzero(agreement.argmax(axis=0)[nearest] == np.arange(len(first)))
    if len(mutual) < _LEAST_MATCHES:
        return 0
    here, there = first[mutual, :POINT].astype(np.float32), second[nearest[mutual], :POINT].astype(np.float32)
    cv2 = _opencv()
    found, explained = cv2.estimateAffinePartial2D(
        here, there, method=cv2.RANSAC, ransacReprojThreshold=_OFF_BY, maxIters=_ROUNDS
    )
    if found is None:
        return 0
    scale = float(np.hypot(found[0, 0], found[1, 0]))
    plausible = _LEAST_SCALE <= scale <= _MOST_SCALE and abs(found[1, 0]) <= _MOST_TURN * scale and found[0, 0] > 0
    return int(explained.sum()) if plausible else 0


def _signs(features: U8) -> npt.NDArray[np.float32]:
    return np.unpackbits(features[:, POINT:], axis=1).astype(np.float32) * 2 - 1


@functools.cache
def _opencv() -> Any:
    """OpenCV with one thread: cores are shared out among pictures, not within one."""
    import cv2  # only who compares pictures waits for it

    cv2.setNumThreads(1)
    return cv2
