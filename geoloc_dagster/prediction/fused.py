"""The released fusion as people and programs ask it: photos in, one calibrated answer each, with the reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import mapping

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.errors import NoReleaseError
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.cell_outlines import outlines
from geoloc_dagster.prediction.experts import F32, F64, Hits, Verified
from geoloc_dagster.prediction.fusion import VIEWS_FILE, FusedAnswers, Fusion, head_file, read_fusion
from geoloc_dagster.prediction.fusion_fit import say_all
from geoloc_dagster.prediction.panel import (
    PLACES,
    RETRIEVAL,
    ClassifierExpert,
    Expert,
    HitsExpert,
    Photos,
    PlacesExpert,
    classifier_expert,
    look_all,
    view_table,
)
from geoloc_dagster.prediction.parts import CLASSIFIERS, kind_of
from geoloc_dagster.prediction.photo import as_picture, read_photo
from geoloc_dagster.prediction.protocol import Candidate
from geoloc_dagster.prediction.regions import outline_of
from geoloc_dagster.prediction.release import Release, release_of, served_manifest
from geoloc_dagster.prediction.retrieval import RetrievalPredictor, measured_from
from geoloc_dagster.prediction.runtimes import EncoderLoader, Runtime, classifier_opener, encoder_opener
from geoloc_dagster.prediction.signs import signs_of
from geoloc_dagster.prediction.verification import (
    VERIFICATION,
    VerificationExpert,
    by_shared_features,
    shared_by_location,
    verification_over,
)
from geoloc_dagster.retrieval.encoder import Encoder, Pictures
from geoloc_dagster.retrieval.index import GalleryIndex
from geoloc_dagster.retrieval.local_features import SIDE
from geoloc_dagster.retrieval.place_head import load_place_head

LIKELIEST_CELLS = 20
_HEAT_SHARE = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class FusedPrediction:
    """The answer to one photo.

    Attributes:
        lat_deg: where it most likely was taken.
        lng_deg: likewise.
        within: radius in metres -> calibrated probability that it was taken so near.
        coverage: share of photos whose place lies in regions like this one.
        region: GeoJSON geometry of the cells, and parts of cells, that hold the place with that coverage.
        region_km2: its area.
        refusal: why this is no answer; empty where it is one.
        experts: name -> its own answer and its weight.
        candidates: the most similar known places; those that share most features with the photo first, where that was looked at,
            then the most similar. Empty without an index.
        cells: the likeliest cells: token and probability.
        release: which release said it.
        log_probabilities: over the grid, (cells,).
    """

    lat_deg: float
    lng_deg: float
    within: dict[int, float]
    coverage: float
    region: dict[str, Any]
    region_km2: float
    refusal: str
    experts: dict[str, dict[str, float]]
    candidates: tuple[Candidate, ...]
    cells: list[tuple[str, float]]
    release: str
    log_probabilities: F32

    def to_json(self) -> dict[str, Any]:
        """Plain values; degrees to 7 decimals (1 cm), probabilities to 4."""
        return {
            "lat_deg": round(self.lat_deg, 7),
            "lng_deg": round(self.lng_deg, 7),
            "probability_within_m": {str(radius): round(value, 4) for radius, value in self.within.items()},
            "region": {"coverage": self.coverage, "area_km2": round(self.region_km2, 6), "geometry": self.region},
            "answered": not self.refusal,
            "refusal": self.refusal or None,
            "experts": self.experts,
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "cells": [{"token": token, "probability": round(value, 6)} for token, value in self.cells],
            "release": self.release,
        }


@dataclass(frozen=True, slots=True, eq=False)
class FusedPredictor:
    """A released fusion in memory.

    Attributes:
        fusion: what was fitted.
        experts: that it was fitted with, over the whole index.
        release: its id.
        retrieval: encoder and index, which also show the candidates; None without.
        encoders: of all networks of retrieval, that one among them.
        indexes: of these networks, by model version.
    """

    fusion: Fusion
    experts: Sequence[Expert]
    release: str
    retrieval: RetrievalPredictor | None
    encoders: Sequence[Encoder]
    indexes: Mapping[str, GalleryIndex]

    @property
    def sizes(self) -> list[int]:
        """Sides of the pictures that its experts look at, pixels, ascending."""
        sizes = {encoder.image_size for encoder in self.encoders}
        sizes |= {expert.model.size for expert in self.experts if isinstance(expert, ClassifierExpert)}
        return sorted(sizes | {SIDE for expert in self.experts if isinstance(expert, VerificationExpert)})

    def without(self, capture_ids: Iterable[str]) -> FusedPredictor:
        """The same, to which these captures are no neighbours: held-out pictures must not find themselves."""
        ids = list(capture_ids)
        indexes = {version: index.without(ids) for version, index in self.indexes.items()}

        def blind(one: Expert) -> Expert:
            if isinstance(one, HitsExpert):
                return replace(one, search=indexes[one.model_version].search)
            if isinstance(one, VerificationExpert):
                hidden = next(iter(indexes.values())).hidden  # all indexes have the same rows
                return replace(one, hidden=frozenset() if hidden is None else frozenset(hidden.tolist()))
            return one

        experts = [blind(one) for one in self.experts]
        retrieval = self.retrieval and replace(self.retrieval, index=indexes[self.retrieval.model_version])
        return replace(self, experts=experts, retrieval=retrieval, indexes=indexes)

    def predict(
        self, photos: Sequence[bytes | Path], *, coverage: float = 0.9, expert: str | None = None
    ) -> list[FusedPrediction]:
        """One answer per photo.

        Args:
            photos: encoded pictures, or their paths.
            coverage: of the regions, one of those that were calibrated.
            expert: ask this one alone.

        Raises:
            ImageError: there is no such file, or it cannot be used as a picture.
            NoReleaseError: there is no such expert.
        """
        return self.answer(self.pictures_of([read_photo(photo) for photo in photos]), coverage=coverage, expert=expert)

    def pictures_of(self, contents: Sequence[bytes]) -> dict[int, Pictures]:
        """Encoded pictures as the networks look at them: side -> uint8 (N, 3, side, side); raises ImageError."""
        return {size: np.stack([as_picture(content, size) for content in contents]) for size in self.sizes}

    def answer(
        self, pictures: Mapping[int, Pictures], *, coverage: float = 0.9, expert: str | None = None
    ) -> list[FusedPrediction]:
        """`predict` for pictures that are decoded already, as `pictures_of` gives them."""
        found = self._look(pictures)
        said = say_all(self.fusion, self.experts, found)
        joint = self.fusion.log_probabilities(said) if expert is None else self.fusion.alone(self._named(expert), said[expert])
        answers = self.fusion.answers(joint, coverage)
        alone = {name: self.fusion.positions(self.fusion.alone(name, values)) for name, values in said.items()}
        refusals = self._refusals(found, answers)
        shown = self._candidates(found.get(RETRIEVAL), found.get(VERIFICATION)) or [()] * len(joint)
        return [self._one(row, answers, alone, coverage, refusals[row], shown[row]) for row in range(len(joint))]

    def log_probabilities(self, photos: Sequence[bytes | Path]) -> F32:
        """Over the grid, (N, cells), of all experts together."""
        found = self._look(self.pictures_of([read_photo(photo) for photo in photos]))
        return self.fusion.log_probabilities(say_all(self.fusion, self.experts, found))

    def _candidates(self, hits: Hits | None, verified: Verified | None) -> list[tuple[Candidate, ...]]:
        """The nearest places of each photo, of what the champion's network found; none without an index."""
        if self.retrieval is None or hits is None or hits.rows is None:
            return []
        candidates = self.retrieval.candidates_of(hits.similarity, hits.rows)
        if verified is None:
            return candidates
        return [
            by_shared_features(mine, shared)
            for mine, shared in zip(candidates, shared_by_location(verified, self.retrieval.index), strict=True)
        ]

    def _look(self, pictures: Mapping[int, Pictures]) -> dict[str, Any]:
        """What every expert sees."""
        vectors = {
            encoder.model_version: encoder.embed(pictures[encoder.image_size], min(64, len(pictures[encoder.image_size])))
            for encoder in self.encoders
        }
        photos = Photos(vectors, pictures.__getitem__)
        return look_all(self.experts, photos)

    def _named(self, expert: str) -> str:
        names = [one.name for one in self.experts]
        if expert not in names:
            raise NoReleaseError(f"release {self.release} has no expert {expert!r}", f"It has {', '.join(names)}.")
        return expert

    def _refusals(self, found: dict[str, Any], answers: FusedAnswers) -> list[str]:
        """Why each photo gets no answer: it looks like none of the region, or it could be anywhere in it."""
        signs, known, limit = signs_of(self.experts, found), self.fusion.familiarity, self.fusion.largest_region_km2
        reasons = [""] * len(answers.cells)
        if signs and known is not None:
            for row in np.flatnonzero(known.is_outside(signs)):
                reasons[row] = (
                    f"outside this region, or like nothing of it ({known.refused:.0%} of its own photos are refused so)"
                )
        for row, area in enumerate(answers.area_km2):
            if limit is not None and area > limit and not reasons[row]:
                reasons[row] = f"it could be anywhere in {area:.3g} km², more than the {limit:g} km² that an answer may span"
        return reasons

    def _one(
        self,
        row: int,
        answers: FusedAnswers,
        alone: dict[str, tuple[F64, F64]],
        coverage: float,
        refusal: str,
        candidates: tuple[Candidate, ...],
    ) -> FusedPrediction:
        experts = {
            name: {
                "lat_deg": round(float(lat_deg[row]), 7),
                "lng_deg": round(float(lng_deg[row]), 7),
                "weight": self.fusion.experts[name].weight,
            }
            for name, (lat_deg, lng_deg) in alone.items()
        }
        said = answers.log_probabilities[row]
        best = np.argsort(-said, kind="stable")[:LIKELIEST_CELLS]
        tokens = s2.tokens(self.fusion.grid.ids[best])
        return FusedPrediction(
            lat_deg=float(answers.lat_deg[row]),
            lng_deg=float(answers.lng_deg[row]),
            within=dict(zip(self.fusion.radii_m, answers.within[row].tolist(), strict=True)),
            coverage=coverage,
            region=mapping(outline_of(answers.regions[row], self.fusion.grid)),
            region_km2=float(answers.area_km2[row]),
            refusal=refusal,
            experts=experts,
            candidates=measured_from(candidates, float(answers.lat_deg[row]), float(answers.lng_deg[row])),
            cells=list(zip(tokens, np.exp(said[best]).tolist(), strict=True)),
            release=self.release,
            log_probabilities=said,
        )


