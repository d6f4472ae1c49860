"""A made-up town for the pages: its outline, districts, places, views and answers, all from one seed."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from shapely import voronoi_polygons
from shapely.geometry import MultiPoint, Point, Polygon, mapping

from geoloc_dagster.geo.distance import great_circle_m

RADII_M = (25, 50, 100, 250, 500, 1000)
EXPERTS = ("retrieval", "cells", "scenes")
HEADINGS = (0.0, 90.0, 180.0, 270.0)
NAMES = (
    "Norra hamnen",
    "Kvarnbacken",
    "Gamla torget",
    "Strandängen",
    "Östra parken",
    "Fabriksholmen",
    "Söderhöjd",
    "Lillsjön",
    "Västra porten",
)
STATUSES = ("collected", "collected", "collected", "collected", "empty", "pending", "failed", "new")
CREDIT = {"attribution": "Emulated city", "licence": "CC0-1.0"}
SCORE_M = 900.0
_OUTLINE = [
    (18.020, 59.300),
    (18.045, 59.292),
    (18.080, 59.295),
    (18.098, 59.306),
    (18.092, 59.322),
    (18.070, 59.332),
    (18.048, 59.329),
    (18.030, 59.321),
    (18.018, 59.312),
]


@dataclass(frozen=True)
class Place:
    """A place with views of several years."""

    location_id: str
    lat_deg: float
    lng_deg: float
    series: str
    status: str
    years: tuple[int, ...]

    def views(self) -> list[dict[str, Any]]:
        """Every view, oldest first, as `GET /locations/{id}` lists them."""
        return [
            {
                "capture_id": f"{self.location_id}-{year}-{heading:.0f}",
                "url": f"/views/{self.location_id}-{year}-{heading:.0f}",
                "captured_on": f"{year}-07-{1 + len(self.location_id):02d}",
                "heading_deg": heading,
                "rotation": None,
                "view": f"{heading:.0f}",
                "flags": ["dark"] if year == self.years[0] and heading == 0 else [],
                **CREDIT,
            }
            for year in self.years
            for heading in HEADINGS
        ]


class City:
    """The town; `n_places` above the pages' limit makes them use tiles."""

    def __init__(self, n_places: int = 420, *, districts: bool = True, calibrated: bool = True) -> None:
        self.n_places = n_places
        self.calibrated = calibrated
        self.outline = Polygon(_OUTLINE, [[(18.060, 59.308), (18.066, 59.308), (18.066, 59.312), (18.060, 59.312)]])
        self.has_districts = districts

    @cached_property
    def districts(self) -> list[tuple[str, Polygon]]:
        """Name and outline of every district."""
        if not self.has_districts:
            return []
        random = np.random.default_rng(3)
        seeds = MultiPoint([self._inside(random) for _ in NAMES])
        parts = voronoi_polygons(seeds, extend_to=self.outline.envelope).geoms
        return [(name, part.intersection(self.outline)) for name, part in zip(NAMES, parts, strict=True)]

    @cached_property
    def places(self) -> list[Place]:
        """Places along made-up streets."""
        random = np.random.default_rng(5)
        return [self._place(i, random) for i in range(self.n_places)]

    def district_of(self, lat_deg: float, lng_deg: float) -> str | None:
        """The district that a position lies in."""
        here = Point(lng_deg, lat_deg)
        return next((name for name, part in self.districts if part.contains(here)), None)

    @cached_property
    def samples(self) -> list[Place]:
        """The places whose views are held out."""
        return [place for place in self.places if place.years][:12]

    def answer(self, seed: int, *, coverage: float, at: tuple[float, float] | None = None) -> dict[str, Any]:
        """What a model might say; near `at` where given. Every ninth seed is refused."""
        random = np.random.default_rng(seed)
        lat, lng = at or self._position(random)
        lat, lng = lat + random.normal(0, 0.001), lng + random.normal(0, 0.002)
        refused = at is None and seed % 9 == 4
        share = float(random.uniform(0.15, 0.6))
        within = {str(r): round(1 - math.exp(-r / (900 * (1 - share))), 4) for r in RADII_M}
        region = Point(lng, lat).buffer(0.004 * coverage + 0.001, 10)
        shares = self._shares(lat, lng)
        return {
            "photo": f"photo-{seed}",
            "lat_deg": lat,
            "lng_deg": lng,
            "answered": not refused,
            "refusal": "outside this region, or like nothing of it (5% of its own photos are refused so)" if refused else None,
            "probability_within_m": within if self.calibrated else None,
            "region": {"coverage": coverage, "area_km2": 0.34 * coverage, "geometry": mapping(region)}
            if self.calibrated
            else None,
            "district": self.district_of(lat, lng),
            "districts": shares,
            "experts": {
                name: {"lat_deg": lat + random.normal(0, 0.002), "lng_deg": lng + random.normal(0, 0.004), "weight": weight}
                for name, weight in zip(EXPERTS, (1.0, 0.6, 0.25), strict=True)
            }
            if self.calibrated
            else None,
            "candidates": [self._candidate(rank, lat, lng, random) for rank in range(1, 6)],
            "cells": [{"token": f"465f{i:04x}", "probability": share / (i + 1)} for i in range(5)],
            "heat": self._heat(lat, lng),
            "release": "2026-11-28-8a03c9f1ac8d",
            "seconds": 0.183,
            "calibrated": self.calibrated,
        }

    def _inside(self, random: np.random.Generator) -> Point:
        west, south, east, north = self.outline.bounds
        while True:
            at = Point(random.uniform(west, east), random.uniform(south, north))
            if self.outline.contains(at):
                return at

    def _position(self, random: np.random.Generator) -> tuple[float, float]:
        at = self._inside(random)
        return at.y, at.x

    def _place(self, i: int, random: np.random.Generator) -> Place:
        while True:
            lat, lng = self._position(random)
            along = random.random() < 0.5
            lat, lng = (round(lat / 0.0025) * 0.0025, lng) if along else (lat, round(lng / 0.004) * 0.004)
            if self.outline.contains(Point(lng, lat)):
                break
        status = STATUSES[int(random.integers(len(STATUSES)))]
        first = int(random.integers(2009, 2020))
        years = tuple(sorted({first, first + 3, int(random.integers(first, 2026))})) if status == "collected" else ()
        return Place(f"p{i:05d}", lat, lng, ("100m", "75m", "60m")[i % 3], status, years)

    def _shares(self, lat: float, lng: float) -> list[dict[str, Any]]:
        here = Point(lng, lat)
        weights = np.array([math.exp(-part.distance(here) / 0.004) for _, part in self.districts])
        total = weights.sum() if len(weights) else 1.0
        shares = [{"name": name, "probability": float(w / total)} for (name, _), w in zip(self.districts, weights, strict=True)]
        return sorted(shares, key=lambda one: -one["probability"])

    def _candidate(self, rank: int, lat: float, lng: float, random: np.random.Generator) -> dict[str, Any]:
        held = [place for place in self.places if place.years]
        place = min(held, key=lambda p: abs(great_circle_m(lat, lng, p.lat_deg, p.lng_deg) - rank * 150))
        away = float(great_circle_m(lat, lng, place.lat_deg, place.lng_deg))
        captures = [
            {**view, "similarity": round(0.9 - 0.07 * rank - 0.01 * i, 3), "shared_features": None if rank > 3 else 90 // rank}
            for i, view in enumerate(place.views()[:2])
        ]
        return {
            "rank": rank,
            "location_id": place.location_id,
            "lat_deg": place.lat_deg,
            "lng_deg": place.lng_deg,
            "confidence": 0.5 / rank**1.4,
            "distance_m": away,
            "captures": captures,
        }

    def _heat(self, lat: float, lng: float) -> dict[str, Any]:
        size_lat, size_lng = 0.0009, 0.0018
        features: list[dict[str, Any]] = []
        for i in range(-9, 10):
            for j in range(-9, 10):
                p = 0.04 * math.exp(-((i - 1) ** 2 + j**2) / 12) + 0.015 * math.exp(-((i + 5) ** 2 + (j - 4) ** 2) / 5)
                if p < 0.0004:
                    continue
                south, west = lat + (i - 0.5) * size_lat, lng + (j - 0.5) * size_lng
                ring = [
                    [west, south],
                    [west + size_lng, south],
                    [west + size_lng, south + size_lat],
                    [west, south + size_lat],
                    [west, south],
                ]
                features.append(
                    {"type": "Feature", "properties": {"probability": p}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
                )
        return {"type": "FeatureCollection", "features": features}


@lru_cache(maxsize=512)
def view_jpeg(name: str) -> bytes:
    """A street that no one has seen: sky, houses, road, all from the name."""
    random = np.random.default_rng(list(name.encode()))
    image = Image.new("RGB", (224, 224), (150 + int(random.integers(70)), 190, 215))
    draw = ImageDraw.Draw(image)
    x = 0
    while x < 224:
        width, top = int(random.integers(30, 70)), int(random.integers(30, 110))
        wall = tuple(int(c) for c in random.integers(90, 220, 3))
        draw.rectangle((x, top, x + width, 160), fill=wall)
        for wx in range(x + 6, x + width - 8, 14):
            for wy in range(top + 8, 150, 20):
                draw.rectangle((wx, wy, wx + 7, wy + 11), fill=(60, 70, 85))
        x += width
    draw.polygon([(0, 224), (224, 224), (150, 160), (80, 160)], fill=(95, 98, 100))
    draw.polygon([(108, 224), (116, 224), (113, 160), (111, 160)], fill=(225, 225, 215))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def chart_png(title: str) -> bytes:
    """A picture in place of an evaluation's."""
    image = Image.new("RGB", (640, 400), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 40, 610, 350), outline=(90, 100, 110))
    draw.line([(60, 350), (200, 220), (360, 140), (610, 80)], fill=(0, 114, 178), width=4)
    draw.text((70, 12), title, fill=(20, 20, 20))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def age_on(year: int, today: date = date(2026, 6, 30)) -> int:
    """Whole years since a year's summer."""
    return today.year - year
