"""The atlas picture: one small map of the districts for every figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap
from shapely.geometry.base import BaseGeometry

from geoloc_dagster.evaluation.atlas import Atlas, District
from geoloc_dagster.evaluation.retrieval import MIN_PLACES
from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_FILE_BYTES
from geoloc_dagster.viz.maps import draw_scale_bar, frame, padded, ratio
from geoloc_dagster.viz.year_charts import SCALE

# Light to dark like the other, in a warm hue: where dark means old, large or far, it shall not look like "good".
WARM = LinearSegmentedColormap.from_list("burden", ["#FEF6E6", style.ORANGE, style.VERMILION, "#6B2E00"])
_MOST_LABELS = 60
_SLIVER = 0.2  # of the median district: what the region leaves of it is too small for a figure
_MAP_IN = 3.1


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    value: Callable[[District], float | None]
    text: Callable[[float], str]
    colours: Colormap
    limits: tuple[float, float] | None = None  # None: from the data


def atlas_picture(
    atlas: Atlas,
    outlines: Mapping[str, BaseGeometry | None],
    *,
    geometry: Any = None,
    title: str,
    subtitle: str = "",
    attribution: str = "",
    found: str = "R@1, % of queries",
    max_bytes: int = MAX_FILE_BYTES,
) -> bytes:
    """PNG: recall, coverage, image age, region size and places by district; hatched where there is too little.

    Args:
        atlas: the figures; those that no district has get no map.
        outlines: district -> polygon in (lng, lat); districts without one are left out, and said so.
        geometry: the region; districts are cut to it where it is given.
        title: of which region and model.
        subtitle: what belongs to it.
        attribution: whose data these are.
        found: what recall is of.
        max_bytes: cap of the picture.

    Raises:
        ValueError: no district has a polygon.
    """
    shapes: dict[str, Any] = {
        name: outline if geometry is None else shapely.intersection(outline, geometry) for name, outline in outlines.items()
    }
    drawn = [one for one in atlas.districts if not shapely.is_empty(shapes.get(one.name) or shapely.Polygon())]
    if not drawn:
        raise ValueError("an atlas needs at least one district with a polygon")
    panels = [panel for panel in _panels(found) if any(panel.value(one) is not None for one in drawn)]
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    extent = padded(tuple(shapely.total_bounds([shapes[one.name] for one in drawn])))
    height = float(np.clip(_MAP_IN / ratio(extent), 2.2, 5.0))
    width_in, height_in = columns * (_MAP_IN + 0.15) + 0.15, rows * (height + 0.42) + 0.95
    made = style.figure(width_in, height_in)
    for i, panel in enumerate(panels):
        column, row = i % columns, i // columns
        left, top = 0.15 + column * (_MAP_IN + 0.15), 0.62 + row * (height + 0.42) + 0.3
        place = (left / width_in, 1 - (top + height) / height_in, _MAP_IN / width_in, height / height_in)
        axes = made.add_axes(place)
        _draw(axes, panel, drawn, shapes)
        frame(axes, extent, _MAP_IN / height)
        draw_scale_bar(axes)
    made.text(0.15 / width_in, 1 - 0.1 / height_in, title, fontsize=13, fontweight="bold", color=style.INK, va="top")
    missing = len(atlas.districts) - len(drawn)
    notes = [subtitle, f"{missing} districts have no polygon" if missing else "", f"hatched: fewer than {MIN_PLACES} places"]
    made.text(0.15 / width_in, 1 - 0.36 / height_in, "; ".join(filter(None, notes)), fontsize=9, color=style.MUTED, va="top")
    made.text(0.15 / width_in, 0.06 / height_in, attribution, fontsize=7.5, color=style.MUTED, va="bottom")
    return style.render(made, "png", max_bytes)


def _panels(found: str) -> list[_Panel]:
    def of(name: str) -> Callable[[District], float | None]:
        def value(one: District) -> float | None:
            found = getattr(one, name)
            return None if found is None else found.value

        return value

    def share(value: float) -> str:
        return f"{100 * value:.0f}"

    def count(name: str) -> Callable[[District], float | None]:
        return lambda one: float(getattr(one, name)) or None

    return [
        _Panel(found, of("recall"), share, SCALE, (0.0, 1.0)),
        _Panel("Coverage of regions, %", of("coverage"), share, SCALE, (0.0, 1.0)),
        _Panel("Median image age, years", of("age_years"), lambda v: f"{v:.1f}", WARM),
        _Panel("Median region, km²", of("region_km2"), lambda v: f"{v:.2g}", WARM),
        _Panel("Places with pictures", count("n_places"), lambda v: f"{v:,.0f}", SCALE),
    ]


def _draw(axes: Axes, panel: _Panel, districts: Sequence[District], shapes: Mapping[str, BaseGeometry]) -> None:
    values = [panel.value(one) for one in districts]
    known = [value for value in values if value is not None]
    low, high = panel.limits or (min(known), max(known))
    alike = panel.text(low) == panel.text(high)  # what reads as one figure has one colour
    least = _SLIVER * float(np.median([shapely.area(shapes[one.name]) for one in districts]))
    for one, value in zip(districts, values, strict=True):
        shape = shapes[one.name]
        at = 0.5 if value is None or alike else (value - low) / (high - low)
        look: dict[str, Any] = {"facecolors": "white", "hatch": "////"} if value is None else {"facecolors": [panel.colours(at)]}
        rings = [np.asarray(part.exterior.coords)[:, :2] for part in _polygons(shape)]
        edge = style.GREY if value is None else style.MUTED
        axes.add_collection(PolyCollection(rings, edgecolors=edge, linewidths=0.5, zorder=1 if value is None else 2, **look))
        if value is not None and len(known) <= _MOST_LABELS and shapely.area(shape) >= least:
            point = shapely.point_on_surface(max(_polygons(shape), key=shapely.area))
            ink = "white" if _luminance(panel.colours(at)) < 0.3 else style.INK
            axes.text(point.x, point.y, panel.text(value), ha="center", va="center", fontsize=8, color=ink, zorder=4)
    range_text = "" if panel.limits else f"  ({panel.text(low)} to {panel.text(high)})"
    axes.set_title(panel.title + range_text, loc="left", fontsize=10, fontweight="bold", color=style.INK, pad=4)


def _luminance(colour: tuple[float, float, float, float]) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _polygons(shape: BaseGeometry) -> list[Any]:
    return [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
