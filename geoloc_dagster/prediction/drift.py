"""Does the champion do worse on what is new than it did before? New is what was captured lately, and what was collected since.

Streets, cameras and seasons change, and a model that was good grows old without any error being raised. The newest evaluation
asks about new pictures as well; here its queries are divided into new and earlier ones, and compared.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.config.operation import DriftSettings
from geoloc_dagster.evaluation.cluster_mean import ClusterMean, cluster_mean, t_quantile
from geoloc_dagster.prediction.champion import Champion, read_champion
from geoloc_dagster.tables import open_table

Window = Literal["captured lately", "collected since the training"]
_LEVEL = 0.05 / 2  # of a false alarm in each of the two windows


@dataclass(frozen=True, slots=True)
class Drift:
    """How the champion does on new queries beside earlier ones.

    Attributes:
        window: what new means.
        new: None where there are too few new queries, or too few earlier ones, to say anything.
        earlier: likewise.
        at_best: the upper end of the interval of new less earlier; not a number where nothing can be said.
        worse: whether even that is below minus the margin.
        said: in a sentence for people.
    """

    window: Window
    new: ClusterMean | None
    earlier: ClusterMean | None
    at_best: float
    worse: bool
    said: str


def measure_drift(layout: Layout, settings: DriftSettings, pointer: Path | None = None) -> list[Drift]:
    """Compare new with earlier queries of the champion's newest evaluation, by capture date and by when they were collected.

    Args:
        layout: the region's paths.
        settings: what is new, how many queries it takes, and how much may be lost.
        pointer: of the champion; that of retrieval without it.

    Returns:
        One entry for each window; none where the champion has no evaluation.

    Raises:
        NoReleaseError: nothing has been promoted yet.
        IntegrityError: the champion, its evaluation or a table is damaged.
    """
    champion = read_champion(layout, pointer)
    path = layout.evaluations / champion.recipe / champion.model_version / "queries.parquet"
    if not path.is_file():
        return []
    queries = storage.read_parquet(path)
    merit = _merit(queries)
    names: list[str] = queries["capture_id"].to_pylist()
    places = np.array(queries["location_id"].to_pylist(), np.str_)
    late = _captured_lately(layout, names, settings.months)
    since = _collected_since(layout, names, champion)
    return [
        compare_new("captured lately", merit, places, late, settings),
        compare_new("collected since the training", merit, places, since, settings),
    ]


def compare_new(
    window: Window,
    merit: npt.NDArray[np.float64],
    places: npt.NDArray[np.str_],
    new: npt.NDArray[np.bool_],
    settings: DriftSettings,
) -> Drift:
    """Compare what new queries earned with what the others did; (Q,) each, 0 to 1, with the place of each query."""
    for rows, what in ((new, f"queries {window}"), (~new, "earlier queries")):
        held = len(np.unique(places[rows]))
        if rows.sum() < settings.min_queries or held < settings.min_places:
            wanted = f"{settings.min_queries} at {settings.min_places} places are needed"
            said = f"{int(rows.sum())} {what} at {held} places say nothing: {wanted}"
            return Drift(window, None, None, float("nan"), False, said)
    late, early = cluster_mean(merit[new], places[new]), cluster_mean(merit[~new], places[~new])
    spread = float(np.hypot(late.error, early.error))
    at_best = late.mean - early.mean + t_quantile(_LEVEL, min(late.n_places, early.n_places)) * spread
    worse = at_best < -settings.margin
    said = (
        f"{late.mean:.1%} of {late.n_queries} queries {window} ({late.n_places} places) against {early.mean:.1%} of "
        f"{early.n_queries} earlier ones, at best {at_best * 100:+.1f} points"
    )
    return Drift(window, late, early, at_best, worse, f"{'worse' if worse else 'within what it did before'}: {said}")


def _merit(queries: pa.Table) -> npt.NDArray[np.float64]:
    """(Q,) what each query earned, 0 to 1: found at once or not, or the score of the answer."""
    if "merit" in queries.column_names:
        return np.asarray(queries["merit"].to_pylist(), np.float64)
    return np.asarray([rank == 1 for rank in queries["first_hit_rank"].to_pylist()], np.float64)


def _captured_lately(layout: Layout, names: list[str], months: int) -> npt.NDArray[np.bool_]:
    """(Q,) taken within so many months of the newest picture that is asked about; undated ones count as earlier."""
    rows = storage.read_parquet(layout.catalog, ["capture_id", "captured_on"])
    days: dict[str, dt.date | None] = dict(zip(rows["capture_id"].to_pylist(), rows["captured_on"].to_pylist(), strict=True))
    taken = [days.get(name) for name in names]
    newest = max((day for day in taken if day is not None), default=None)
    if newest is None:
        return np.zeros(len(names), np.bool_)
    first = newest - dt.timedelta(days=round(months * 30.44))
    return np.array([day is not None and day > first for day in taken], np.bool_)


def _collected_since(layout: Layout, names: list[str], champion: Champion) -> npt.NDArray[np.bool_]:
    """(Q,) fetched after the champion was trained."""
    training: dict[str, Any] = storage.read_json(champion.folder / "training.json")
    finished = dt.datetime.fromisoformat(str(training["finished_at"]))
    finished = finished if finished.tzinfo else finished.replace(tzinfo=dt.UTC)
    table = open_table(layout.panoramas)
    if table is None:
        return np.zeros(len(names), np.bool_)
    rows = table.to_table(columns=["capture_id", "fetched_at"])
    fetched: dict[str, dt.datetime] = dict(zip(rows["capture_id"].to_pylist(), rows["fetched_at"].to_pylist(), strict=True))
    return np.array([name in fetched and fetched[name] > finished for name in names], np.bool_)
