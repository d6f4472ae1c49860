"""The expert that compares the nearest pictures feature by feature, on places whose networks find the wrong ones first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from geoloc_dagster.geo.answer_grid import AnswerGrid, build_grid
from geoloc_dagster.prediction.experts import GridParameters, Hits, best_votes, votes_on_grid
from geoloc_dagster.prediction.panel import HitsExpert, Photos, PlacesExpert, view_table
from geoloc_dagster.prediction.signs import signs_of
from geoloc_dagster.prediction.verification import COMPARED, VerificationExpert
from geoloc_dagster.retrieval.local_features import SIDE, local_features
from geoloc_dagster.retrieval.local_gallery import LocalGallery
from geoloc_dagster.retrieval.place_head import PlaceHead
from geoloc_dagster_tests.retrieval.facades import facade

PLACES, DAYS = 14, 3
LAT, LNG = np.full(PLACES, 45.0), -30 + np.arange(PLACES) * 150 / (111_195 * np.cos(np.radians(45)))
ROWS = PLACES * DAYS  # place by place


@pytest.fixture(scope="module")
def grid() -> AnswerGrid:
    return build_grid(LAT, LNG, inside=(LAT, LNG), finest_level=20)


def pixels(place: int, day: int) -> np.ndarray:
    return np.asarray(facade(place, day).resize((SIDE, SIDE)))


@pytest.fixture(scope="module")
def gallery() -> LocalGallery:
    features = [local_features(pixels(place, day)) for place in range(PLACES) for day in range(DAYS)]
    return LocalGallery(np.concatenate(features), np.cumsum([0, *(len(one) for one in features)]))


def expert_over(gallery: LocalGallery, grid: AnswerGrid, rows: np.ndarray, *sources: str) -> VerificationExpert:
    place = rows // DAYS
    of_classes = np.array([[*np.flatnonzero(place == one), -1, -1, -1][:3] for one in range(PLACES)])
    cells = grid.cells_of(LAT[place], LNG[place])
    return VerificationExpert(sources or ("retrieval",), gallery, rows, place, of_classes, cells, grid)


def hits_on(rows: Sequence[Sequence[int]], expert: VerificationExpert) -> Hits:
    named = np.array(rows)
    return Hits(np.tile(np.linspace(0.9, 0.1, named.shape[1]), (len(named), 1)), expert.cells[named], named)


def photos_of(*places: int) -> Photos:
    """Of a day that is not in the gallery."""
    pictures = np.stack([pixels(place, 9) for place in places]).transpose(0, 3, 1, 2)

    def of_side(side: int) -> np.ndarray:
        assert side == SIDE
        return pictures

    return Photos({}, of_side)


def test_the_right_place_wins_where_the_networks_have_it_last(gallery: LocalGallery, grid: AnswerGrid):
    expert = expert_over(gallery, grid, np.arange(ROWS))
    wrong = [place * DAYS for place in range(2, 12)]
    found = {"retrieval": hits_on([[*wrong, 1 * DAYS], [*wrong, 0]], expert)}
    seen = expert.look(photos_of(1, 0), found)
    said = expert.say(seen, GridParameters(0.02, 0.01))
    assert grid.ids[said.argmax(axis=1)].tolist() == grid.ids[grid.cells_of(LAT[[1, 0]], LNG[[1, 0]])].tolist()
    np.testing.assert_allclose(np.exp(said.astype(float)).sum(axis=1), 1, atol=1e-4)


def test_of_a_view_two_pictures_are_compared_and_of_networks_each_in_turn(gallery: LocalGallery, grid: AnswerGrid):
    expert = expert_over(gallery, grid, np.arange(ROWS), "retrieval", "retrieval:wide")
    first, second = [0, 1, 2, 3, 4, -1], [6, 7, 8, 1, 10, 11]
    found = {"retrieval": hits_on([first], expert), "retrieval:wide": hits_on([second], expert)}
    compared = expert.look(photos_of(0), found).hits
    assert compared.rows is not None
    assert compared.rows[0].tolist() == [0, 6, 1, 7, 3, 4, 10, 11, *[-1] * (COMPARED - 8)]
    assert (compared.cells[0, 8:] == -1).all()
    assert (compared.similarity[0, 8:] < compared.similarity[0, :8].min()).all()


def test_what_the_expert_of_views_holds_likeliest_is_compared_too(gallery: LocalGallery, grid: AnswerGrid):
    expert = expert_over(gallery, grid, np.arange(ROWS), "retrieval", "places")
    views = np.log(np.linspace(0.01, 0.1, PLACES))[None].astype(np.float32)  # the last is the likeliest
    views[0, PLACES - 2] = -np.inf  # hidden
    compared = expert.look(photos_of(0), {"retrieval": hits_on([[0, 1, 3]], expert), "places": views}).hits
    assert compared.rows is not None
    first, last, third = (DAYS * place for place in (0, PLACES - 1, PLACES - 3))
    assert compared.rows[0, :6].tolist() == [first, last, first + 1, last + 1, DAYS, third]
    assert not {DAYS * (PLACES - 2), DAYS * (PLACES - 2) + 1} & set(compared.rows[0].tolist())


def test_hits_name_rows_of_the_gallery_and_not_of_the_index(gallery: LocalGallery, grid: AnswerGrid):
    """A gallery without the places of even number: its row 0 is row 3 of the index."""
    rows = np.flatnonzero((np.arange(ROWS) // DAYS) % 2 == 1)
    expert = expert_over(gallery, grid, rows)
    found = {"retrieval": hits_on([list(range(len(rows)))[: 5 * DAYS]], expert)}
    seen = expert.look(photos_of(3), found)
    best = int(seen.hits.similarity[0].argmax())
    assert seen.hits.rows is not None
    assert rows[seen.hits.rows[0, best]] // DAYS == 3
    assert seen.hits.cells[0, best] == grid.cells_of(LAT, LNG)[3]


def test_what_two_pictures_share_by_chance_says_nothing(grid: AnswerGrid):
    cells = np.array([[3, 5, 7]])
    told = GridParameters(0.01, 0.001, nothing=0.2)
    by_chance = np.exp(votes_on_grid(Hits(np.array([[0.15, 0.14, 0.13]]), cells), grid, told).astype(float))
    np.testing.assert_allclose(by_chance[0], grid.prior, atol=0.01)
    shared = np.exp(votes_on_grid(Hits(np.array([[0.3, 0.14, 0.13]]), cells), grid, told).astype(float))
    assert shared[0, 3] > 0.99
    taken_at_their_word = votes_on_grid(Hits(np.array([[0.15, 0.14, 0.13]]), cells), grid, GridParameters(0.01, 0.001))
    assert np.exp(taken_at_their_word[0, 3]) > 0.6
    for said in (by_chance, shared):
        assert said.sum() == pytest.approx(1, abs=1e-4)


def test_how_much_is_shared_by_chance_is_learned(grid: AnswerGrid):
    """Of ten photos five share 40 features with the right place; five share 14 with a wrong one."""
    right, wrong = np.log2(41) / 20, np.log2(15) / 20
    hits = Hits(np.array([[right, wrong]] * 5 + [[wrong, wrong]] * 5), np.array([[1, 2]] * 5 + [[3, 4]] * 5))
    truth = np.array([1] * 5 + [7] * 5)
    chances = (0.05, 0.22, 0.4)
    assert best_votes(hits, grid, truth, (0.01,), chances).nothing == 0.22


def test_some_photos_of_many_are_taken_with_their_features(gallery: LocalGallery, grid: AnswerGrid):
    expert = expert_over(gallery, grid, np.arange(ROWS))
    found = {"retrieval": hits_on([[0, 3, 6], [3, 6, 9], [6, 9, 12]], expert)}
    seen = expert.look(photos_of(0, 1, 2), found)
    part = seen.take(np.array([2, 0]))
    np.testing.assert_array_equal(part.features[0], seen.features[2])
    np.testing.assert_array_equal(part.hits.similarity, seen.hits.similarity[[2, 0]])


def test_a_photo_whose_place_is_hidden_shares_nothing_with_what_is_left(gallery: LocalGallery, grid: AnswerGrid):
    cells = grid.cells_of(LAT, LNG)

    def search(vectors: np.ndarray, k: int) -> Any:
        raise AssertionError("signs are of what was found already")

    verification = expert_over(gallery, grid, np.arange(ROWS), "retrieval", "places")
    panel: list[Any] = [
        HitsExpert("m", search, np.repeat(cells, DAYS), grid, "retrieval"),
        PlacesExpert("m", PlaceHead(np.zeros((PLACES, 2), np.float32), 1.0), view_table(cells, grid), grid, "places"),
        verification,
    ]
    order = [*range(ROWS)]
    hits = hits_on([order, order], verification)
    found: dict[str, Any] = {"retrieval": hits, "places": np.full((2, PLACES), -np.log(PLACES), np.float32)}
    found["verification"] = verification.look(photos_of(0, 0), found)
    own = signs_of(panel, found)
    hidden = signs_of(panel, found, (LAT[[0, 0]], LNG[[0, 0]]))
    assert (own["shared"] > hidden["shared"] + 0.05).all()  # a doubling
    assert (own["shared_next"] > hidden["shared_next"]).all()
    assert own["shared_first"].tolist() == [1, 1]  # what is shared most lies where the network's first does
    assert (own["shared_elsewhere"] < own["shared"]).all()
