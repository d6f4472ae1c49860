"""How fast the emulated city draws, and what it looks like: eight places, each at six dates.

Run: python benchmarks/emulator.py [--views 240] [--figure docs/figures/emulated_city.png]
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import random
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from geoloc_dagster.emulator.city import City, Place, Snapshot

ORIGIN = (59.3327, 18.0656)
TODAY = dt.date(2026, 11, 1)


def places(city: City, count: int, dates: int, *, chance: random.Random) -> list[Place]:
    """Places with that many past dates, anywhere within two kilometres, at least 40 m apart."""
    found: list[Place] = []
    while len(found) < count:
        place = city.nearest(ORIGIN[0] + chance.uniform(-0.018, 0.018), ORIGIN[1] + chance.uniform(-0.035, 0.035), 50.0)
        if place is None or len(past(place)) < dates:
            continue
        far = [abs(place.lat_deg - other.lat_deg) > 0.0004 or abs(place.lng_deg - other.lng_deg) > 0.0008 for other in found]
        if all(far):
            found.append(place)
    return found


def past(place: Place) -> list[Snapshot]:
    return [snapshot for snapshot in place.snapshots if snapshot.captured_on < TODAY]


def time_views(city: City, size: int, count: int) -> dict[str, float]:
    """Thread time of views whose neighbourhood has been seen before, and of the first view of each, milliseconds."""
    chance = random.Random(size)
    first: list[float] = []
    warm: list[float] = []
    for place in places(city, count // 4, 1, chance=chance):
        snapshot = chance.choice(past(place))
        heading_deg = chance.uniform(0.0, 360.0)
        for turn in range(8):
            started = time.thread_time()
            city.render(
                snapshot.lat_deg,
                snapshot.lng_deg,
                heading_deg=heading_deg + turn % 4 * 90,
                width=size,
                height=size,
                date=snapshot.captured_on,
            )
            (first if turn < 4 else warm).append((time.thread_time() - started) * 1e3)
    set_up = np.array(first).reshape(-1, 4).sum(axis=1) - np.array(warm).reshape(-1, 4).sum(axis=1)
    return {
        "views": len(warm),
        "median_ms": round(float(np.median(warm)), 2),
        "p95_ms": round(float(np.percentile(warm, 95)), 2),
        "views_per_s": round(1e3 * len(warm) / sum(warm), 1),
        "set_up_of_a_place_ms": round(float(np.median(set_up)), 1),
        "views_per_s_with_set_up": round(1e3 * len(first) / sum(first), 1),
    }


def sheet(city: City, path: Path, tile: int = 150) -> None:
    """Rows are places, columns dates: one street must be recognisable along its row."""
    chosen = places(city, 8, 6, chance=random.Random(21))
    margin = 14
    picture = Image.new("RGB", (6 * (tile + 4) + 4, 8 * (tile + margin + 4) + 4), (250, 250, 248))
    pen = ImageDraw.Draw(picture)
    for row, place in enumerate(chosen):
        heading_deg = random.Random(row).uniform(0.0, 360.0)
        for column, snapshot in enumerate(past(place)[:6]):
            view = city.render(
                snapshot.lat_deg, snapshot.lng_deg, heading_deg=heading_deg, width=450, height=450, date=snapshot.captured_on
            )
            left, top = 4 + column * (tile + 4), 4 + row * (tile + margin + 4)
            picture.paste(Image.fromarray(view.rgb).resize((tile, tile), Image.Resampling.BOX), (left, top + margin))
            label = f"{snapshot.captured_on:%Y-%m}" if column else f"place {row + 1}: {snapshot.captured_on:%Y-%m}"
            pen.text((left + 2, top + 2), label, fill=(40, 40, 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    for colours in (256, 160, 96, 64):
        picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= 600_000:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=240)
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/emulated_city.png"))
    arguments = parser.parse_args()
    city = City(ORIGIN)
    sheet(city, arguments.figure)
    print(json.dumps({f"{size}x{size}": time_views(city, size, arguments.views) for size in (640, 320)}, indent=2))


if __name__ == "__main__":
    main()
