"""What else is measured of the model that an evaluation is about: across years, at unseen places, and by district."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from shapely.geometry.base import BaseGeometry

from geoloc_dagster.evaluation.atlas import Atlas, atlas_table, make_atlas, newest_day, write_atlas
from geoloc_dagster.evaluation.protocol import Vectors
from geoloc_dagster.evaluation.retrieval import RetrievalReport
from geoloc_dagster.evaluation.unseen import Unseen, evaluate_unseen, summarise_unseen, unseen_table
from geoloc_dagster.evaluation.years import AcrossYears, across_years, age_gap_table, summarise_years, year_matrix_table
from geoloc_dagster.viz.atlas import atlas_picture
from geoloc_dagster.viz.year_charts import age_gap_curve, year_matrix

GALLERY = "pictures of training places, the newest of each view"


@dataclass(frozen=True, slots=True)
class Further:
    """Figures beside recall at the same place.

    Attributes:
        model: the descriptor that `years` and `atlas` are of.
        unseen: descriptor -> figures of the protocol `unseen_place`; empty where there is no gallery of other places.
        outlines: district -> polygon, None where it has none.
    """

    model: str
    years: AcrossYears
    unseen: dict[str, Unseen]
    atlas: Atlas
    outlines: Mapping[str, BaseGeometry | None]

    def summary(self, name: str) -> dict[str, Any]:
        """What report.json says of one descriptor beside `same_place`."""
        found: dict[str, Any] = {}
        if name in self.unseen:
            found["unseen_place"] = summarise_unseen(self.unseen[name])
        if name == self.model:
            found["across_years"] = summarise_years(self.years)
        return found

    def markdown(self) -> str:
        """The tables, to go under those of `same_place`."""
        tables = [unseen_table(self.unseen)] if self.unseen else []
        tables += [year_matrix_table(self.years), age_gap_table(self.years), atlas_table(self.atlas)]
        return "".join(f"\n{table.markdown()}\n" for table in tables)

    def with_errors(self, queries: pa.Table, name: str) -> pa.Table:
        """The queries with how far the best match of an unseen place lies, and how far the nearest picture does, in metres."""
        if name not in self.unseen:
            return queries
        unseen = self.unseen[name].queries
        if unseen["capture_id"].to_pylist() != queries["capture_id"].to_pylist():
            raise ValueError("both protocols ask the same queries in the same order")
        table = queries.append_column("unseen_error_m", unseen["error_m"])
        return table.append_column("unseen_nearest_m", unseen["nearest_m"])

    def write_atlas(self, folder: Path) -> None:
        """Write atlas.parquet."""
        write_atlas(folder / "atlas.parquet", self.atlas, self.outlines)

    def pictures(self, name: str, geometry: Any, attribution: str) -> dict[str, bytes]:
        """File name -> PNG; those for which there is too little are left out."""
        made = {"age_gap.png": age_gap_curve(self.years, title=f"{name}: by age of the picture to find", subtitle=_ALONE)}
        if self.years.years:
            asking = f"{sum(self.years.matrix[a, a].n_gallery for a in self.years.years):,} pictures ask"
            made["year_matrix.png"] = year_matrix(self.years, title=f"{name}: year against year", subtitle=asking)
        if any(self.outlines.get(one.name) is not None for one in self.atlas.districts):
            made["atlas.png"] = atlas_picture(
                self.atlas,
                self.outlines,
                geometry=geometry,
                title=f"{name}: atlas of districts",
                subtitle="" if self.atlas.as_of is None else f"ages on {self.atlas.as_of}",
                attribution=attribution,
            )
        return made


_ALONE = "one picture of the query's view, beside all pictures of all other places"


def measure_further(
    catalog: pa.Table,
    rows: pa.Table,
    report: RetrievalReport,
    descriptors: Mapping[str, Vectors],
    gallery: pa.Table | None,
    outlines: Mapping[str, BaseGeometry | None] | None,
    *,
    described: str = GALLERY,
    ks: Sequence[int] = (1, 5, 10),
    bootstrap: int = 1000,
    seed: int = 0,
) -> Further:
    """Measure the first descriptor across years and by district, and all that have vectors of the gallery at unseen places.

    Args:
        catalog: the feature table.
        rows: of the split (`protocol.split_rows`).
        report: of the first descriptor.
        descriptors: name -> vectors, the model first.
        gallery: rows of other places; None or empty leaves `unseen_place` out.
        outlines: district -> polygon.
        described: the gallery in words.
        ks: cut-offs of recall.
        bootstrap: resamples.
        seed: of the resampling.

    Raises:
        IntegrityError: the model has no vector of a query or of a gallery picture.
    """
    model = next(iter(descriptors))
    unseen: dict[str, Unseen] = {}
    if gallery is not None and gallery.num_rows:
        names = set(gallery["capture_id"].to_pylist())
        takes_part = {name: one for name, one in descriptors.items() if name == model or names <= set(one.capture_ids)}
        unseen = {
            name: evaluate_unseen(one, rows, gallery, described=described, ks=ks, bootstrap=bootstrap, seed=seed)
            for name, one in takes_part.items()
        }
    return Further(
        model,
        across_years(descriptors[model].aligned(rows["capture_id"].to_pylist()), rows, bootstrap=bootstrap, seed=seed),
        unseen,
        make_atlas(catalog, report.queries, as_of=newest_day(catalog), bootstrap=bootstrap, seed=seed),
        outlines or {},
    )
