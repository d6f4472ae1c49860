"""How long do the grid and the buffers take, against the loops that they replace?

Everything runs on one core, and seconds are processor time, so that other work on the machine does not count.

The published loops, rebuilt here from the published files and timed whole, on the same inputs in the same run:

- *published buffers*: the points are projected to the region's metric CRS. For each kept place a circle of X metres is drawn as a
  polygon (`shapely` buffer, 16 segments per quarter as published by default) and every remaining point, the next candidates, is
  tested against it; those inside are dropped. Spacings go down, and what is kept at one spacing strikes out points at the next
  with circles of that spacing. The containment test is *one vectorised shapely call per kept place*, which favours the loop: a
  Python call per point would be slower still. Its circles are polygons, so it also keeps pairs that are under X metres apart.
- *loop of contains*: `polygon.contains(Point(lng, lat))` for each point of the full grid, in Python, polygon prepared or not;
  timed on every 400th (unprepared) or 40th (prepared) point of the grid and multiplied.

Run `python benchmarks/geography.py`; it prints a small table and draws `benchmarks/figures/spacing_growth.png`. The real
inputs are found through GEOLOC_SHARED_DATA (default: ../shared/data beside the checkout).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from pyproj import Transformer
from shapely.geometry import Point

from geoloc_dagster.geo.boundary import Boundary, load_boundary
from geoloc_dagster.geo.buffer_csv import read_buffer_csv
from geoloc_dagster.geo.buffers import build_buffers, close_pairs, keep_apart
from geoloc_dagster.geo.grid import grid_points, grid_shape

REPOSITORY = Path(__file__).resolve().parents[1]
STOCKHOLM = Path(os.environ.get("GEOLOC_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "stockholm"
FIGURE = REPOSITORY / "benchmarks" / "figures" / "spacing_growth.png"
START = (59.32494, 18.06936)
SPACINGS_M = [100, 75, 60, 50, 45, 35]
GRID_M = 10.0
GROWTH = [10_000, 30_000, 100_000, 300_000, 1_000_000]
QUADRANT_SEGMENTS = 16


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """The least of `repeats` processor times, seconds, and the result."""
    seconds: list[float] = []
    result: Any = None
    for _ in range(repeats):
        begin = time.process_time()
        result = work()
        seconds.append(time.process_time() - begin)
    return min(seconds), result


# --- grid ----------------------------------------------------------------------------------------------------------------
def loop_of_contains(region: Boundary, every: int, *, prepared: bool) -> tuple[float, int]:
    """Seconds for the whole grid, extrapolated from every `every`-th point, and the points inside, likewise."""
    rows, columns = grid_shape(region, GRID_M)
    west, south, east, north = region.geometry.bounds
    lats, lngs = np.linspace(south, north, rows, endpoint=False), np.linspace(west, east, columns, endpoint=False)
    sample = np.arange(0, rows * columns, every)
    polygon = shapely.from_wkb(shapely.to_wkb(region.geometry))  # a copy, so that nobody has prepared it
    if prepared:
        shapely.prepare(polygon)
    positions = list(zip(lngs[sample // rows].tolist(), lats[sample % rows].tolist(), strict=True))
    seconds, inside = timed(lambda: sum(polygon.contains(Point(lng, lat)) for lng, lat in positions))
    return seconds * rows * columns / len(sample), round(inside * rows * columns / len(sample))


# --- buffers ---------------------------------------------------------------------------------------------------------------
def published_loop(locations: pd.DataFrame, spacings_m: list[int], metric_crs: str = "EPSG:3006") -> dict[int, np.ndarray]:
    """Kept positions per spacing, by circles drawn as polygons; see the top of this file."""
    to_metric = Transformer.from_crs("OGC:CRS84", metric_crs, always_xy=True)
    xy = np.stack(to_metric.transform(locations["lng_deg"].to_numpy(), locations["lat_deg"].to_numpy()), axis=1)
    from_start = np.hypot(*(xy - to_metric.transform(START[1], START[0])).T)
    remaining = np.argsort(from_start, kind="stable")
    points = shapely.points(xy)
    kept: dict[int, np.ndarray] = {}
    for spacing_m in spacings_m:
        for i in (i for earlier in list(kept.values()) for i in earlier):
            remaining = remaining[~shapely.contains(points[i].buffer(spacing_m, QUADRANT_SEGMENTS), points[remaining])]
        chosen, candidates = [], remaining
        while candidates.size:
            first, candidates = candidates[0], candidates[1:]
            chosen.append(first)
            candidates = candidates[~shapely.contains(points[first].buffer(spacing_m, QUADRANT_SEGMENTS), points[candidates])]
        kept[spacing_m] = np.array(chosen, dtype=np.int64)
        # What one spacing left out is what the next one looks at.
        left = np.setdiff1d(np.arange(len(points)), np.concatenate(list(kept.values())))
        remaining = left[np.argsort(from_start[left], kind="stable")]
    return kept


def too_close(locations: pd.DataFrame, kept: dict[int, np.ndarray]) -> int:
    """Pairs of one series nearer than its spacing on the ellipsoid."""
    lat, lng = locations["lat_deg"].to_numpy(), locations["lng_deg"].to_numpy()
    return sum(len(close_pairs(lat[rows], lng[rows], spacing_m)) for spacing_m, rows in kept.items())


def street_positions(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random positions around the start point, one per 100 m² whatever their number, nearest first."""
    rng = np.random.default_rng(seed)
    radius = np.sort(np.sqrt(rng.random(count) * count * GRID_M**2 / np.pi))
    angle = rng.random(count) * 2 * np.pi
    north, east = radius * np.cos(angle), radius * np.sin(angle)
    return START[0] + north / 111_412, START[1] + east / (111_412 * np.cos(np.radians(START[0])))


