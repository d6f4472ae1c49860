"""Land and sea of the emulated planet: rough outlines of the continents, drawn by hand, and what follows from them.

Outlines are (lng, lat) in degrees, right to a degree or two: enough for climates and for keeping photographers dry.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Ring = tuple[tuple[float, float], ...]
_CELLS_PER_DEG = 4
_COARSE_DEG = 2  # of the grid on which distances to the sea are counted
_DEG_KM = 111.2


def _ring(text: str) -> Ring:
    numbers = [float(number) for number in text.replace(",", " ").split()]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


OUTLINES: dict[str, Ring] = {
    "africa": _ring(
        "-17 15, -16 20, -13 27, -9 31, -6 35.5, 0 36, 10 37, 11 33.5, 20 31, 25 31.5, 32 31, 34 27, 37 21, 39 16, 43 12, 51 12,"
        "48 5, 42 -2, 39 -7, 40.5 -14, 35 -20, 35 -24, 32 -28, 28 -33, 20 -34.7, 18 -33, 15 -27, 12 -18, 13.5 -11, 12 -6, 9 0,"
        "9.5 4, 4 6, -4 5, -8 4.5, -13 8.5, -16.5 12"
    ),
    "madagascar": _ring("44 -20, 44 -25, 47 -25, 50 -16, 49.3 -12, 46 -15.8"),
    "eurasia": _ring(
        "-9.3 38.7, -8.8 43.2, -1.8 43.4, -1.2 46, -4.6 48.4, -1.5 48.7, 1.6 50.9, 4 52, 7 53.5, 8.5 55, 8.2 57, 10.5 57.6,"
        "10 54.5, 14 54, 19 54.4, 21 55.5, 21.5 57.5, 24 58.8, 29.5 60, 23 60, 21.3 61.5, 25 65, 22 65.8, 17.5 62, 18.5 60,"
        "16.5 57, 14 55.4, 11.5 58.5, 8 58, 5 60, 6 62.5, 12 66, 17 69, 25 71, 31 70, 41 67.5, 41 66, 34 66.5, 38 64, 44 66,"
        "46 68.3, 54 68.5, 60 69, 68 68.5, 67 72, 73 71.5, 80 73, 87 75, 104 77.5, 113 74, 128 72.5, 140 72.5, 152 71, 160 69.8,"
        "170 69.5, 179 68.8, 179 65, 177 62.5, 170 60, 163 58, 162 55, 157 51.2, 156 57, 162 61, 155 59.5, 143 59.3, 136 55,"
        "141 53, 140 48, 132 43.2, 129 41.5, 127.5 39.5, 129.4 36, 127 34.5, 126 37, 125 39.7, 121.5 39, 121 40.8, 118 39,"
        "119 37.3, 122 37, 119.5 35, 121.8 31, 121.5 28.5, 118 24.3, 113.5 22.2, 108.5 21.6, 106.5 20, 107 16.8, 109.2 13,"
        "107 10.5, 105 8.7, 103 10.8, 100.8 13, 99.8 9.5, 103.5 1.4, 101 3, 98.3 8.5, 97.6 16, 94.3 16, 92 21.5, 90 22.2, 87 21,"
        "82 16.5, 80.2 13, 79.5 10, 77.5 8.2, 74.5 14, 72.8 20, 70 21, 70 22.7, 66.8 25, 57.5 25.6, 56.5 27, 51.5 27.8,"
        "48.8 30.3, 50.2 26.5, 51.5 25, 54 24.2, 56.3 26, 56.8 24, 59.8 22.5, 55 17.2, 45 12.8, 43 13.5, 42.5 16.5, 39 21.5,"
        "35 28, 34.9 29.5, 34.3 31.3, 36 36, 30.5 36.6, 27.5 37, 26.5 39.5, 29 41, 35 42, 41.5 41.5, 38 44.5, 39 47.2, 35 46,"
        "33.5 44.6, 31 46.5, 28.5 44, 28 41.8, 26 40.8, 23.5 40.5, 24 38, 22.5 36.6, 20 39.5, 19.4 42, 14 45.3, 12.4 45,"
        "13.7 43.5, 16 41.8, 18.4 40, 16.6 39.5, 16 38, 15.5 40, 12.3 41.8, 10.3 43.5, 8.5 44.3, 6 43.1, 3.2 43.1, 3.2 41.8,"
        "0 39.5, -0.5 37.9, -2.2 36.8, -5.5 36.1, -8.8 37.1"
    ),
    "britain": _ring(
        "-5.5 50.1, 1.3 51.2, 1.7 52.7, 0 53.5, -2 56, -2 57.6, -4 58.5, -5.8 57.5, -3 54.5, -4.5 53, -5 51.8, -3 51.3"
    ),
    "ireland": _ring("-10 52, -6.3 52.2, -6 54.5, -8 55.2, -10 54"),
    "iceland": _ring("-22.5 64, -18.7 63.4, -13.6 65, -16 66.4, -22 66.3, -24 65.5"),
    "svalbard": _ring("11 79, 16 76.7, 25 79.8, 15 80"),
    "sicily": _ring("12.5 38, 15.5 38.2, 15 36.7"),
    "sardinia": _ring("8.3 39, 9.7 39.2, 9.3 41.2, 8.2 40.8"),
    "cyprus": _ring("32.3 34.9, 34.5 35.5, 34 34.8"),
    "honshu": _ring("131 34, 135.8 33.5, 140 35, 141.8 39.5, 141.2 41.3, 140 40.5, 138.5 37.3, 136.7 36.8, 133 35.5"),
    "hokkaido": _ring("140 42, 143 42.2, 145.3 43.3, 141.8 45.4"),
    "kyushu": _ring("130 32, 131.5 31.4, 131.8 33.6, 130 33.4"),
    "sakhalin": _ring("142 46.5, 143.3 49.5, 143 54.2, 142.2 52"),
    "taiwan": _ring("120.1 23, 120.8 22, 121.9 25"),
    "sri_lanka": _ring("79.8 8, 80.3 6, 81.8 7, 80.2 9.7"),
    "sumatra": _ring("95.4 5.4, 98.5 3.6, 104 -1.5, 105.8 -5.8, 102.3 -4, 98.5 1.7"),
    "java": _ring("105.3 -6.7, 106 -6, 110.5 -6.5, 114.4 -7.7, 114.4 -8.6, 108 -7.7"),
    "borneo": _ring("109 1.5, 111 -3, 116 -4, 119 1, 117 7, 113 3.2"),
    "sulawesi": _ring("119.5 -5, 122 -4.5, 121.5 -1, 125 1.5, 120 1"),
    "new_guinea": _ring("131 -1, 135 -3.3, 138 -1.6, 144.5 -4, 147.7 -6, 150.5 -10.5, 143 -9, 138 -8, 133 -4"),
    "luzon": _ring("120 14, 121 13.7, 124 13, 122.2 16.5, 121.5 18.4, 120.5 18"),
    "mindanao": _ring("122 7, 125.5 6, 126.5 8, 125 9.7, 123 8.5"),
    "australia": _ring(
        "114 -22, 113.5 -26, 115.7 -32, 115 -34.2, 118 -35, 124 -33, 131 -31.5, 135.5 -34.8, 138 -33, 138.5 -35.6, 141 -38.2,"
        "146.3 -39, 150 -37.4, 153 -31, 153.3 -25, 149.5 -21.5, 146 -18.9, 145 -15, 142.5 -10.8, 141 -14, 140 -17.6, 135.5 -15,"
        "136.8 -12.2, 131 -12.2, 129 -15, 125.5 -14.2, 122.2 -18"
    ),
    "tasmania": _ring("144.7 -40.8, 148.3 -41, 147.5 -43.4, 146 -43.4"),
    "new_zealand_north": _ring("172.8 -34.5, 175.8 -36.8, 178.4 -37.8, 175.2 -41.5, 173.8 -39.3, 174.8 -38"),
    "new_zealand_south": _ring("172.7 -40.6, 174.2 -41.7, 171 -44.5, 170.5 -46, 168.4 -46.6, 166.5 -46, 170.5 -43"),
    "north_america": _ring(
        "-168 65.6, -162 66.5, -166.5 68.3, -156.5 71.2, -141 69.6, -128 70, -115 68, -108 68, -96 68.2, -94 72, -85 69.7,"
        "-81.5 68, -87 65, -94 61, -94 58.8, -88 56.7, -82.3 55.1, -82 52.9, -79 51.3, -79 54.7, -77 57, -78 62.3, -72 61.5,"
        "-69.5 58.8, -65 60, -61.5 57, -56 52.5, -60 50.2, -66.5 50.2, -70 47, -64.5 49, -64.8 47, -61 45.5, -65.8 43.6,"
        "-67 44.8, -70.3 43.6, -70.2 41.8, -74 40.6, -76 37, -75.6 35.3, -79 33.2, -81.3 31, -80 26.8, -80.5 25.2, -81.8 26,"
        "-82.8 28, -84 30, -89.5 30.2, -90 29.2, -94 29.6, -97.3 27.5, -97.8 22, -95 18.5, -91.5 18.5, -90.3 21, -87 21.4,"
        "-88.3 16, -83.3 15, -83.7 11, -81.5 8.9, -79.5 9.5, -77.5 8.5, -78.5 7.8, -80.3 7.4, -83.5 8.5, -86 11.5, -92 14.5,"
        "-96 15.8, -102 17.9, -105.5 20.3, -106 23, -109.5 26, -112.8 30, -114.7 31.5, -112 27, -109.6 23, -112.2 25, -115 28,"
        "-117.2 32.8, -120.6 34.6, -123.8 39, -124.4 42.8, -124.5 48.2, -123 49, -128 51.5, -133 56, -139 59.6, -146 60.8,"
        "-151.5 59.4, -157 57, -163 54.8, -158 58.5, -162 59, -165.5 61.5, -161 64.5"
    ),
    "newfoundland": _ring("-59 47.7, -53 46.8, -53.2 48.7, -56 51.5"),
    "baffin": _ring("-78 73, -67 69, -62 66, -66 62.3, -73 65, -77 68, -88 73"),
    "greenland": _ring("-73 78, -60 76, -54 70, -51 64, -45 60, -40 65, -25 70, -19 77, -25 82.5, -55 82"),
    "cuba": _ring("-84.8 22, -80 23, -74.3 20.2, -77.5 19.9, -81.5 22"),
    "hispaniola": _ring("-74 18.3, -68.5 18.4, -70 19.8, -73 19.9"),
    "hawaii": _ring("-156 19, -154.9 19.5, -155.8 20.2"),
    "south_america": _ring(
        "-77.5 8.4, -75 11, -71.8 12.3, -71.5 11, -67 10.6, -62 10.7, -59 8, -52 4.8, -50 0.5, -44 -2.6, -38.5 -3.7, -35 -6,"
        "-35 -9, -38.5 -13, -39 -18, -41 -22, -44.5 -23, -48.5 -26, -50 -29.5, -53.5 -34, -57 -34.6, -57.8 -38, -62.2 -39,"
        "-65 -41, -65.5 -45, -67.6 -46.5, -66 -48, -69 -51, -68.5 -52.5, -65.3 -54.7, -69 -55.3, -73.5 -52, -75.3 -47,"
        "-73 -41.5, -73.4 -37, -71.5 -31, -70.3 -22, -70.4 -18.4, -76.2 -14, -79.8 -7.2, -81.2 -5, -80 -2.5, -80 0.8, -77.5 3,"
        "-77.3 7"
    ),
}
LAKES: dict[str, Ring] = {
    "caspian": _ring("47.5 45, 51 46.8, 53 45, 50.5 44.5, 53 41, 53.8 37, 50 37.4, 49 40.5"),
    "superior": _ring("-92 46.7, -84.5 46.6, -86 48.7, -89 48.2"),
    "michigan": _ring("-87.6 41.8, -86.4 42, -86.2 44.5, -85 45.9, -87.5 45, -87.9 43"),
    "huron": _ring("-82.5 43.2, -81.6 44, -80 44.7, -82 46, -84 45.8, -83.4 44"),
    "victoria": _ring("31.8 -2.4, 33.8 -2.3, 34.2 0, 32 0.3"),
}
# Ranges as lines of (lng, lat), with half width (km) and height of the ridge (km).
_RANGES: tuple[tuple[Ring, float, float], ...] = (
    (_ring("66 36, 73 35, 78 31.5, 85 28.5, 95 28.5, 103 28"), 420, 4.2),
    (_ring("75 38, 82 43, 92 48, 103 52"), 300, 2.2),
    (_ring("-79 -1, -77 -9, -70 -16, -68 -24, -70 -34, -72 -46"), 230, 3.6),
    (_ring("-76 6, -73 8"), 180, 2.2),
    (_ring("-135 59, -124 53, -115 48, -110 42, -106 36, -104 25, -98 19"), 380, 2.0),
    (_ring("-83 35, -76 41, -71 44.5"), 140, 0.9),
    (_ring("6 44, 8 46.3, 12 47, 15.5 47"), 130, 2.6),
    (_ring("-2 43, 1.5 42.6"), 80, 1.9),
    (_ring("15 44.5, 20 42, 22.5 40"), 130, 1.4),
    (_ring("19 49, 25 47, 25.5 45.4"), 110, 1.2),
    (_ring("40 43.3, 47 42"), 110, 2.7),
    (_ring("30 37.5, 38 38.5, 46 36.5, 51 32, 57 28.5"), 220, 1.8),
    (_ring("-8 31, -3 33, 5 35.5"), 130, 1.9),
    (_ring("38 14, 39 9, 36.5 1, 34 -9, 30 -20, 29 -29"), 260, 1.7),
    (_ring("6.5 60, 9 62, 15 66, 20 69"), 130, 1.2),
    (_ring("58 52, 60 60, 64 67"), 90, 0.9),
    (_ring("120 62, 130 66, 145 64, 160 67"), 300, 1.2),
    (_ring("136 36, 139 36.5"), 100, 1.9),
    (_ring("136 -4, 141 -5, 146 -6.5"), 120, 2.9),
    (_ring("148 -37, 152 -29, 146 -19"), 120, 0.8),
    (_ring("168 -45, 172 -42.5"), 70, 1.9),
    (_ring("-42 73, -38 66"), 500, 2.4),
)


@cache
def _mask() -> npt.NDArray[np.bool_]:
    """Land by (row from the north, column from the west)."""
    size = (360 * _CELLS_PER_DEG, 180 * _CELLS_PER_DEG)
    picture = Image.new("L", size)
    draw = ImageDraw.Draw(picture)
    for rings, shade in ((OUTLINES, 1), (LAKES, 0)):
        for ring in rings.values():
            draw.polygon([((lng + 180) * _CELLS_PER_DEG, (90 - lat) * _CELLS_PER_DEG) for lng, lat in ring], fill=shade)
    return np.asarray(picture).astype(np.bool_)


@cache
def _steps_from_sea() -> npt.NDArray[np.uint8]:
    """Steps of the coarse grid to the next sea, 0 at sea."""
    cells = _COARSE_DEG * _CELLS_PER_DEG
    land = _mask().reshape(180 // _COARSE_DEG, cells, 360 // _COARSE_DEG, cells).mean(axis=(1, 3)) > 0.5
    picture, steps = Image.fromarray((land * 255).astype(np.uint8)), land.astype(np.uint8)
    for _ in range(12):
        picture = picture.filter(ImageFilter.MinFilter(3))
        steps += np.asarray(picture) > 0
    return steps


def on_land(lat_deg: float, lng_deg: float) -> bool:
    """Whether a position lies on land, to a quarter of a degree."""
    row = min(int((90 - lat_deg) * _CELLS_PER_DEG), 180 * _CELLS_PER_DEG - 1)
    return bool(_mask()[row, int((lng_deg + 180) * _CELLS_PER_DEG) % (360 * _CELLS_PER_DEG)])


def continentality(lat_deg: float, lng_deg: float) -> float:
    """From 0 at the sea to 1 deep inside a continent, between the points of a coarse grid along straight lines."""
    row, column = (90 - lat_deg) / _COARSE_DEG - 0.5, (lng_deg + 180) / _COARSE_DEG - 0.5
    top, left = math.floor(row), math.floor(column)
    down, right = row - top, column - left
    steps, rows, columns = _steps_from_sea(), 180 // _COARSE_DEG, 360 // _COARSE_DEG
    total = 0.0
    for r, weight in ((top, 1 - down), (top + 1, down)):
        for c, share in ((left, 1 - right), (left + 1, right)):
            total += weight * share * float(steps[min(max(r, 0), rows - 1), c % columns])
    return min(total / 8, 1.0)


def elevation_km(lat_deg: float, lng_deg: float) -> float:
    """Height of the land by its great ranges alone, kilometres; smooth."""
    scale = math.cos(math.radians(lat_deg))
    height = 0.0
    for line, half_width_km, top_km in _RANGES:
        distance = min(_from_line_deg(lat_deg, lng_deg, scale, a, b) for a, b in pairwise(line)) * _DEG_KM
        if distance < 2.5 * half_width_km:
            height = max(height, top_km * math.exp(-((distance / half_width_km) ** 2)))
    return height


def _from_line_deg(lat_deg: float, lng_deg: float, scale: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    ax, ay = (a[0] - lng_deg) * scale, a[1] - lat_deg
    bx, by = (b[0] - a[0]) * scale, b[1] - a[1]
    along = min(max(-(ax * bx + ay * by) / (bx * bx + by * by), 0.0), 1.0)
    return math.hypot(ax + along * bx, ay + along * by)
