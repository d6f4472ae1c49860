"""Maps of cells: each level a panel, the whole globe or the place where they are, each cell as dark as it has photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_outlines import outlines
from geoloc_dagster.geo.partitioning import CellLevel
from geoloc_dagster.geo.region_classes import class_shapes
from geoloc_dagster.viz import style
from geoloc_dagster.viz.maps import Bounds, draw_scale_bar, frame, padded, ratio

_PHOTOS: Final = LinearSegmentedColormap.from_list("photos", ["#D6E8F4", style.SKY, style.BLUE, "#00263D"])
_GLOBE: Final = (100.0, 60.0)  # degrees of longitude and latitude from which the whole globe is shown
_WORLD_IN: Final = 9.0
_PLACE_IN: Final = 4.6
_LINE: Final = "#DDE2E6"
_EMPTY: Final = "#F7F9FA"
_FAINTEST: Final = 100.0  # times less likely than the likeliest cell, and all that is less so
_DOT_PX: Final = 2.0  # a cell is drawn no smaller, or cities would vanish from the globe
_TITLE: Final = FontProperties(size=12, weight="bold")
_NOTE: Final = FontProperties(size=9.5)
_LINE_SPACING: Final = 1.2
_RIM_PX: Final = 7.0  # cells from this size on are parted by white lines


def cells_map(levels: Sequence[CellLevel], *, title: str = "", max_bytes: int = 500_000) -> bytes:
    """PNG: the cells of each level, the darker the more photos they have (logarithmic, one scale for all).

    Cells that reach over a third of the globe are shown on the whole of it (Equal Earth projection); others where they are.

    Args:
        levels: coarsest first; none is empty.
        title: over everything.
        max_bytes: cap of the picture.
    """
    shapes = [np.array(outlines(level.ids)) for level in levels]
    extent = _extent(shapes)
    is_world = extent[2] - extent[0] > _GLOBE[0] or extent[3] - extent[1] > _GLOBE[1]
    made, panels = _world_panels(len(levels)) if is_world else _place_panels(len(levels), extent)
    least, most = min(int(level.counts.min()) for level in levels), max(int(level.counts.max()) for level in levels)
    norm = LogNorm(max(1, least), max(least + 1, most))
    for axes, level, shape in zip(panels, levels, shapes, strict=True):
        if is_world:
            _draw_globe(axes)
        else:
            axes.set_facecolor(_EMPTY)
        _draw_cells(
            axes, s2.areas_m2(level.ids), level.counts, [_on_globe(one) for one in shape] if is_world else list(shape), norm
        )
        if not is_world:
            draw_scale_bar(axes)
        _say(axes, level)
    _colour_bar(made, norm, title)
    return style.render(made, "png", max_bytes)


def heat_map(
    level: CellLevel,
    probabilities: np.ndarray,
    answer: tuple[float, float],
    *,
    title: str,
    truth: tuple[float, float] | None = None,
    subtitle: str = "",
    max_bytes: int = 500_000,
) -> bytes:
    """PNG: where a photo may have been taken, each cell as dark as it is likely (logarithmic), and the answer as a ring.

    Args:
        level: the cells.
        probabilities: of these, (cells,).
        answer: (lat, lng) in degrees.
        truth: likewise, where it is known: a star, and a line to the answer.
        title: what is shown.
        subtitle: how sure it is.
        max_bytes: cap of the picture.
    """
    shape = class_shapes(level)
    extent = _extent([shape])
    is_world = extent[2] - extent[0] > _GLOBE[0] or extent[3] - extent[1] > _GLOBE[1]
    wide = _WORLD_IN if is_world else _PLACE_IN
    heading, notes = style.broken(title, wide, _TITLE), style.broken(subtitle, wide, _NOTE)
    taller_pt = _LINE_SPACING * (_TITLE.get_size() * (len(heading) - 1) + _NOTE.get_size() * (len(notes) - 1))
    made, (axes,) = _world_panels(1, taller_pt / 72) if is_world else _place_panels(1, extent, taller_pt / 72)
    most = float(probabilities.max())
    norm = LogNorm(most / _FAINTEST, most, clip=True)
    if is_world:
        _draw_globe(axes)
    else:
        axes.set_facecolor(_EMPTY)
    values = np.maximum(probabilities, most / _FAINTEST)
    shown = [_on_globe(one) for one in shape] if is_world else list(shape)
    _draw_cells(axes, shapely.area(shape), values, shown, norm)
    _draw_marks(axes, answer, truth, is_world=is_world)
    if not is_world:
        draw_scale_bar(axes)
    _head(axes, heading, notes)
    _scale_of_heat(made, norm)
    return style.render(made, "png", max_bytes)


def _draw_marks(axes: Axes, answer: tuple[float, float], truth: tuple[float, float] | None, *, is_world: bool) -> None:
    """The answer as a ring; the true place as a star, and a line between them."""
    lat, lng = np.array([answer, truth or answer]).T
    if is_world:
        lng, lat = _equal_earth(lng, lat)
    if truth is not None:
        axes.plot(lng, lat, "--", color=style.INK, linewidth=1.2, zorder=5)
        axes.plot(lng[1:], lat[1:], "*", markersize=15, color=style.GREEN, markeredgecolor="white", zorder=7, label="true place")
    ring: dict[str, Any] = {"markersize": 13, "markerfacecolor": "none", "linestyle": ""}
    axes.plot(lng[:1], lat[:1], "o", **ring, markeredgecolor="white", markeredgewidth=4.0, zorder=6)
    axes.plot(lng[:1], lat[:1], "o", **ring, markeredgecolor=style.VERMILION, markeredgewidth=2.0, zorder=7, label="answer")
    if truth is not None:
        axes.legend(loc="lower right", fontsize=9, frameon=True, framealpha=0.8, edgecolor="none").set_zorder(20)


def _scale_of_heat(made: Figure, norm: LogNorm) -> None:
    width, height = made.get_size_inches()
    axes = made.add_axes((0.2 / width, 0.42 / height, min(4.0, width - 0.4) / width, 0.14 / height))
    bar = made.colorbar(ScalarMappable(norm, _PHOTOS), cax=axes, orientation="horizontal")
    bar.ax.minorticks_off()
    least, most = float(norm.vmin or 0), float(norm.vmax or 1)
    bar.set_ticks([least, (least * most) ** 0.5, most], labels=[f"{least:.2%} or less", "", f"{most:.1%}"])
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)
    bar.ax.tick_params(colors=style.MUTED, labelsize=9, length=3)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.set_title("probability of a cell", loc="left", fontsize=9.5, color=style.MUTED, pad=4)


def _extent(shapes: Sequence[np.ndarray]) -> Bounds:
    west, south, east, north = shapely.total_bounds(np.concatenate(shapes)).tolist()
    return west, south, east, north


def _head(axes: Axes, title: Sequence[str], notes: Sequence[str]) -> None:
    """Above the axes, at the left."""
    pad_pt = 18 + _LINE_SPACING * _NOTE.get_size() * (len(notes) - 1)
    axes.set_title("\n".join(title), loc="left", font=_TITLE, color=style.INK, pad=pad_pt, parse_math=False)
    axes.text(0, 1.015, "\n".join(notes), transform=axes.transAxes, font=_NOTE, color=style.MUTED, va="bottom", parse_math=False)


def _world_panels(count: int, head_in: float = 0.0) -> tuple[Figure, list[Axes]]:
    """One above the other; `head_in` more above the first."""
    x, y = _equal_earth(np.array([0.0, 180.0]), np.array([90.0, 0.0]))
    shape = float(x[1] / y[0])
    each = _WORLD_IN / shape
    height = count * (each + 0.5) + 1.0 + head_in
    made = style.figure(_WORLD_IN + 0.4, height)
    panels: list[Axes] = []
    for place in range(count):
        top = height - head_in - 0.05 - (place + 1) * (each + 0.5)
        axes = made.add_axes((0.2 / (_WORLD_IN + 0.4), top / height, _WORLD_IN / (_WORLD_IN + 0.4), each / height))
        axes.set_xlim(-1.004 * x[1], 1.004 * x[1])
        axes.set_ylim(-1.004 * y[0], 1.004 * y[0])
        axes.set_axis_off()
        panels.append(axes)
    return made, panels


def _place_panels(count: int, extent: Bounds, head_in: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Side by side, three in a row; all show the same extent; `head_in` more above the first row."""
    shown = padded(extent)
    tall = float(np.clip(_PLACE_IN / ratio(shown), 2.5, 6.0))
    across, down = min(count, 3), -(-count // 3)
    width, height = across * (_PLACE_IN + 0.2) + 0.2, down * (tall + 0.55) + 1.0 + head_in
    made = style.figure(width, height)
    panels: list[Axes] = []
    for place in range(count):
        left = 0.2 + place % 3 * (_PLACE_IN + 0.2)
        bottom = height - head_in - 0.05 - (place // 3 + 1) * (tall + 0.55)
        axes = made.add_axes((left / width, bottom / height, _PLACE_IN / width, tall / height))
        frame(axes, shown, _PLACE_IN / tall)
        panels.append(axes)
    return made, panels


def _draw_cells(axes: Axes, areas: np.ndarray, values: np.ndarray, shapes: list[shapely.Geometry], norm: LogNorm) -> None:
    """Large cells first, so that small ones lie on top; those of a pixel or so as dots."""
    order = np.argsort(-areas)
    parts, owner = shapely.get_parts(np.array(shapes)[order], return_index=True)
    colours = _PHOTOS(norm(values[order][owner]))
    pixels = _pixels(axes, parts)
    has_rim = pixels >= _RIM_PX
    edges = np.where(has_rim[:, None], (1.0, 1.0, 1.0, 1.0), colours)
    widths = np.where(has_rim, 0.5, np.clip(_DOT_PX - pixels, 0.0, _DOT_PX) * 72 / axes.figure.dpi)
    rings = [shapely.get_coordinates(shapely.get_exterior_ring(part)) for part in parts]
    axes.add_collection(PolyCollection(rings, facecolors=colours, edgecolors=edges, linewidths=widths, zorder=3))


def _pixels(axes: Axes, parts: np.ndarray) -> np.ndarray:
    """The height of each shape in the picture."""
    south, north = axes.get_ylim()
    return np.sqrt(shapely.area(parts)) / (north - south) * axes.get_window_extent().height


def _draw_globe(axes: Axes) -> None:
    """A graticule of 30 degrees in the outline of the globe."""
    lat, lng = np.linspace(-90, 90, 91), np.linspace(-180, 180, 181)
    lines = [_equal_earth(np.full(lat.size, at), lat) for at in range(-150, 180, 30)]
    lines += [_equal_earth(lng, np.full(lng.size, at)) for at in range(-60, 90, 30)]
    west, east = (_equal_earth(np.full(lat.size, at), lat) for at in (-180.0, 180.0))
    outline = np.concatenate([np.stack(west, axis=1), np.stack(east, axis=1)[::-1]])
    axes.add_collection(PolyCollection([outline], facecolors=_EMPTY, edgecolors=style.GREY, linewidths=0.8, zorder=1))
    axes.add_collection(LineCollection([np.stack(line, axis=1) for line in lines], colors=_LINE, linewidths=0.6, zorder=2))


def _say(axes: Axes, level: CellLevel) -> None:
    counts = f"{int(level.counts.min()):,} to {int(level.counts.max()):,} photos each"
    _head(axes, [level.name], [f"{len(level):,} cells, {int(level.counts.sum()):,} photos, {counts}"])


def _colour_bar(made: Figure, norm: LogNorm, title: str) -> None:
    width, height = made.get_size_inches()
    axes = made.add_axes((0.2 / width, 0.42 / height, min(4.0, width - 0.4) / width, 0.14 / height))
    bar = made.colorbar(ScalarMappable(norm, _PHOTOS), cax=axes, orientation="horizontal")
    bar.ax.minorticks_off()
    bar.set_ticks(marks := _marks(norm), labels=[f"{mark:,}" for mark in marks])
    bar.ax.tick_params(colors=style.MUTED, labelsize=9, length=3)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.set_title("photos per cell", loc="left", fontsize=9.5, color=style.MUTED, pad=4)
    if title:
        made.text((width - 0.2) / width, 0.42 / height, title, ha="right", va="bottom", fontsize=9.5, color=style.MUTED)


def _marks(norm: LogNorm) -> list[int]:
    """Both ends, and round numbers between that keep away from them."""
    least, most = round(float(norm.vmin or 1)), round(float(norm.vmax or 1))
    between = [step * 10**power for power in range(8) for step in (1, 3)]
    apart = 1.15 if most < 30 * least else 1.6
    return [least, *(mark for mark in between if least * apart < mark < most / apart), most]


def _on_globe(shape: shapely.Geometry) -> shapely.Geometry:
    bent = shapely.segmentize(shape, 3.0)
    return shapely.transform(bent, lambda points: np.stack(_equal_earth(points[:, 0], points[:, 1]), axis=1))


def _equal_earth(lng_deg: np.ndarray, lat_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source: Šavrič, Patterson and Jenny, The Equal Earth map projection, Int. J. Geogr. Inf. Sci. 33 (2019), eqs. 1 to 3."""
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    angle = np.arcsin(np.sqrt(3) / 2 * np.sin(np.radians(lat_deg)))
    square = angle * angle
    sixth = square**3
    slope = a1 + 3 * a2 * square + sixth * (7 * a3 + 9 * a4 * square)
    x = 2 * np.sqrt(3) * np.radians(lng_deg) * np.cos(angle) / (3 * slope)
    return x, angle * (a1 + a2 * square + sixth * (a3 + a4 * square))
