"""Pictures of the city as people's cameras take them: flat ones, and bands around the horizon from 360° cameras."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City, Snapshot

U8 = npt.NDArray[np.uint8]
BAND_DEG = 40.0
"""How far a band reaches above and below the horizon."""
_FACE_FOV_DEG, _FACE_PX = 100.0, 640


def flat(city: City, snapshot: Snapshot, heading_deg: float, fov_deg: float, width_px: int, height_px: int) -> U8:
    """What a camera without tilt sees, uint8 (height_px, width_px, 3); at most 640 pixels a side."""
    return city.render(
        snapshot.lat_deg,
        snapshot.lng_deg,
        heading_deg=heading_deg % 360,
        pitch_deg=0.0,
        fov_deg=fov_deg,
        width=width_px,
        height=height_px,
        date=snapshot.captured_on,
    ).rgb


def band(city: City, snapshot: Snapshot, heading_deg: float, width_px: int) -> U8:
    """An equirectangular band around the horizon, its middle column at `heading_deg`; uint8 (`band_height`, width_px, 3)."""
    faces = [flat(city, snapshot, heading_deg + 90.0 * turn, _FACE_FOV_DEG, _FACE_PX, _FACE_PX) for turn in range(4)]
    return _wrap(faces, width_px)


def band_height(width_px: int) -> int:
    """Pixels."""
    return round(width_px * 2 * BAND_DEG / 360)


def _wrap(faces: list[U8], width_px: int) -> U8:
    """Four square views a quarter turn apart, the first in the middle, as one band."""
    height_px = band_height(width_px)
    yaw = ((np.arange(width_px) + 0.5) / width_px - 0.5) * 360
    pitch = (0.5 - (np.arange(height_px) + 0.5) / height_px) * 2 * BAND_DEG
    face = np.floor((yaw + 45) / 90).astype(np.int64)
    local = np.radians(yaw - 90 * face)
    focal_px = _FACE_PX / 2 / np.tan(np.radians(_FACE_FOV_DEG / 2))
    x = np.broadcast_to(focal_px * np.tan(local) + _FACE_PX / 2, (height_px, width_px))
    y = _FACE_PX / 2 - focal_px * np.tan(np.radians(pitch))[:, None] / np.cos(local)[None, :]
    rows, columns = (np.clip(np.floor(v), 0, _FACE_PX - 1).astype(np.int64) for v in (y, x))
    return np.ascontiguousarray(np.stack(faces)[np.broadcast_to(face % 4, rows.shape), rows, columns])
