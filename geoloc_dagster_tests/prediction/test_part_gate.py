"""A candidate that is better as a whole is refused where a district or a year loses; small parts raise no alarm, nor do many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.config.operation import PromotionSettings
from geoloc_dagster.dataset.schema import CATALOG
from geoloc_dagster.prediction.champion import read_champion
from geoloc_dagster.prediction.gate import GateSettings, ModelEvaluation, gate
from geoloc_dagster.prediction.part_gate import PartSettings, worse_parts
from geoloc_dagster.prediction.promotion import gate_settings, promote_best
from geoloc_dagster_tests.prediction.world import FIRST, NOW, SECOND, query_table, write_evaluation, write_model

N = 800
"""Queries, four per place: the first 160 are in the old town, the rest elsewhere."""
OLD_TOWN = 160


def district(i: int) -> str:
    return "old town" if i < OLD_TOWN else f"suburb {i % 4}"


def found(share: float, old_town: float, seed: int = 0) -> list[bool]:
    rng = np.random.default_rng(seed)
    return [bool(rng.random() < (old_town if i < OLD_TOWN else share)) for i in range(N)]


BEFORE, BETTER_BUT = found(0.5, 0.8, seed=1), found(0.8, 0.4, seed=2)
PARTS = {"district": {f"q{i}": district(i) for i in range(N)}}


def test_a_better_model_that_loses_a_district_is_refused_and_the_reason_names_it() -> None:
    ours, theirs = ModelEvaluation("b", query_table(BETTER_BUT)), ModelEvaluation("a", query_table(BEFORE))
    assert gate(ours, theirs).promote
    result = gate(ours, theirs, parts=PARTS)
    assert not result.promote
    assert "b is better: R@1" in result.reason
    assert "but it is worse in district old town (R@1 " in result.reason
    assert "on 160 queries of 40 places, at best -" in result.reason
    assert "5 points may be lost, intervals are for all 5 parts together" in result.reason
    assert (result.numbers["parts_compared"], result.numbers["parts_worse"]) == (5, 1)


def test_a_wider_margin_lets_it_pass() -> None:
    ours, theirs = ModelEvaluation("b", query_table(BETTER_BUT)), ModelEvaluation("a", query_table(BEFORE))
    assert gate(ours, theirs, GateSettings(parts=PartSettings(margin=0.6)), PARTS).promote


def test_a_capture_year_counts_as_a_district_does() -> None:
    ours, theirs = ModelEvaluation("b", query_table(BETTER_BUT)), ModelEvaluation("a", query_table(BEFORE))
    years = {"capture year": {f"q{i}": "2014" if i < OLD_TOWN else "2022" for i in range(N)}}
    assert "worse in capture year 2014" in gate(ours, theirs, parts=years).reason


def test_a_part_with_few_queries_or_places_is_not_looked_at() -> None:
    places = np.array([str(i // 4) for i in range(N)])
    lost = np.where(np.arange(N) < 24, 0.0, 1.0)  # six places lose everything
    labels = np.where(np.arange(N) < 24, "hamlet", "")
    few_places = PartSettings(min_queries=20)
    assert worse_parts(lost, np.ones(N), places, {"district": labels}, few_places).looked_at == 0
    assert worse_parts(lost, np.ones(N), places, {"district": labels}, PartSettings(min_places=5)).looked_at == 0
    enough = PartSettings(min_queries=20, min_places=5)
    assert [part.name for part in worse_parts(lost, np.ones(N), places, {"district": labels}, enough).worse] == ["hamlet"]


@pytest.mark.parametrize("n_parts", [1, 40])
def test_equal_models_raise_a_false_alarm_in_at_most_one_of_twenty_trials_however_many_parts_there_are(n_parts: int) -> None:
    """Queries of one place are found or missed together, and the true loss is exactly the margin: the hardest case."""
    rng, alarms, trials, margin = np.random.default_rng(5), 0, 400, 0.05
    places = np.repeat(np.arange(12 * n_parts), 4)
    labels = (places // 12).astype(str)
    for _ in range(trials):
        of_place = np.clip(rng.normal(0.5, 0.2, 12 * n_parts), 0, 1)[places]
        theirs = (rng.random(len(places)) < of_place).astype(float)
        ours = np.where(rng.random(len(places)) < margin / of_place.mean(), 0.0, theirs)
        settings = PartSettings(margin=margin)
        alarms += bool(worse_parts(ours, theirs, places.astype(str), {"district": labels}, settings).worse)
    assert alarms <= 0.08 * trials  # 5 % and the chance of 400 trials


def write_catalog(layout: Layout) -> None:
    rows = [
        {
            "capture_id": f"q{i}", "batch": "100m-0000", "series": "100m", "source": "x", "location_id": str(i // 4),
            "lat_deg": 59.0, "lng_deg": 18.0,
            "district": district(i), "view": "r0", "year": 2022, "flags": [], "split": "test", "usable": True,
            "is_query": True, "licence": "CC0-1.0", "attribution": "nobody",
        }
        for i in range(N)
    ]  # fmt: skip
    storage.write_parquet(layout.catalog, pa.Table.from_pylist(rows, schema=CATALOG))


def test_promotion_takes_districts_from_the_catalog_and_margins_from_the_configuration(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_catalog(layout)
    for version, outcomes, day in ((FIRST, BEFORE, 1), (SECOND, BETTER_BUT, 2)):
        write_model(layout, version, day=day)
        write_evaluation(layout, version, outcomes)
        outcome = promote_best(layout, ["retrieval"], now=NOW, settings=gate_settings(PromotionSettings()))
    assert not outcome.promoted
    assert "worse in district old town" in outcome.reason
    assert read_champion(layout).model_version == FIRST
    loose = gate_settings(PromotionSettings(part_margin=0.9))
    assert promote_best(layout, ["retrieval"], now=NOW, settings=loose).promoted
    assert read_champion(layout).model_version == SECOND
