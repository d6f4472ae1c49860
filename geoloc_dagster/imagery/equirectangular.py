"""Perspective views of 360° pictures.

An equirectangular picture is W pixels round the horizon; its middle column looks along the picture's own heading and its middle
row at the horizon, so that a pixel is 360/W degrees both ways. One that is lower than W/2 is a band around the horizon.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoloc_dagster.errors import ImageError
from geoloc_dagster.imagery.quality import decode

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
JPEG_QUALITY = 92


def directions(yaw_deg: float, pitch_deg: float, fov_deg: float, width: int, height: int) -> tuple[F64, F64]:
    """Where each pixel of a pinhole camera looks: (yaw, pitch), degrees, each (height, width).

    Args:
        yaw_deg: of the camera's axis, clockwise from the middle of the panorama.
        pitch_deg: of the axis, upwards.
        fov_deg: horizontal field of view, over 0 and under 180.
        width: pixels.
        height: likewise; pixels are square.

    Returns:
        Yaw in [-180, 180), pitch in [-90, 90], of the pixels' centres.
    """
    focal_px = width / 2 / np.tan(np.radians(fov_deg) / 2)
    right, up = np.meshgrid((np.arange(width) + 0.5 - width / 2) / focal_px, (height / 2 - np.arange(height) - 0.5) / focal_px)
    tilt = np.radians(pitch_deg)
    forward, upward = np.cos(tilt) - up * np.sin(tilt), np.sin(tilt) + up * np.cos(tilt)
    yaw = np.degrees(np.arctan2(right, forward)) + yaw_deg
    pitch = np.degrees(np.arctan2(upward, np.hypot(right, forward)))
    return (yaw + 180) % 360 - 180, pitch


def perspective(panorama: U8, yaw_deg: float, pitch_deg: float, fov_deg: float, width: int, height: int) -> U8:
    """What a pinhole camera inside a 360° picture sees, bilinear; the picture's edge rows go on where it is a band.

    Args:
        panorama: uint8 (H, W, 3), equirectangular.
        yaw_deg: of the camera, clockwise from the panorama's middle column.
        pitch_deg: upwards.
        fov_deg: horizontal.
        width: of the view, pixels.
        height: likewise.

    Returns:
        uint8 (height, width, 3).
    """
    rows, columns = panorama.shape[:2]
    yaw, pitch = directions(yaw_deg, pitch_deg, fov_deg, width, height)
    x = (yaw + 180) / 360 * columns - 0.5
    y = np.clip(rows / 2 - pitch / 360 * columns - 0.5, 0, rows - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[..., None].astype(np.float32), (y - top)[..., None].astype(np.float32)
    right, below = (left + 1) % columns, np.minimum(top + 1, rows - 1)
    left %= columns
    upper = panorama[top, left] * (1 - across) + panorama[top, right] * across
    lower = panorama[below, left] * (1 - across) + panorama[below, right] * across
    return np.asarray(np.rint(upper * (1 - down) + lower * down), np.uint8)


def open_panorama(content: bytes, fov_deg: float, width: int) -> U8:
    """Decode a 360° picture, no finer than views of `width` pixels and `fov_deg` degrees can show.

    Raises:
        ImageError: it is no picture, broken, too large, or higher than half its width.
    """
    image = decode(content)
    if image.height > image.width / 2 * 1.02:
        raise ImageError(f"a 360° picture of {image.width} x {image.height} pixels is not equirectangular")
    coarser = int(image.width * fov_deg / 360 / width)
    return np.asarray(image.reduce(coarser) if coarser > 1 else image)


def cut_view(panorama: U8, yaw_deg: float, pitch_deg: float, fov_deg: float, size: tuple[int, int]) -> bytes:
    """One view of `open_panorama`'s pixels as JPEG; the arguments are those of `perspective`, the size is (width, height)."""
    buffer = io.BytesIO()
    view = perspective(panorama, yaw_deg, pitch_deg, fov_deg, *size)
    Image.fromarray(view).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
