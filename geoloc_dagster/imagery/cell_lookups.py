"""Lookups of a country's cells: points are asked about in rounds, until a cell has its sample or its points are used up.

What is due is found in the tables, as everything else is: the points' answers, and the locations that are registered already.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.collection import GridCellSettings
from geoloc_dagster.dataset.schema import STREET_VIEW_METADATA
from geoloc_dagster.errors import ConfigError, IntegrityError
from geoloc_dagster.geo.cell_sampling import missing_samples, take_samples
from geoloc_dagster.geo.grid_cells import cell_of, read_grid_cells
from geoloc_dagster.imagery.lookups import COMMIT_ROWS, CoverageService, LookupRun, look_up_chunks, lookup_ids
from geoloc_dagster.storage import read_geoparquet
from geoloc_dagster.tables import open_table

_REGISTERED = ["series", "grid_cell", "lat_deg", "lng_deg", "pano_id"]


@dataclass(frozen=True)
class CellSurvey:
    """How far the cells are.

    Attributes:
        points: every point in rounds: lookup_id, grid_cell, lat_deg, lng_deg, answered, and answered_at (null for a street view,
            whose answer never expires, and where there is no answer).
        taken: answers that belong to the sample and are not registered yet, in rounds.
        missing: locations that each cell lacks, by its number.
    """

    points: pd.DataFrame
    taken: pd.DataFrame
    missing: Any

    @property
    def left(self) -> int:
        """Points without any answer in cells that lack locations; 0 once every cell is full or its points are used up."""
        return int((~self._open["answered"]).sum())

    @property
    def unfinished_cells(self) -> int:
        """Cells that are neither full nor used up."""
        rows = self._open
        return int(rows.loc[~rows["answered"], "grid_cell"].nunique())

    def due(self, recheck_before: dt.datetime, asked: set[str] | None = None) -> pd.DataFrame:
        """The points to ask about, in rounds: those without a valid answer, in cells that lack locations.

        Args:
            recheck_before: aware; a negative answer from before this is out of date.
            asked: lookup ids to leave out.
        """
        rows = self._open
        expired = rows["answered_at"].notna() & (rows["answered_at"] < pd.Timestamp(recheck_before))
        rows = rows[~rows["answered"] | expired]
        return rows if asked is None else rows[~rows["lookup_id"].isin(asked)]

    def wave(self, recheck_before: dt.datetime, asked: set[str]) -> pd.DataFrame:
        """Of these, as many of each cell as it lacks: whatever they find, none of them is one too many."""
        rows = self.due(recheck_before, asked)
        wanted = rows["grid_cell"].map(self.missing)
        return rows[rows.groupby("grid_cell").cumcount() < wanted]

    @property
    def _open(self) -> Any:
        return self.points[self.points["grid_cell"].map(self.missing) > 0]


@dataclass(frozen=True)
class CellTask:
    """What is to be sampled: rules, cells, points in rounds, and what is registered."""

    rules: GridCellSettings
    cells: gpd.GeoDataFrame
    points: pd.DataFrame
    registered: pd.DataFrame
    table_path: Path

    @classmethod
    def load(cls, settings: Settings, layout: Layout) -> CellTask:
        """Read what a region has.

        Raises:
            IntegrityError: cells or points are missing or damaged, or the points are not of these cells.
            ConfigError: registered locations do not lie in the cells that they were sampled for: the cells have changed.
        """
        rules = settings.grid_cells
        if rules is None:
            raise ValueError("the region has no section grid_cells")
        cells = read_grid_cells(layout.grid_cells)
        points: Any = read_geoparquet(layout.grid_points)
        if "grid_cell" not in points.columns or not points["grid_cell"].isin(cells["cell_id"]).all():
            raise IntegrityError(f"the points of {layout.grid_points} are not of the cells", "Materialise `grid_points` again.")
        points = pd.DataFrame(points.drop(columns="geometry")).assign(lookup_id=lookup_ids(points))
        registered = registered_samples(layout)
        check_registered_cells(registered, cells, rules)
        return cls(rules, cells, points.drop_duplicates("lookup_id"), registered, layout.street_view_metadata)

    def survey(self) -> CellSurvey:
        """How far the cells are by what the coverage table says now."""
        dataset = open_table(self.table_path)
        answers: Any = (STREET_VIEW_METADATA.empty_table() if dataset is None else dataset.to_table()).to_pandas()
        newest = answers.drop_duplicates("lookup_id", keep="last").set_index("lookup_id")
        found = newest[newest["status"] == "OK"]
        ids = self.points["lookup_id"]
        negative: Any = newest.loc[newest["status"] != "OK", "looked_up_at"]
        points = self.points.assign(answered=ids.isin(newest.index)).join(negative.rename("answered_at"), on="lookup_id")
        covered = self.points.loc[ids.isin(found.index), ["lookup_id", "grid_cell"]].join(found, on="lookup_id")
        series, per_cell = self.rules.series, self.rules.samples_per_cell
        taken = take_samples(
            covered, self.cells, self.registered, series=series, per_cell=per_cell, apart_m=float(self.rules.apart_m)
        )
        missing = missing_samples(self.cells, self.registered, taken, series=series, per_cell=per_cell)
        return CellSurvey(points, taken, missing)


def registered_samples(layout: Layout) -> pd.DataFrame:
    """Every registered location, of whatever series, with the cell of those that were sampled; no rows before the first."""
    if not layout.locations.is_file():
        return pd.DataFrame({name: pd.Series(dtype=object if name in ("series", "pano_id") else float) for name in _REGISTERED})
    frame: Any = read_geoparquet(layout.locations)
    return pd.DataFrame(frame.drop(columns="geometry")).assign(**({} if "grid_cell" in frame.columns else {"grid_cell": np.nan}))


def cell_points_due(settings: Settings, layout: Layout, *, now: dt.datetime) -> int:
    """How many points may have to be asked about before every cell is full or used up."""
    return len(CellTask.load(settings, layout).survey().due(_recheck_before(settings, now)))


async def look_up_cells(
    settings: Settings,
    layout: Layout,
    service: CoverageService,
    *,
    now: dt.datetime,
    progress: Callable[[int, int], None] | None = None,
) -> LookupRun:
    """Ask about the next points of cells that are not full, as many as one run may.

    Raises:
        As `CellTask.load`, and ServiceKeyError, ServiceBlockedError, ServiceUnavailableError as `look_up`.
    """
    task = CellTask.load(settings, layout)
    budget, recheck_before = settings.coverage.lookups_per_run, _recheck_before(settings, now)
    run = await look_up_chunks(
        service,
        _chunks(task, budget, recheck_before),
        layout.street_view_metadata,
        total=min(budget, len(task.survey().due(recheck_before))),
        now=now,
        concurrency=settings.service.concurrency,
        progress=progress,
    )
    run.left = task.survey().left
    return run


def _chunks(task: CellTask, budget: int, recheck_before: dt.datetime) -> Iterator[pd.DataFrame]:
    """Waves, cut for commits; the next wave is chosen when the answers of the last one are in the table.

    A point that failed is not asked again by the same run.
    """
    asked: set[str] = set()
    while len(asked) < budget:
        wave = task.survey().wave(recheck_before, asked).head(budget - len(asked))
        if wave.empty:
            return
        asked.update(wave["lookup_id"])
        yield from (wave.iloc[start : start + COMMIT_ROWS] for start in range(0, len(wave), COMMIT_ROWS))


def _recheck_before(settings: Settings, now: dt.datetime) -> dt.datetime:
    return now - dt.timedelta(days=settings.coverage.recheck_after_days)


def check_registered_cells(registered: pd.DataFrame, cells: gpd.GeoDataFrame, rules: GridCellSettings) -> None:
    """Raise a `ConfigError` where registered locations of the series do not lie in the cells that they are of."""
    own: Any = registered[(registered["series"] == rules.series) & registered["grid_cell"].notna()]
    here = cell_of(cells, own["lat_deg"].to_numpy(np.float64), own["lng_deg"].to_numpy(np.float64))
    moved = int(np.count_nonzero(here != own["grid_cell"].to_numpy(np.int64)))
    if moved:
        raise ConfigError(
            f"{moved:,} of the {len(own):,} registered locations of {rules.series} lie in other cells than they were sampled "
            "for: the polygon or grid_cells has changed since",
            "Change it back, or give the new cells a name of their own with grid_cells.series.",
        )
