"""One answer from all experts of a region: their product on the grid, calibrated, with a region and the courage to abstain.

A fusion is a folder that never changes: `fusion.json` (what was fitted), `grid.parquet`, the report of how it did on held-out
places, and a manifest. It belongs to exactly the models and the index that it was fitted with; the release holds them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_dagster.errors import IntegrityError
from geoloc_dagster.geo.answer_grid import AnswerGrid, read_grid
from geoloc_dagster.prediction.answers import answer_on_grid
from geoloc_dagster.prediction.calibration import BetaMap, Familiarity
from geoloc_dagster.prediction.experts import F32, F64, I64, GridParameters, joint
from geoloc_dagster.prediction.regions import Inside, areas_km2, fill_regions, log_areas
from geoloc_dagster.storage import read_json, verify_manifest

FUSION_FILE, GRID_FILE, VIEWS_FILE = "fusion.json", "grid.parquet", "views.parquet"
_REMEDY = "Materialise `fusion` and then `release` again; the last good release stays served."


@dataclass(frozen=True, slots=True)
class ExpertFit:
    """How one expert takes part.

    Attributes:
        model_version: of its model; another one was not fitted, and is refused.
        weight: in the product; 0 leaves it out.
        floor: part of its probability that follows the prior.
        temperature: of votes, and of the probabilities of classifiers.
        alone_weight: with which it is asked alone.
        alone_prior_weight: likewise, of the prior.
        nothing: of votes, see `GridParameters`.
    """

    model_version: str
    weight: float
    floor: float
    temperature: float | None
    alone_weight: float
    alone_prior_weight: float
    nothing: float | None = None

    @property
    def parameters(self) -> GridParameters:
        """How what it finds is brought to the grid."""
        return GridParameters(self.temperature, self.floor, self.nothing)


@dataclass(frozen=True, slots=True, eq=False)
class FusedAnswers:
    """Answers to N photos.

    Attributes:
        lat_deg: (N,).
        lng_deg: (N,).
        cells: (N,) of the grid, in which the answers lie.
        within: (N, radii): calibrated probability that the photo was taken within each radius of the answer.
        regions: (N, grid): how far from its position each cell belongs to the region that holds the place with the coverage asked
            for, see `fill_regions`.
        area_km2: (N,) of these regions.
        log_probabilities: (N, grid).
    """

    lat_deg: F64
    lng_deg: F64
    cells: I64
    within: F64
    regions: F32
    area_km2: F64
    log_probabilities: F32


@dataclass(frozen=True, slots=True, eq=False)
class Fusion:
    """What was fitted.

    Attributes:
        grid: on which all experts speak.
        experts: by name.
        prior_weight: of the prior in the product.
        radii_m: for which there is a probability, ascending.
        maps: radius -> calibration of the probability within it.
        bounds: coverage, such as `0.9` -> the bound of regions that hold so many places.
        inside: how regions fill a cell.
        by_area: whether the densest cells are filled first, not the most probable ones.
        familiarity: which photos look like none of the region; None without an index.
        largest_region_km2: an answer with a larger region is no answer; None where every one is.
    """

    grid: AnswerGrid
    experts: dict[str, ExpertFit]
    prior_weight: float
    radii_m: tuple[int, ...]
    maps: dict[int, BetaMap]
    bounds: dict[float, float]
    inside: Inside
    by_area: bool
    familiarity: Familiarity | None
    largest_region_km2: float | None

    def log_probabilities(self, said: Mapping[str, F32]) -> F32:
        """Of all experts together, over the grid: (N, cells)."""
        used = {name: said[name] for name, fit in self.experts.items() if name in said and fit.weight > 0}
        if not used:
            used = dict(said)
        return joint(used, self.grid, {name: self.experts[name].weight or 1.0 for name in used}, self.prior_weight)

    def alone(self, name: str, said: F32) -> F32:
        """Of one expert, with the weight that suits it alone."""
        fit = self.experts[name]
        return joint({name: said}, self.grid, {name: fit.alone_weight}, fit.alone_prior_weight)

    def positions(self, log_probabilities: F32) -> tuple[F64, F64]:
        """Where the answers of `answers` lie, degrees, (N,) each, without probabilities and regions."""
        cells = answer_on_grid(log_probabilities, self.grid, self.radii_m).cells
        return self.grid.lat_deg[cells], self.grid.lng_deg[cells]

    def answers(self, log_probabilities: F32, coverage: float) -> FusedAnswers:
        """Positions, probabilities and regions.

        Args:
            log_probabilities: over the grid.
            coverage: share of photos whose place the regions are to hold; one of `bounds`.

        Raises:
            KeyError: no region was calibrated for that coverage.
        """
        found = answer_on_grid(log_probabilities, self.grid, self.radii_m)
        within = np.stack([self.maps[radius](found.near[:, number]) for number, radius in enumerate(self.radii_m)], axis=1)
        log_area = log_areas(self.grid) if self.by_area else np.zeros(len(self.grid))
        regions = fill_regions(log_probabilities, log_area, self.bounds[coverage], self.inside)
        return FusedAnswers(
            self.grid.lat_deg[found.cells],
            self.grid.lng_deg[found.cells],
            found.cells,
            np.maximum.accumulate(within, axis=1),  # further is never less likely
            regions,
            areas_km2(regions, self.grid),
            log_probabilities,
        )

    def to_json(self) -> dict[str, Any]:
        """All but the grid, as plain values."""
        return {
            "grid_sha256": self.grid.fingerprint(),
            "experts": {name: asdict(fit) for name, fit in self.experts.items()},
            "prior_weight": self.prior_weight,
            "radii_m": list(self.radii_m),
            "maps": {str(radius): asdict(one) for radius, one in self.maps.items()},
            "bounds": {str(coverage): bound if np.isfinite(bound) else None for coverage, bound in self.bounds.items()},
            "inside": list(self.inside.away_m),
            "by_area": self.by_area,
            "familiarity": None if self.familiarity is None else asdict(self.familiarity),
            "largest_region_km2": self.largest_region_km2,
        }


def head_file(model_version: str) -> str:
    """In a fusion's folder, the classifier of views over the vectors of one network."""
    return f"places-{model_version}.safetensors"


def read_fusion(folder: Path) -> Fusion:
    """A fusion after checking every file of its folder.

    Raises:
        IntegrityError: a file is missing or has changed, or the grid is another one.
    """
    verify_manifest(folder, remedy=_REMEDY)
    values: Mapping[str, Any] = read_json(folder / FUSION_FILE)
    grid = read_grid(folder / GRID_FILE)
    if grid.fingerprint() != values["grid_sha256"]:
        raise IntegrityError(f"{folder / GRID_FILE} is not the grid of {folder / FUSION_FILE}", _REMEDY)
    familiarity = values["familiarity"]
    if familiarity is not None and "weights" not in familiarity:
        raise IntegrityError(f"{folder / FUSION_FILE} was fitted by an earlier version of this package", _REMEDY)
    return Fusion(
        grid,
        {name: ExpertFit(**fit) for name, fit in values["experts"].items()},
        float(values["prior_weight"]),
        tuple(values["radii_m"]),
        {int(radius): BetaMap(**one) for radius, one in values["maps"].items()},
        {float(coverage): float("inf") if bound is None else float(bound) for coverage, bound in values["bounds"].items()},
        Inside(tuple(values.get("inside", ()))),  # one of before has regions of whole cells, as it was calibrated
        by_area=bool(values.get("by_area", False)),  # likewise
        familiarity=None if familiarity is None else Familiarity(**familiarity),
        largest_region_km2=values["largest_region_km2"],
    )