# --- the picture -------------------------------------------------------------------------------------------------------------
def draw_growth(counts: list[int], seconds: list[float], path: Path) -> None:
    """Seconds against points, both logarithmic, with a line of proportional growth through the last measurement."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.loglog(counts, [seconds[-1] * n / counts[-1] for n in counts], "--", color="0.6", label="proportional to the points")
    axes.loglog(counts, seconds, "o-", color="#1f5fa8", label="keep_apart")
    for n, value in zip(counts, seconds, strict=True):
        axes.annotate(f"{value:.2g} s", (n, value), xytext=(6, -12), textcoords="offset points", fontsize=9)
    axes.set(
        title="Keeping random points 35 m apart on the ellipsoid",
        xlabel="points (one per 100 m²)",
        ylabel="seconds, one core",
        xlim=(counts[0] / 1.4, counts[-1] * 2.2),
        ylim=(min(seconds) / 2.5, max(seconds) * 2),
    )
    axes.grid(True, which="major", color="0.9")
    axes.legend(frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, draw."""
    region = load_boundary(STOCKHOLM / "region.geojson", name="stockholm", feature=0, max_area_km2=20_000, metric_crs="EPSG:3006")
    files = [STOCKHOLM / "buffer_csvs" / f"new_order_buffer_{spacing_m}.csv" for spacing_m in SPACINGS_M]
    locations = pd.concat([read_buffer_csv(path) for path in files], ignore_index=True)

    print(f"{'what':58} {'seconds':>9} {'times':>8}  result")

    def row(what: str, seconds: float, base: float | None, result: str) -> None:
        print(f"{what:58} {seconds:9.3f} {'' if base is None else f'{seconds / base:7.0f}x':>8}  {result}", flush=True)

    grid_s, points = timed(lambda: grid_points(region, GRID_M, max_points=20_000_000), repeats=3)
    row("grid_points, 851,168 tested", grid_s, None, f"{len(points):,} inside")
    for every, prepared in ((400, False), (40, True)):
        loop_s, inside = loop_of_contains(region, every, prepared=prepared)
        row(
            f"loop of contains, {'prepared' if prepared else 'as is'}, 1 in {every} timed",
            loop_s,
            grid_s,
            f"about {inside:,} inside",
        )

    ours_s, built = timed(lambda: build_buffers(locations, START, SPACINGS_M), repeats=3)
    row_of = pd.Series(locations.index, index=locations["lookup_id"])
    ours = {x: row_of[built.loc[built["series"] == f"{x}m", "lookup_id"]].to_numpy() for x in SPACINGS_M}
    row(
        "build_buffers, 6,562 real locations, six spacings",
        ours_s,
        None,
        f"{len(built):,} kept, {too_close(locations, ours)} pairs too close",
    )
    loop_s, kept = timed(lambda: published_loop(locations, SPACINGS_M))
    total = sum(len(chosen) for chosen in kept.values())
    row("published loop, the same", loop_s, ours_s, f"{total:,} kept, {too_close(locations, kept)} pairs too close")

    seconds: list[float] = []
    for count in GROWTH:
        lat, lng = street_positions(count)
        spent, chosen = timed(lambda lat=lat, lng=lng: keep_apart(lat, lng, 35.0), repeats=3 if count < 300_000 else 1)
        seconds.append(spent)
        row(f"keep_apart, {count:,} points at 35 m", spent, None, f"{chosen.sum():,} kept")
    draw_growth(GROWTH, seconds, FIGURE)
    print(f"drawn: {FIGURE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
