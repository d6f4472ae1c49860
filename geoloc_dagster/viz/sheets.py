"""Contact sheets: queries with what the model thinks is the same place, or simply pictures with captions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from geoloc_dagster.viz import style
from geoloc_dagster.viz.encode import MAX_BYTES, fit_bytes, fit_unshrunk

_SIDES = (140, 132, 124, 116, 108, 100, 92)
_GAP, _MARGIN, _FRAME = 10, 14, 4
_CAPTION, _TITLE, _FOOT, _LEGEND = 34, 64, 24, 24


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture with up to two lines beneath it; `hit` draws a frame and a mark, None draws neither.

    A tile is grey where there is no picture, or one that is broken.
    """

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
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
    max_bytes: int = MAX_BYTES,
) -> bytes:
    """JPEG: one line per row of tiles. A hit has a blue frame and a tick, a miss a dashed vermilion frame and a cross.

    Args:
        rows: tiles; the first of each row is the query where `first_is_query`, set apart by a gap.
        title: what is shown.
        subtitle: how it was chosen.
        attribution: whose pictures these are; never empty for pictures of others.
        first_is_query: whether to set the first column apart.
        legend: names and their colours, RGB, shown above the tiles.
        max_bytes: cap of the picture.

    Raises:
        ValueError: no tiles.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("a contact sheet needs at least one picture")
    sheet = Image.new("RGB", (1, 1))
    for side in _SIDES:  # smaller pictures rather than a smaller sheet: the captions stay sharp
        sheet = _draw_sheet(rows, side, columns, (title, subtitle, attribution), 18 if first_is_query else 0, legend)
        data = fit_unshrunk(sheet, "jpeg", max_bytes)
        if data is not None:
            return data
    return fit_bytes(sheet, "jpeg", max_bytes)


def _draw_sheet(
    rows: Sequence[Sequence[Tile]],
    side: int,
    columns: int,
    texts: tuple[str, str, str],
    apart: int,
    legend: Sequence[tuple[str, tuple[int, int, int]]],
) -> Image.Image:
    title, subtitle, attribution = texts
    width = 2 * _MARGIN + columns * side + (columns - 1) * _GAP + apart
    pitch = side + _CAPTION + _GAP
    top = _TITLE + (_LEGEND if legend else 0)
    sheet = Image.new("RGB", (width, top + len(rows) * pitch + _FOOT), "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, (_MARGIN, 12), title, 17, width - 2 * _MARGIN, style.INK, bold=True)
    _write(draw, (_MARGIN, 37), subtitle, 12, width - 2 * _MARGIN, style.MUTED)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            x = _MARGIN + j * (side + _GAP) + (apart if j else 0)
            _draw_tile(sheet, draw, tile, x, top + i * pitch, side)
    _draw_legend(draw, legend)
    _write(draw, (_MARGIN, sheet.height - _FOOT), attribution, 11, width - 2 * _MARGIN, style.MUTED)
    return sheet


def _draw_legend(draw: ImageDraw.ImageDraw, legend: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
    x = _MARGIN
    for name, colour in legend:
        draw.rectangle((x, _TITLE, x + 12, _TITLE + 12), fill=colour)
        draw.text((x + 17, _TITLE - 1), name, style.INK, _font(12))
        x += 17 + round(draw.textlength(name, _font(12))) + 12


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, x: int, y: int, side: int) -> None:
    sheet.paste(_picture(tile.image, side), (x, y))
    if tile.hit is not None:
        _draw_frame(draw, x, y, side, tile.hit)
    for line, text in enumerate(tile.caption[:2]):
        colour = style.INK if line == 0 else style.MUTED
        _write(draw, (x, y + side + 3 + 15 * line), text, 12, side, colour)


def _picture(data: bytes | None, side: int) -> Image.Image:
    if data is None:
        return Image.new("RGB", (side, side), style.GREY)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return ImageOps.exif_transpose(image).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ):  # kept for whoever asks why; it must not take the sheet of its neighbours with it
        return Image.new("RGB", (side, side), style.GREY)


def _draw_frame(draw: ImageDraw.ImageDraw, x: int, y: int, side: int, hit: bool) -> None:
    colour, last = (style.HIT if hit else style.MISS), side - 1
    if hit:
        draw.rectangle((x, y, x + last, y + last), outline=colour, width=_FRAME)
    else:
        for start in range(0, side, 14):
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


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, width: int, colour: str, *, bold: bool = False
) -> None:
    """Write the text, a little smaller or shortened with an ellipsis where it is wider than `width` pixels."""
    font = _font(size, bold)
    if draw.textlength(text, font) > width:
        font = _font(size - 1, bold)
    if draw.textlength(text, font) > width:
        while text and draw.textlength(text + "…", font) > width:
            text = text[:-1]
        text += "…"
    draw.text(at, text, colour, font)
