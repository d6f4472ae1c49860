"""Maps: a region with its points, and where a model finds places and where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from geoloc_dagster.geo.distance import EARTH_RADIUS_M
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES

Bounds = tuple[float, float, float, float]
_METRES_PER_DEGREE: Final = np.pi * EARTH_RADIUS_M / 180
_DENSE: Final = 20_000  # points: from here on they are drawn as pixels
_SPARSE: Final = 300  # points: up to here each has a white rim
_WIDTH_IN: Final = 7.0
_LEGEND_COLUMNS: Final = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """Points of one kind. `marker` is a matplotlib marker; shape and colour both tell the kinds apart.

    `context` layers are drawn, but a zoomed map does not widen for them.
    """

    lat_deg: np.ndarray
    lng_deg: np.ndarray
    label: str
    colour: str = style.BLUE
    marker: str = "o"
    size: float = 12.0
    context: bool = False


def points_map(
    geometry: Any,
    layers: Sequence[Layer],
    *,
    title: str,
    subtitle: str = "",
    attribution: str = "",
    zoom: bool = False,
    cells: Sequence[Any] = (),
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """PNG: the region's outline with layers of points, a legend with counts, a scale bar and an attribution line.

    Args:
        geometry: shapely (Multi)Polygon in (lng, lat), or None to draw the points alone.
        layers: drawn in this order.
        title: what is shown.
        subtitle: figures that belong to it.
        attribution: whose data these are.
        zoom: show the extent of the points that are no context, with the region as an inset, rather than the whole region.
        cells: shapely (Multi)Polygons that the region is divided into.
        max_bytes: cap of the picture.

    Raises:
        ValueError: neither a geometry nor a point was given.
    """
    near = [layer for layer in layers if not layer.context and len(layer.lat_deg)]
    extent = padded(_extent(None if zoom and near else geometry, near or layers))
    height = float(np.clip(_WIDTH_IN / ratio(extent), 4.2, 8.5))
    foot = 0.3 + 0.2 * -(-len(layers) // _LEGEND_COLUMNS)
    width_in, height_in = _WIDTH_IN + 0.4, height + foot + 0.7
    made = style.figure(width_in, height_in)
    axes = made.add_axes((0.2 / width_in, foot / height_in, _WIDTH_IN / width_in, height / height_in))
    _draw_outline(axes, geometry)
    _draw_cells(axes, cells)
    for layer in layers:
        _draw_layer(axes, layer)
    frame(axes, extent, _WIDTH_IN / height)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=style.INK, pad=22 if subtitle else 6)
    if subtitle:
        axes.text(0, 1.012, subtitle, transform=axes.transAxes, fontsize=9.5, color=style.MUTED, va="bottom")
    draw_scale_bar(axes)
    if zoom and geometry is not None:
        _draw_inset(axes, geometry, layers)
    if layers:
        axes.legend(
            handles=[_handle(layer) for layer in layers],
            loc="upper left",
            bbox_to_anchor=(-0.015, -0.005),
            ncols=_LEGEND_COLUMNS,
            handletextpad=0.1,
            columnspacing=0.9,
            fontsize=9,
            frameon=False,
        )
    if attribution:
        made.text(0.2 / width_in, 0.08 / height_in, attribution, fontsize=7.5, color=style.MUTED, va="bottom")
    return style.render(made, "png", max_bytes)


def recall_map(
    geometry: Any,
    lat_deg: np.ndarray,
    lng_deg: np.ndarray,
    found: np.ndarray,
    *,
    title: str,
    subtitle: str = "",
    attribution: str = "",
    gallery: Layer | None = None,
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """PNG: the places that were asked about, by the share of their queries found at rank 1.

    Args:
        geometry: shapely (Multi)Polygon in (lng, lat), or None.
        lat_deg: (P,) latitudes of the places.
        lng_deg: (P,) longitudes.
        found: (P,) shares in 0..1.
        title: what was measured.
        subtitle: on how much.
        attribution: whose data these are.
        gallery: more points beneath, e.g. the places of the training split.
        max_bytes: cap of the picture.
    """
    kinds = [
        ("no query found", found <= 0, style.MISS, "X", 60.0),
        ("some queries found", (found > 0) & (found < 1), style.ORANGE, "D", 36.0),
        ("every query found", found >= 1, style.HIT, "o", 46.0),
    ]
    layers = [Layer(lat_deg[mask], lng_deg[mask], label, colour, mark, size) for label, mask, colour, mark, size in kinds]
    beneath = [gallery] if gallery is not None else []
    return points_map(
        geometry,
        [*beneath, *layers[::-1]],
        title=title,
        subtitle=subtitle,
        attribution=attribution,
        zoom=True,
        max_bytes=max_bytes,
    )


def _extent(geometry: Any, layers: Sequence[Layer]) -> Bounds:
    if geometry is not None:
        west, south, east, north = geometry.bounds
        return float(west), float(south), float(east), float(north)
    drawn = [layer for layer in layers if len(layer.lat_deg)]
    if not drawn:
        raise ValueError("a map needs a boundary or at least one point")
    lat = np.concatenate([layer.lat_deg for layer in drawn])
    lng = np.concatenate([layer.lng_deg for layer in drawn])
    return float(lng.min()), float(lat.min()), float(lng.max()), float(lat.max())


def padded(extent: Bounds) -> Bounds:
    """The extent with a margin of 4 %, at least 60 m on each side."""
    west, south, east, north = extent
    least = 60 / _METRES_PER_DEGREE
    dy = max(0.04 * (north - south), least)
    dx = max(0.04 * (east - west), least / np.cos(np.radians((south + north) / 2)))
    return west - dx, south - dy, east + dx, north + dy


def ratio(extent: Bounds) -> float:
    """Width over height on the ground."""
    west, south, east, north = extent
    return float((east - west) * np.cos(np.radians((south + north) / 2)) / (north - south))


def frame(axes: Axes, extent: Bounds, shape: float) -> None:
    """Show the extent, widened so that metres are equally long both ways in axes of that width over height."""
    west, south, east, north = extent
    grow_x, grow_y = max(1.0, shape / ratio(extent)), max(1.0, ratio(extent) / shape)
    x, y = (west + east) / 2, (south + north) / 2
    axes.set_xlim(x - grow_x * (east - west) / 2, x + grow_x * (east - west) / 2)
    axes.set_ylim(y - grow_y * (north - south) / 2, y + grow_y * (north - south) / 2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(style.GREY)


def _draw_outline(axes: Axes, geometry: Any) -> None:
    if geometry is None:
        return
    parts = shapely.get_parts(geometry)
    shells = [np.asarray(part.exterior.coords)[:, :2] for part in parts]
    holes = [np.asarray(ring.coords)[:, :2] for part in parts for ring in part.interiors]
    axes.add_collection(PolyCollection(shells, facecolors=style.LAND, edgecolors=style.GREY, linewidths=0.8, zorder=1))
    axes.add_collection(PolyCollection(holes, facecolors="white", edgecolors=style.GREY, linewidths=0.8, zorder=1))


def _draw_cells(axes: Axes, cells: Sequence[Any]) -> None:
    parts = shapely.get_parts(np.array(cells, dtype=object))
    shells = [np.asarray(part.exterior.coords)[:, :2] for part in parts]
    axes.add_collection(PolyCollection(shells, facecolors="none", edgecolors=style.BLUE, linewidths=0.7, zorder=2))


def _draw_layer(axes: Axes, layer: Layer) -> None:
    if len(layer.lat_deg) > _DENSE:
        axes.plot(layer.lng_deg, layer.lat_deg, ",", color=layer.colour, alpha=0.35, zorder=3)
        return
    edge = 0.6 if len(layer.lat_deg) <= _SPARSE else 0.0
    axes.scatter(
        layer.lng_deg,
        layer.lat_deg,
        s=layer.size,
        c=layer.colour,
        marker=layer.marker,
        linewidths=edge,
        edgecolors="white",
        zorder=4,
    )


def _handle(layer: Layer) -> Line2D:
    mark = "s" if layer.marker == "," else layer.marker
    label = f"{layer.label} ({len(layer.lat_deg):,})"
    return Line2D([], [], linestyle="", marker=mark, color=layer.colour, markeredgecolor="white", markersize=8, label=label)


def draw_scale_bar(axes: Axes) -> None:
    """Into the lower left corner of axes in degrees."""
    west, east = axes.get_xlim()
    south, north = axes.get_ylim()
    per_degree = _METRES_PER_DEGREE * float(np.cos(np.radians((south + north) / 2)))
    metres = scale_length_m((east - west) * per_degree * 0.28)
    x, y = west + 0.03 * (east - west), south + 0.035 * (north - south)
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    end = x + metres / per_degree
    axes.plot([x, end], [y, y], color="white", lw=6, solid_capstyle="butt", zorder=9)
    axes.plot([x, end], [y, y], color=style.INK, lw=2.5, solid_capstyle="butt", zorder=10)
    text = axes.text((x + end) / 2, y + 0.012 * (north - south), label, ha="center", va="bottom", fontsize=9, zorder=10)
    text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1})


def scale_length_m(at_most_m: float) -> float:
    """The longest of 1, 2 or 5 times a power of ten that is at most `at_most_m`."""
    power = 10.0 ** np.floor(np.log10(at_most_m))
    return float(max(step * power for step in (1, 2, 5) if step * power <= at_most_m * (1 + 1e-9)))


def _draw_inset(axes: Axes, geometry: Any, layers: Sequence[Layer]) -> None:
    """The whole region with a frame around what the map shows, in the corner that hides the fewest points."""
    west, east = axes.get_xlim()
    south, north = axes.get_ylim()
    extent = padded(geometry.bounds)
    shown = ratio((west, south, east, north))
    width, height = 0.24, min(0.24 / ratio(extent) * shown, 0.4)
    x = np.concatenate([(layer.lng_deg - west) / (east - west) for layer in layers if not layer.context] or [np.empty(0)])
    y = np.concatenate([(layer.lat_deg - south) / (north - south) for layer in layers if not layer.context] or [np.empty(0)])
    corners = [(0.99 - width, 0.01 * shown), (0.99 - width, 1 - 0.01 * shown - height), (0.01, 1 - 0.01 * shown - height)]
    left, bottom = min(
        corners,
        key=lambda c: np.count_nonzero(
            (abs(x - c[0] - width / 2) < width / 2 + 0.02) & (abs(y - c[1] - height / 2) < height / 2 + 0.02)
        ),
    )
    inset = axes.inset_axes((left, bottom, width, height))
    _draw_outline(inset, geometry)
    inset.add_patch(Rectangle((west, south), east - west, north - south, fill=False, edgecolor=style.INK, lw=1.6, zorder=5))
    frame(inset, extent, shown * width / height)
    inset.set_zorder(15)
