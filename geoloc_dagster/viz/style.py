"""One look for every figure: the Okabe-Ito colours, legible sizes, no global state."""

from __future__ import annotations

import io
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from geoloc_dagster.viz.encode import MAX_BYTES, fit_bytes

# Okabe and Ito (2008), "Color Universal Design": told apart with every common colour vision deficiency.
BLUE: Final = "#0072B2"
SKY: Final = "#56B4E9"
ORANGE: Final = "#E69F00"
VERMILION: Final = "#D55E00"
GREEN: Final = "#009E73"
INK: Final = "#1A1A1A"
MUTED: Final = "#5F6368"
GREY: Final = "#A7ADB3"
LAND: Final = "#EDF0F2"
PALETTE: Final = ("#FFFFFF", INK, MUTED, GREY, LAND, BLUE, SKY, ORANGE, VERMILION, GREEN)
_DPI: Final = 110
HIT: Final = BLUE
MISS: Final = VERMILION


def figure(width_in: float, height_in: float, dpi: int = _DPI) -> Figure:
    """A figure with its own Agg canvas, unknown to pyplot and so safe in threads."""
    made = Figure(figsize=(width_in, height_in), dpi=dpi, facecolor="white")
    FigureCanvasAgg(made)
    return made


def plain_axes(axes: Axes, title: str, subtitle: str = "") -> None:
    """Title at the left, a subtitle beneath it, no box, quiet ticks."""
    axes.set_title(title + ("\n" if subtitle else ""), loc="left", fontsize=13, fontweight="bold", color=INK)
    if subtitle:
        axes.text(0, 1.02, subtitle, transform=axes.transAxes, fontsize=9.5, color=MUTED, va="bottom")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=MUTED, labelsize=10)


def tall_axes(axes: Axes, title: str, subtitle: str = "") -> None:
    """`plain_axes` for a figure of any height: the subtitle stands a fixed number of points above the axes."""
    plain_axes(axes, f"{title}\n" if subtitle else title)
    axes.annotate(subtitle, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=9.5, color=MUTED)


def broken(text: str, width_in: float, font: FontProperties) -> list[str]:
    """The text in lines that are no wider than that, broken between words, or within one that is wider by itself."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if _width_in(longer, font) <= width_in:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and _width_in(lines[-1] + letter, font) > width_in:
                lines.append("")
            lines[-1] += letter
    return lines


def _width_in(text: str, font: FontProperties) -> float:
    """As it is drawn: letters are fitted to the pixels of a figure."""
    return RendererAgg(1, 1, _DPI).get_text_width_height_descent(text, font, ismath=False)[0] / _DPI


def render(made: Figure, kind: Literal["png", "jpeg", "webp"] = "png", max_bytes: int = MAX_BYTES) -> bytes:
    """Draw a figure and encode it within `max_bytes`."""
    stream = io.BytesIO()
    made.savefig(stream, format="png", facecolor="white")
    with Image.open(stream) as image:
        return fit_bytes(image, kind, max_bytes, PALETTE)
