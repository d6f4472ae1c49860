"""Asking for tiles and entities together: each once, across the edges of tiles, and again only after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest

from geoloc_dagster.geo.mercator import tile_degrees, tile_position
from geoloc_dagster.imagery.google import SAME_PLACE_M
from geoloc_dagster.imagery.mapillary import _promising  # type: ignore[reportPrivateUsage]
from geoloc_dagster.imagery.provider import RequestFailedError
from geoloc_dagster.imagery.tile_index import ZOOM, Spot, TileIndex
from geoloc_dagster.imagery.together import Together
from geoloc_dagster.imagery.vector_tiles import Point

COUNT = 1 << ZOOM


class Tiles:
    """A service with one picture at each position; counts the tiles that it is asked for."""

    def __init__(self, *positions: tuple[float, float]) -> None:
        self.points: dict[tuple[int, int], list[Point]] = {}
        for number, (lat, lng) in enumerate(positions):
            x, y = tile_position(lat, lng, ZOOM)
            at = (int(x) % COUNT, int(y))
            self.points.setdefault(at, []).append(Point(x - int(x), y - int(y), {"id": number, "captured_at": 86_400_000 * 9}))
        self.asked: list[tuple[int, int]] = []
        self.failures = 0

    async def ask(self, column: int, row: int) -> list[Point]:
        self.asked.append((column, row))
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise RequestFailedError("network", "away", retryable=True)
        return self.points.get((column, row), [])


def corner() -> tuple[float, float]:
    """Where four tiles meet."""
    x, y = tile_position(59.33, 18.07, ZOOM)
    lat, lng = tile_degrees(np.array([float(int(x))]), np.array([float(int(y))]), ZOOM)
    return float(lat[0]), float(lng[0])


def test_where_four_tiles_meet_all_of_them_count_and_the_nearest_is_first():
    lat, lng = corner()
    positions = [
        (lat + 9e-5, lng + 9e-5),
        (lat - 5e-5, lng - 5e-5),
        (lat + 2e-5, lng - 2e-5),
        (lat - 1e-5, lng + 1e-5),
        (lat + 1e-2, lng),
    ]
    tiles = Tiles(*positions)
    index = TileIndex(tiles.ask)

    async def ask() -> list[Spot]:
        await asyncio.gather(*(index.near(lat, lng, 20) for _ in range(5)))
        return await index.near(lat, lng, 20)

    found = asyncio.run(ask())
    assert [spot.image_id for spot in found] == ["3", "2", "1", "0"]
    assert len(tiles.asked) == len(set(tiles.asked)) == 4
    for spot in found:
        assert (spot.lat_deg, spot.lng_deg) == pytest.approx(positions[int(spot.image_id)], abs=1e-9)


def test_the_antimeridian_is_no_border():
    tiles = Tiles((10.0, 179.99999), (10.0, -179.99999))
    for lng in (179.99998, -179.99998):
        found = asyncio.run(TileIndex(tiles.ask).near(10.0, lng, 20))
        assert {spot.image_id for spot in found} == {"0", "1"}


def test_a_tile_that_failed_is_asked_for_again():
    tiles = Tiles((59.33, 18.07))
    tiles.failures = 1
    index = TileIndex(tiles.ask)

    async def ask() -> list[Spot]:
        with pytest.raises(RequestFailedError):
            await index.near(59.33, 18.07, 1)
        return await index.near(59.33, 18.07, 1)

    assert len(asyncio.run(ask())) == 1
    assert len(tiles.asked) == 2


def test_points_without_an_id_or_with_a_strange_date_do_no_harm():
    async def ask(column: int, row: int) -> list[Point]:
        said = [{}, {"id": "text"}, {"id": 7, "captured_at": "soon"}, {"id": 8, "captured_at": 1 << 60}, {"id": 9, "is_pano": 1}]
        return [Point(0.5, 0.5, dict(one)) for one in said]

    x, y = tile_position(59.33, 18.07, ZOOM)
    lat, lng = tile_degrees(np.array([int(x) + 0.5]), np.array([int(y) + 0.5]), ZOOM)
    found = asyncio.run(TileIndex(ask).near(float(lat[0]), float(lng[0]), 5))
    assert [(spot.image_id, spot.captured_ms, spot.is_pano) for spot in found] == [
        ("7", 0, False),
        ("8", 0, False),
        ("9", 0, False),
    ]


def test_of_a_crowded_place_only_the_most_promising_of_each_day_are_looked_at():
    day_ms = 86_400_000
    near = [Spot(str(n), 0.0, 0.0, n / 10, day_ms * (100 + n % 2), n == 140) for n in range(SAME_PLACE_M * 10)]
    assert sorted(_promising(near)) == ["0", "1", "140", "2", "3", "5"]


class Entities:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.failures = 0

    async def ask(self, ids: list[str]) -> Mapping[str, int]:
        self.asked.append(list(ids))
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise RequestFailedError("network", "away", retryable=True)
        return {one: int(one) for one in ids if one != "13"}


def test_what_many_ask_at_once_goes_in_few_questions_and_once():
    entities = Entities()

    async def ask() -> list[dict[str, int]]:
        together = Together(entities.ask, 50)
        answers = await asyncio.gather(*(together.get([str(n), str(n + 1)]) for n in range(120)))
        assert await together.get(["5", "13", "6"]) == {"5": 5, "6": 6}
        return answers

    answers = asyncio.run(ask())
    assert answers[0] == {"0": 0, "1": 1}
    assert answers[13] == {"14": 14}  # 13 is unknown, which is an answer as well
    assert [len(ids) for ids in entities.asked] == [50, 50, 21]


def test_a_failure_reaches_all_who_asked_and_is_not_remembered():
    entities = Entities()
    entities.failures = 1

    async def ask() -> None:
        together = Together(entities.ask, 50)
        outcomes = await asyncio.gather(together.get(["1"]), together.get(["2"]), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [RequestFailedError] * 2
        assert await together.get(["1", "2"]) == {"1": 1, "2": 2}
        together.forget("1")
        assert await together.get(["1", "2"]) == {"1": 1, "2": 2}

    asyncio.run(ask())
    assert entities.asked == [["1", "2"], ["1", "2"], ["1"]]


def test_whoever_stops_waiting_does_not_take_the_answer_from_the_others():
    entities = Entities()

    async def ask() -> dict[str, int]:
        together = Together(entities.ask, 50)
        impatient = asyncio.create_task(together.get(["1"]))
        patient = asyncio.create_task(together.get(["1"]))
        await asyncio.sleep(0)
        impatient.cancel()
        answer = await patient
        await together.close()
        return answer

    assert asyncio.run(ask()) == {"1": 1}
