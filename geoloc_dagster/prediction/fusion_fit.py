"""Fit a fusion on photos that no expert learned from, and calibrate it on the same photos without looking at them twice.

The few numbers of the fit (temperature, floor, weights) are fitted on half of the places and tried on the other half, and the
other way round; probabilities and regions are calibrated on what was so said of all of them, and the numbers themselves are then
fitted on all. A conformal region needs many places, and half of them would hold its promise half as closely. Both halves keep
places together, because the pictures of a place are found or missed together.

The questions are the newest pictures of dev (of photo regions: all photos of dev), asked of a gallery without the newest pictures
of dev and test. Source: Vovk, Cross-conformal predictors, Annals of Mathematics and Artificial Intelligence 74 (2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from geoloc_dagster.config.settings import COVERAGES
from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.geo.answer_grid import AnswerGrid
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.prediction.answers import answer_on_grid
from geoloc_dagster.prediction.calibration import Familiarity, fit_beta_map, fit_familiarity, halves_by_place
from geoloc_dagster.prediction.experts import F32, F64, I64, Hits, Verified, joint
from geoloc_dagster.prediction.fitting import fit_weights
from geoloc_dagster.prediction.fusion import ExpertFit, Fusion
from geoloc_dagster.prediction.panel import Expert
from geoloc_dagster.prediction.regions import away_where_right, conformal_bound, learn_inside, log_areas, true_places
from geoloc_dagster.prediction.signs import signs_of

_LEAST_PLACES = 20


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Where N photos were taken; `places` keeps together what is found or missed together."""

    lat_deg: F64
    lng_deg: F64
    places: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.places)


def fit_fusion(
    experts: Sequence[Expert],
    found: Mapping[str, Any],
    truth: Truth,
    grid: AnswerGrid,
    radii_m: Sequence[int],
    *,
    refused: float,
    largest_region_km2: float | None,
    away_m: F64 | None = None,
    seed: int = 0,
) -> Fusion:
    """Fit how experts are brought to the grid, weighed, and calibrated.

    Args:
        experts: that take part.
        found: what each saw of the photos, by name.
        truth: where these were taken.
        grid: on which they speak.
        radii_m: for which a probability is calibrated.
        refused: share of the region's own photos that may be taken for another's.
        largest_region_km2: an answer with a larger region is no answer.
        away_m: how far pictures of places are taken from where an earlier one was, of as many places as are known; without
            twenty of them the photos themselves say it.
        seed: of the halves.

    Raises:
        NotEnoughDataError: fewer than 20 places.
    """
    count = len(np.unique(truth.places))
    if count < _LEAST_PLACES:
        raise NotEnoughDataError(
            f"only {count} places of the split dev can be asked about, fewer than the {_LEAST_PLACES} that a calibration needs",
            "Give `splits.dev_share` more, or collect more places with two dates.",
        )
    where = true_places(grid, truth.lat_deg, truth.lng_deg)
    cells = where.cells
    first = halves_by_place(truth.places, seed)
    fused = np.empty((len(truth), len(grid)), np.float32)
    for half in (first, ~first):
        others = _fit(experts, found, grid, cells, half)
        fused[~half] = others.together(experts, {name: _part(one, np.flatnonzero(~half)) for name, one in found.items()}, grid)
    answers = answer_on_grid(fused, grid, radii_m)
    error_m = great_circle_m(truth.lat_deg, truth.lng_deg, grid.lat_deg[answers.cells], grid.lng_deg[answers.cells])
    fitted = _fit(experts, found, grid, cells, np.ones(len(truth), bool), alone=True)
    log_area = log_areas(grid)
    inside = learn_inside(away_where_right(fused, log_area, where) if away_m is None or len(away_m) < _LEAST_PLACES else away_m)
    return Fusion(
        grid,
        fitted.experts,
        fitted.prior_weight,
        tuple(radii_m),
        {radius: fit_beta_map(answers.near[:, number], error_m <= radius) for number, radius in enumerate(radii_m)},
        {coverage: conformal_bound(fused, log_area, cells, coverage, inside) for coverage in COVERAGES},
        inside,
        by_area=True,
        familiarity=_familiarity(experts, found, truth, refused),
        largest_region_km2=largest_region_km2,
    )


@dataclass(frozen=True, slots=True)
class _Fitted:
    """How experts are brought to the grid and weighed, fitted on some photos."""

    experts: dict[str, ExpertFit]
    prior_weight: float

    def together(self, experts: Sequence[Expert], found: Mapping[str, Any], grid: AnswerGrid) -> F32:
        said = {one.name: one.say(found[one.name], self.experts[one.name].parameters) for one in experts}
        return joint(said, grid, {name: fit.weight for name, fit in self.experts.items()}, self.prior_weight)


def _fit(
    experts: Sequence[Expert],
    found: Mapping[str, Any],
    grid: AnswerGrid,
    cells: I64,
    chosen: npt.NDArray[np.bool_],
    *,
    alone: bool = False,
) -> _Fitted:
    """Fit on the chosen photos; `alone` fits the weights with which experts are asked alone too."""
    fits, said = dict[str, ExpertFit](), dict[str, F32]()
    for expert in experts:
        seen = _part(found[expert.name], np.flatnonzero(chosen))
        own = expert.fit(seen, cells[chosen])
        said[expert.name] = expert.say(seen, own)
        weight, prior_weight = fit_weights({expert.name: said[expert.name]}, grid, cells[chosen]) if alone else ({}, 0.0)
        fits[expert.name] = ExpertFit(
            expert.model_version, 0.0, own.floor, own.temperature, weight.get(expert.name, 0.0), prior_weight, own.nothing
        )
    weights, prior_weight = fit_weights(said, grid, cells[chosen])
    return _Fitted({name: replace(fit, weight=weights[name]) for name, fit in fits.items()}, prior_weight)


def say_all(fusion: Fusion, experts: Sequence[Expert], found: Mapping[str, Any]) -> dict[str, F32]:
    """What each expert says of photos that it has looked at, as it was fitted."""
    return {expert.name: expert.say(found[expert.name], fusion.experts[expert.name].parameters) for expert in experts}


def _part(found: Any, rows: I64) -> Any:
    return found.take(rows) if isinstance(found, (Hits, Verified)) else found[rows]


def _familiarity(experts: Sequence[Expert], found: Mapping[str, Any], truth: Truth, refused: float) -> Familiarity | None:
    own = signs_of(experts, found)
    if not own:
        return None
    return fit_familiarity(own, signs_of(experts, found, (truth.lat_deg, truth.lng_deg)), truth.places, refused)
