"""The answer to one place as a picture and as a page of its own: a map of all classes, the views, and the likeliest classes."""

from __future__ import annotations

import base64
import html
import io
import math
from typing import Any

import numpy as np
import shapely

from geoloc_dagster.evaluation.tables import TextTable, length
from geoloc_dagster.geo.region_classes import class_names, class_shapes
from geoloc_dagster.imagery.quality import decode
from geoloc_dagster.learning.sequence_model import SequenceModel
from geoloc_dagster.prediction.photo import read_photo
from geoloc_dagster.prediction.places import PlaceAnswer, Position, candidates_table, verdict
from geoloc_dagster.viz import style
from geoloc_dagster.viz.cells import heat_map
from geoloc_dagster.viz.maps import padded, ratio

_MOST_SHAPES = 2_000
_WIDTH = 1_000.0
_ROWS = 15
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}"
    "h1{font-size:1.5rem;margin-bottom:0}svg{width:100%;height:auto;border:1px solid #a7adb3;background:#f7f9fa}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .8rem;border-bottom:1px solid #8884;text-align:right}"
    "th:first-child,td:first-child{text-align:left}.views{display:flex;gap:.5rem;flex-wrap:wrap}"
    "figure{margin:0}figure img{height:9rem}figcaption,.small{font-size:.9rem;color:#5f6368}"
)


def place_map(model: SequenceModel, answer: PlaceAnswer, *, max_bytes: int) -> bytes:
    """PNG: every class as dark as it is likely, the answer as a ring, the true place as a star, and the line between them."""
    where, truth = "{:.4f}, {:.4f}".format(*answer.answer), answer.place.truth
    views = f"{len(answer.place.views)} view{'s' * (len(answer.place.views) > 1)}"
    known = "" if truth is None else "; true place {:.4f}, {:.4f}".format(*truth)
    return heat_map(
        model.finest,
        answer.probabilities,
        answer.answer,
        truth=truth,
        title=where if answer.error_m is None else f"{where}: {length(answer.error_m)} off",
        subtitle=f"{views}; cell {class_names(model.finest)[answer.chosen]}{known}",
        max_bytes=max_bytes,
    )


def place_page(model: SequenceModel, answer: PlaceAnswer) -> str:
    """HTML that needs nothing else: the map as SVG, whose classes tell their probability, the views, and a table."""
    views = "".join(_view(heading, file) for heading, file in answer.place.views)
    title = html.escape(answer.place.name)
    body = (
        f"<h1>{title}</h1><p>{html.escape(verdict(answer))}</p><div class='views'>{views}</div>{_map(model, answer)}"
        "<p class='small'>The darker a cell, the likelier. Ring: the answer; star: the true place, where it is known. "
        "Point at a cell to read its probability.</p>"
        f"{_table(candidates_table(model, answer, _ROWS))}<p class='small'>Model {html.escape(model.model_version)}</p>"
    )
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _map(model: SequenceModel, answer: PlaceAnswer) -> str:
    level, names = model.finest, class_names(model.finest)
    shapes = class_shapes(level)
    west, south, east, north = padded(tuple(shapely.total_bounds(shapes).tolist()))
    height = _WIDTH / ratio((west, south, east, north))

    def at(lng: Any, lat: Any) -> Any:
        return (np.asarray(lng) - west) / (east - west) * _WIDTH, (north - np.asarray(lat)) / (north - south) * height

    most = float(answer.probabilities.max())
    paths: list[str] = []
    for number in reversed(answer.likeliest(_MOST_SHAPES)):  # the likeliest on top
        probability = float(answer.probabilities[number])
        shape = shapely.simplify(shapes[number], (east - west) / (2 * _WIDTH))
        outline = " ".join(_ring(part, at) for part in shapely.get_parts(shape))
        tip = f"<title>{html.escape(names[number])}: {probability:.2%}</title>"
        paths.append(
            f"<path d='{outline}' fill='{style.BLUE}' fill-opacity='{math.sqrt(probability / most):.3f}' "
            f"stroke='{style.GREY}' stroke-width='.6'>{tip}</path>"
        )
    marks = _marks(answer.answer, answer.place.truth, at)
    return f"<svg viewBox='0 0 {_WIDTH:.0f} {height:.0f}' role='img' aria-label='map'>{''.join(paths)}{marks}</svg>"


def _ring(part: Any, at: Any) -> str:
    x, y = at(*np.asarray(part.exterior.coords)[:, :2].T)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)) + "Z"


def _marks(answer: Position, truth: Position | None, at: Any) -> str:
    x, y = at(answer[1], answer[0])
    drawn = f"fill='none' stroke='{style.VERMILION}' stroke-width='3'"
    ring = f"<circle cx='{x:.1f}' cy='{y:.1f}' r='9' {drawn}><title>answer</title></circle>"
    if truth is None:
        return ring
    a, b = at(truth[1], truth[0])
    points = " ".join(
        f"{a + radius * math.sin(math.radians(36 * corner)):.1f},{b - radius * math.cos(math.radians(36 * corner)):.1f}"
        for corner, radius in enumerate([12, 5] * 5)
    )
    line = f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{a:.1f}' y2='{b:.1f}' stroke='{style.INK}' stroke-dasharray='6 4'/>"
    star = f"<polygon points='{points}' fill='{style.GREEN}' stroke='white'><title>true place</title></polygon>"
    return line + star + ring


def _view(heading_deg: float, file: Any) -> str:
    image = decode(read_photo(file))
    image.thumbnail((480, 320))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    said = "heading unknown" if math.isnan(heading_deg) else f"{heading_deg:g}°"
    content = base64.b64encode(stream.getvalue()).decode()
    return f"<figure><img alt='' src='data:image/jpeg;base64,{content}'><figcaption>{said}</figcaption></figure>"


def _table(table: TextTable) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in table.rows)
    return f"<table><tr>{head}</tr>{rows}</table>"
