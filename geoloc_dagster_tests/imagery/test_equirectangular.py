"""Views cut from 360° pictures look where they say: pictures whose colours are directions give those directions back."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from geoloc_dagster.errors import ImageError
from geoloc_dagster.imagery.equirectangular import cut_view, directions, open_panorama, perspective


def compass(width: int = 720, rows: int = 360) -> np.ndarray:
    """Red is the cosine, green the sine of the yaw, blue the pitch of each pixel."""
    yaw = np.radians((np.arange(width) + 0.5) / width * 360 - 180)
    pitch = 90 - (np.arange(rows) + 0.5 + (width / 2 - rows) / 2) / width * 360
    red, green = np.broadcast_to(np.cos(yaw), (rows, width)), np.broadcast_to(np.sin(yaw), (rows, width))
    blue = np.broadcast_to(pitch[:, None] / 90, (rows, width))
    return np.asarray(np.rint(np.stack([red, green, blue], axis=-1) * 127 + 128), np.uint8)


@pytest.mark.parametrize("yaw", [-179.0, -90.0, 0.0, 33.0, 180.0])
@pytest.mark.parametrize("pitch", [-30.0, 0.0, 45.0])
def test_a_view_shows_the_directions_that_a_pinhole_camera_sees(yaw: float, pitch: float):
    view = perspective(compass(), yaw, pitch, 80.0, 64, 48)
    seen_yaw, seen_pitch = directions(yaw, pitch, 80.0, 64, 48)
    wanted = np.stack([np.cos(np.radians(seen_yaw)), np.sin(np.radians(seen_yaw)), seen_pitch / 90], axis=-1) * 127 + 128
    assert np.abs(view - wanted).max() < 2.5


def test_the_edges_of_a_level_view_lie_half_its_field_of_view_aside():
    yaw, pitch = directions(10.0, 0.0, 90.0, 2000, 2000)
    assert yaw[1000, 0] == pytest.approx(-35, abs=0.1)
    assert yaw[1000, -1] == pytest.approx(55, abs=0.1)
    assert pitch[0, 1000] == pytest.approx(45, abs=0.1)  # up is up


def test_a_picture_higher_than_half_its_width_is_none():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    with pytest.raises(ImageError, match="not equirectangular"):
        open_panorama(buffer.getvalue(), 90.0, 64)
    buffer = io.BytesIO()
    Image.fromarray(compass()).save(buffer, "JPEG")
    view = cut_view(open_panorama(buffer.getvalue(), 90.0, 64), 0.0, 0.0, 90.0, (64, 48))
    assert Image.open(io.BytesIO(view)).size == (64, 48)
