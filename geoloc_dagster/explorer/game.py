"""The game: rounds of held-out pictures, you against the model; a code is all there is of a game.

A code names seed, rounds and views, and the pictures follow from it and from what is held out, so it can be passed on, and the
server remembers nothing. What a round shows is addressed by its number; where it was taken is said in answer to a guess, and
nowhere before.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoloc_dagster.evaluation.geolocation import geo_score, scale_of
from geoloc_dagster.explorer.places import Places, distinct
from geoloc_dagster.explorer.problems import Problem
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.fused import FusedPrediction, FusedPredictor
from geoloc_dagster.prediction.protocol import Prediction

MOST_ROUNDS = 50
_CODE = re.compile(r"s(?P<seed>\d{1,10})r(?P<rounds>\d{1,2})v(?P<views>[14])")
_HEADINGS = 4


@dataclass(frozen=True, slots=True)
class Game:
    """What a code says."""

    seed: int
    rounds: int
    views: int

    @property
    def code(self) -> str:
        """It, as text."""
        return f"s{self.seed}r{self.rounds}v{self.views}"


def new_game(seed: int | None, rounds: int, views: int) -> Game:
    """A game of a seed, or of one that nobody chose.

    Raises:
        Problem: there is no such game (422).
    """
    chosen = secrets.randbelow(10**6) if seed is None else seed
    if not 0 <= chosen < 10**10:
        raise Problem(422, "a seed is a number from 0 to 9,999,999,999")
    if not 1 <= rounds <= MOST_ROUNDS:
        raise Problem(422, f"a game has 1 to {MOST_ROUNDS} rounds")
    if views not in (1, _HEADINGS):
        raise Problem(422, "a round shows 1 view, or the 4 of a place")
    return Game(chosen, rounds, views)


def read_code(code: str) -> Game:
    """The game of a code; raises Problem (404) where it is none."""
    found = _CODE.fullmatch(code)
    if found is None or not 1 <= int(found["rounds"]) <= MOST_ROUNDS:
        raise Problem(404, "there is no such game; a code looks like s123r10v1")
    return Game(int(found["seed"]), int(found["rounds"]), int(found["views"]))


def rounds_of(game: Game, places: Places) -> list[list[dict[str, Any]]]:
    """The pictures of each round, rows of the catalog; fewer rounds where there are fewer places.

    Raises:
        Problem: nothing is held out that could be shown so (409).
    """
    rows = places.questions().to_pylist() if places.has_catalog else []
    groups: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["location_id"], row["captured_on"]), []).append(row)
    if game.views == _HEADINGS:
        shown = {key: _of_headings(views) for key, views in groups.items()}
        groups = {key: views for key, views in shown.items() if len(views) == _HEADINGS}
    ordered = [
        {"place": location, "view": f"{day} {row['view']}", "rows": [row] if game.views == 1 else views}
        for (location, day), views in groups.items()
        for row in (views if game.views == 1 else views[:1])
    ]
    chosen = [item["rows"] for item in distinct(ordered, game.seed, game.rounds, of="place", then="view")]
    if not chosen:
        what = "a picture" if game.views == 1 else "four headings of one place and date"
        raise Problem(409, f"{what} of a held-out place is needed for a game, and the catalog has none")
    return chosen


def round_of(game: Game, number: int, places: Places) -> list[dict[str, Any]]:
    """The pictures of one round, from 1; raises Problem (404) beyond the last."""
    rounds = rounds_of(game, places)
    if not 1 <= number <= len(rounds):
        raise Problem(404, f"the game has {len(rounds)} rounds")
    return rounds[number - 1]


def _of_headings(views: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One picture of each view, in their order; four at most."""
    by_view = {row["view"]: row for row in sorted(views, key=lambda row: row["capture_id"])}
    return [by_view[name] for name in sorted(by_view)][:_HEADINGS]


def judged(lat_deg: float, lng_deg: float, truth: Mapping[str, Any], score_m: float) -> dict[str, float]:
    """A guess, how far off it is, and its GeoScore, which has fallen to 1 / e at `score_m`."""
    distance = float(great_circle_m(lat_deg, lng_deg, truth["lat_deg"], truth["lng_deg"]))
    return {
        "lat_deg": round(lat_deg, 7),
        "lng_deg": round(lng_deg, 7),
        "distance_m": round(distance, 1),
        "score": round(float(geo_score(distance, scale_of(score_m)))),
    }


def together(answers: Sequence[FusedPrediction | Prediction], predictor: FusedPredictor | None) -> dict[str, Any]:
    """One answer of the model, and of each expert, to all views of a round: refusal, position, positions of experts.

    Several views of one place are several looks at it: their log-probabilities add up, less the prior that each of them holds.
    An expert alone says for several views what it says of most of them.
    """
    first = answers[0]
    if isinstance(first, Prediction) or predictor is None:
        best = max(answers, key=lambda one: one.candidates[0].similarity if one.candidates else -1.0)
        return {"refusal": None, "lat_deg": best.lat_deg, "lng_deg": best.lng_deg, "experts": {}}
    fused = [one for one in answers if isinstance(one, FusedPrediction)]
    prior = np.log(predictor.fusion.grid.prior)
    summed = sum(one.log_probabilities.astype(np.float64) for one in fused) - (len(fused) - 1) * prior
    cell = int(np.argmax(summed)) if len(fused) > 1 else None
    grid = predictor.fusion.grid
    refused = [one.refusal for one in fused if one.refusal]
    names = fused[0].experts
    return {
        "refusal": refused[0] if len(refused) == len(fused) else None,
        "lat_deg": first.lat_deg if cell is None else float(grid.lat_deg[cell]),
        "lng_deg": first.lng_deg if cell is None else float(grid.lng_deg[cell]),
        "experts": {name: _most_said([one.experts[name] for one in fused]) for name in names},
    }


def _most_said(said: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The position that lies nearest to all others."""
    lat, lng = (np.array([one[name] for one in said]) for name in ("lat_deg", "lng_deg"))
    apart = great_circle_m(lat[:, None], lng[:, None], lat[None], lng[None]).sum(axis=1)
    return said[int(np.argmin(apart))]
