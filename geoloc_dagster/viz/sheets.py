"""Contact sheets: queries with what the model thinks is the same place, or simply pictures with captions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES, fit_bytes

_SIDE, _GAP, _MARGIN, _FRAME = 132, 10, 14, 4
_CAPTION, _TITLE, _FOOT = 32, 62, 22


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture with up to two lines beneath it; `hit` draws a frame and a mark, None draws neither."""

    image: bytes | None
    caption: tuple[str, ...] = field(default=())
    hit: bool | None = None


def contact_sheet(
    rows: Sequence[Sequence[Tile]],
    *,
    title: str,
    subtitle: str = "",
    attribution: str = "",
    first_is_query: bool = True,
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """JPEG: one line per row of tiles. A hit has a blue frame and a tick, a miss a dashed vermilion frame and a cross.

    Args:
        rows: tiles; the first of each row is the query where `first_is_query`, set apart by a gap.
        title: what is shown.
        subtitle: how it was chosen.
        attribution: whose pictures these are; never empty for pictures of others.
        first_is_query: whether to set the first column apart.
        max_bytes: cap of the picture.

    Raises:
        ValueError: no tiles.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("a contact sheet needs at least one picture")
    apart = 18 if first_is_query else 0
    width = 2 * _MARGIN + columns * _SIDE + (columns - 1) * _GAP + apart
    pitch = _SIDE + _CAPTION + _GAP
    sheet = Image.new("RGB", (width, _TITLE + len(rows) * pitch + _FOOT), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 12), _cut(draw, title, _font(17, bold=True), width - 2 * _MARGIN), style.INK, _font(17, bold=True))
    draw.text((_MARGIN, 36), _cut(draw, subtitle, _font(12), width - 2 * _MARGIN), style.MUTED, _font(12))
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            x = _MARGIN + j * (_SIDE + _GAP) + (apart if j else 0)
            _draw_tile(sheet, draw, tile, x, _TITLE + i * pitch)
    foot = _cut(draw, attribution, _font(11), width - 2 * _MARGIN)
    draw.text((_MARGIN, sheet.height - _FOOT), foot, style.MUTED, _font(11))
    return fit_bytes(sheet, "jpeg", max_bytes)


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, x: int, y: int) -> None:
    sheet.paste(_picture(tile.image), (x, y))
    if tile.hit is not None:
        _draw_frame(draw, x, y, tile.hit)
    for line, text in enumerate(tile.caption[:2]):
        colour = style.INK if line == 0 else style.MUTED
        draw.text((x, y + _SIDE + 3 + 14 * line), _cut(draw, text, _font(12), _SIDE), colour, _font(12))


def _picture(data: bytes | None) -> Image.Image:
    if data is None:
        return Image.new("RGB", (_SIDE, _SIDE), style.GREY)
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def _draw_frame(draw: ImageDraw.ImageDraw, x: int, y: int, hit: bool) -> None:
    colour, last = (style.HIT if hit else style.MISS), _SIDE - 1
    if hit:
        draw.rectangle((x, y, x + last, y + last), outline=colour, width=_FRAME)
    else:
        for start in range(0, _SIDE, 14):
            end = min(start + 8, last)
            for box in (
                (x + start, y, x + end, y + _FRAME - 1),
                (x + start, y + last - _FRAME + 1, x + end, y + last),
                (x, y + start, x + _FRAME - 1, y + end),
                (x + last - _FRAME + 1, y + start, x + last, y + end),
            ):
                draw.rectangle(box, fill=colour)
    cx, cy, r = x + last - 15, y + 15, 11
    draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour, outline="white", width=2)
    if hit:
        draw.line([(cx - 5, cy), (cx - 1, cy + 4), (cx + 5, cy - 4)], fill="white", width=3)
    else:
        draw.line([(cx - 4, cy - 4), (cx + 4, cy + 4)], fill="white", width=3)
        draw.line([(cx - 4, cy + 4), (cx + 4, cy - 4)], fill="white", width=3)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def _cut(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened with an ellipsis where it is wider than `width` pixels."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