def heat_features(fusion: Fusion, log_probabilities: np.ndarray) -> dict[str, Any]:
    """GeoJSON: the likeliest cells that hold 99 % of the probability, each with its own."""
    order = np.argsort(-log_probabilities, kind="stable")
    mass = np.exp(log_probabilities[order].astype(np.float64))
    chosen = order[: int((np.cumsum(mass) < _HEAT_SHARE).sum()) + 1]
    tokens = s2.tokens(fusion.grid.ids[chosen])
    features = [
        {
            "type": "Feature",
            "geometry": mapping(shape),
            "properties": {"token": token, "probability": round(float(np.exp(log_probabilities[cell])), 6)},
        }
        for cell, token, shape in zip(chosen.tolist(), tokens, outlines(fusion.grid.ids[chosen]), strict=True)
    ]
    return {"type": "FeatureCollection", "features": features}


def load_fused(layout: Layout, *, encoder_loader: EncoderLoader | None = None, runtime: Runtime = "onnx") -> FusedPredictor:
    """The served fusion, after checking every byte of the release; takes what `load_release` does.

    Raises:
        NoReleaseError: nothing has been released, or the release has no fusion.
        IntegrityError: a file is missing or has changed.
        ModelMismatchError: encoder and index are of different models.
    """
    release_id, manifest = served_manifest(layout)
    if "fusion" not in manifest["parts"]:
        raise NoReleaseError(
            f"release {release_id} has no fusion: its answers are not calibrated",
            "Give `splits.dev_share` a tenth or more, then materialise `fusion` and `release`.",
        )
    folders = {name: layout.root / part["folder"] for name, part in manifest["parts"].items()}
    fusion = read_fusion(folders["fusion"])
    besides = [name.removeprefix("index") for name in folders if kind_of(name) == "index"]
    open_encoder = encoder_loader or encoder_opener(folders, runtime)
    networks = {
        beside: release_of(release_id, manifest, {part: folders[part + beside] for part in ("model", "index")}, open_encoder)
        for beside in sorted(besides)  # the champion's first
    }
    experts = [one for beside, network in networks.items() for one in _index_experts(folders["fusion"], fusion, network, beside)]
    open_classifier = classifier_opener(folders, runtime)
    classifiers = [name for name in folders if kind_of(name) in CLASSIFIERS]
    experts += [classifier_expert(name, open_classifier(folders[name]), fusion.grid) for name in classifiers]
    if VERIFICATION in fusion.experts:
        of_networks = {beside: network.index for beside, network in networks.items()}
        rows = np.arange(networks[""].index.rows.num_rows)
        views = np.array(storage.read_parquet(folders["fusion"] / VIEWS_FILE, ["view"])["view"].to_pylist(), np.str_)
        experts.append(verification_over(of_networks, rows, views, fusion.grid))
    retrieval = networks[""].predictor() if networks else None
    indexes = {network.model_version: network.index for network in networks.values()}
    encoders = [network.encoder for network in networks.values()]
    return FusedPredictor(fusion, experts, release_id, retrieval, encoders, indexes)


def _index_experts(folder: Path, fusion: Fusion, network: Release, beside: str) -> list[Expert]:
    index, grid, version = network.index, fusion.grid, network.model_version
    cells = grid.cells_of(index.lat_deg, index.lng_deg)
    views = storage.numbers(storage.read_parquet(folder / VIEWS_FILE), "cell").astype(np.int64)
    head = load_place_head(folder / head_file(version))
    return [
        HitsExpert(version, index.search, cells, grid, RETRIEVAL + beside),
        PlacesExpert(version, head, view_table(views, grid), grid, PLACES + beside),
    ]
