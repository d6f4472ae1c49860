"""Pictures of made-up facades, which one knows again on another day: in another light, a step aside, behind a vehicle."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

SIDE = 160


def facade(place: int, day: int = 0) -> Image.Image:
    """The facade of a place on a day."""
    rng = np.random.default_rng((7, place))
    image = Image.new("RGB", (SIDE + 20, SIDE + 20), tuple(rng.integers(90, 200, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(45):
        x, y = rng.integers(0, SIDE, 2).tolist()
        wide, high = rng.integers(6, 40, 2).tolist()
        draw.rectangle((x, y, x + wide, y + high), tuple(rng.integers(0, 256, 3).tolist()))
    of_day = np.random.default_rng((place, day, 8))
    x, y = of_day.integers(0, 16, 2).tolist()
    seen = np.asarray(image.crop((x, y, x + SIDE, y + SIDE))).astype(float)
    seen = seen * of_day.uniform(0.5, 1.2) + of_day.uniform(-20, 20) + of_day.normal(0, 4, seen.shape)
    seen = Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))
    left = int(of_day.integers(0, SIDE - 50))
    ImageDraw.Draw(seen).rectangle((left, 100, left + 50, 140), (30, 30, 30))  # a van
    return seen


def facade_jpeg(place: int, day: int = 0) -> bytes:
    """The same, encoded."""
    stream = io.BytesIO()
    facade(place, day).save(stream, "JPEG", quality=92)
    return stream.getvalue()
