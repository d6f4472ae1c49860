"""The signs by which a photo of elsewhere is known, on a row of places 150 m apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geoloc_dagster.geo.answer_grid import AnswerGrid, build_grid
from geoloc_dagster.prediction.experts import Hits
from geoloc_dagster.prediction.panel import HitsExpert, PlacesExpert, view_table
from geoloc_dagster.prediction.signs import signs_of
from geoloc_dagster.retrieval.place_head import PlaceHead

PLACES, PICTURES = 40, 3
LAT, LNG = np.full(PLACES, 45.0), -30 + np.arange(PLACES) * 150 / (111_195 * np.cos(np.radians(45)))


@pytest.fixture(scope="module")
def grid() -> AnswerGrid:
    return build_grid(LAT, LNG, inside=(LAT, LNG), finest_level=20)


def views_of(cells: np.ndarray, grid: AnswerGrid, name: str = "places") -> PlacesExpert:
    head = PlaceHead(np.zeros((len(cells), 2), np.float32), 1.0)
    return PlacesExpert("m", head, view_table(cells, grid), grid, name)


def experts(grid: AnswerGrid, *beside: str) -> list[Any]:
    cells = grid.cells_of(LAT, LNG)
    gallery = np.repeat(cells, PICTURES)

    def search(vectors: np.ndarray, k: int) -> Any:
        raise AssertionError("signs are of what was found already")

    return [
        expert
        for name in ("", *beside)
        for expert in (
            HitsExpert("m", search, gallery, grid, f"retrieval{name}"),
            views_of(cells, grid, f"places{name}"),
        )
    ]


def hits_at(grid: AnswerGrid, *order: int) -> Hits:
    """All pictures, those of the named places first."""
    places = np.concatenate([order, np.setdiff1d(np.arange(PLACES), order)]).astype(int).repeat(PICTURES)
    return Hits(np.linspace(0.95, 0.05, places.size)[None], grid.cells_of(LAT, LNG)[places][None])


def views_at(place: int, sure: float) -> np.ndarray:
    said = np.full((1, PLACES), (1 - sure) / (PLACES - 1))
    said[0, place] = sure
    return np.log(said).astype(np.float32)


def test_a_photo_without_its_own_place_is_seen_by_what_is_left(grid: AnswerGrid):
    panel = experts(grid)
    found = {"retrieval": hits_at(grid, 7, 8, 9), "places": views_at(7, 0.9)}
    as_it_is, without = signs_of(panel, found), signs_of(panel, found, (LAT[[7]], LNG[[7]]))
    assert as_it_is["similarity_1"][0] == pytest.approx(0.95)
    assert without["similarity_1"][0] == pytest.approx(found["retrieval"].similarity[0, PICTURES])
    assert as_it_is["together_5"][0] == without["together_5"][0] == pytest.approx(PICTURES / 5)
    assert as_it_is["best_view"][0] == pytest.approx(np.log(0.9), abs=1e-4)
    assert without["best_view"][0] == pytest.approx(np.log(1 / (PLACES - 1)), abs=1e-4)  # what is left sums to one
    assert without["entropy"][0] == pytest.approx(np.log(PLACES - 1), abs=1e-3)
    assert as_it_is["next_place"][0] == pytest.approx(np.log(0.1 / (PLACES - 1)), abs=1e-3)
    elsewhere = signs_of(panel, found, (LAT[[30]], LNG[[30]]))  # a place that it does not find says nothing
    assert elsewhere["similarity_1"][0] == as_it_is["similarity_1"][0]


def test_pictures_that_are_all_of_one_place_leave_nothing(grid: AnswerGrid):
    found = {"retrieval": hits_at(grid, 7)}
    here = grid.cells_of(LAT, LNG)[[7, 7]]
    everywhere = Hits(found["retrieval"].similarity, np.full_like(found["retrieval"].cells, here[0]))
    panel, views = [experts(grid)[0], views_of(here, grid)], np.log([[0.9, 0.1]])
    signs = signs_of(panel, {"retrieval": everywhere, "places": views}, (LAT[[7]], LNG[[7]]))
    assert all(np.isfinite(values).all() for values in signs.values())
    assert signs["similarity_1"][0] == pytest.approx(0.05)
    assert signs["entropy"][0] == pytest.approx(np.log(2))


def test_views_of_one_place_are_one(grid: AnswerGrid):
    """Two views of a place share what is said of it; a third lies elsewhere."""
    panel = [experts(grid)[0], views_of(grid.cells_of(LAT, LNG)[[7, 7, 20]], grid)]
    signs = signs_of(panel, {"retrieval": hits_at(grid, 7), "places": np.log([[0.5, 0.3, 0.2]])})
    assert signs["best_view"][0] == pytest.approx(np.log(0.5))
    assert signs["best_place"][0] == pytest.approx(np.log(0.8))
    assert signs["next_place"][0] == pytest.approx(np.log(0.2))


def test_networks_agree_where_their_hits_lie_in_the_same_cells(grid: AnswerGrid):
    panel, views = experts(grid, ":b"), views_at(7, 0.9)

    def agreement(first: Hits, second: Hits) -> float:
        found = {"retrieval": first, "places": views, "retrieval:b": second, "places:b": views}
        return float(signs_of(panel, found)["agrees:b"][0])

    here, there, mixed = hits_at(grid, *range(7)), hits_at(grid, *range(20, 27)), hits_at(grid, *range(6, -1, -1))
    nothing = agreement(here, there)
    assert agreement(here, here) > agreement(here, mixed) > nothing  # the first hits weigh most
    nowhere = Hits(here.similarity, np.full_like(here.cells, -1))
    assert agreement(nowhere, nowhere) == nothing  # off the grid is nowhere


def test_too_few_pictures_say_nothing(grid: AnswerGrid):
    few = hits_at(grid, 7)
    found = {"retrieval": Hits(few.similarity[:, :20], few.cells[:, :20]), "places": views_at(7, 0.9)}
    assert signs_of(experts(grid), found) == {}
