"""The gate decides as a careful person would, and says why."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster.errors import NotEnoughDataError
from geoloc_dagster.prediction.gate import GateSettings, ModelEvaluation, gate
from geoloc_dagster_tests.prediction.world import query_table


def evaluation(name: str, found: list[bool], n_gallery: int | None = 100) -> ModelEvaluation:
    return ModelEvaluation(name, query_table(found), n_gallery)


def share(found: float, n: int = 400, seed: int = 0) -> list[bool]:
    return (np.random.default_rng(seed).permutation(n) < found * n).tolist()


def test_the_first_model_is_promoted() -> None:
    result = gate(evaluation("a", share(0.3)), None)
    assert result.promote
    assert "a is the first model: R@1 30.0% on 400 queries" in result.reason


def test_a_better_model_is_promoted_with_its_gain() -> None:
    worse = share(0.6)
    better = [hit or i % 10 == 0 for i, hit in enumerate(worse)]
    result = gate(evaluation("b", better), evaluation("a", worse))
    assert result.promote
    assert "b is better" in result.reason
    assert "60.0% of a" in result.reason
    assert result.numbers["difference"] == pytest.approx(np.mean(better) - 0.6)
    assert result.numbers["low"] > -0.02


def test_a_significantly_worse_model_is_refused() -> None:
    result = gate(evaluation("b", share(0.4, seed=1)), evaluation("a", share(0.7, seed=2)))
    assert not result.promote
    assert "significantly worse" in result.reason
    assert result.numbers["high"] < 0


def test_an_equal_model_is_refused() -> None:
    result = gate(evaluation("b", share(0.5)), evaluation("a", share(0.5)))
    assert not result.promote
    assert "is not better" in result.reason


def test_a_gain_that_may_be_a_loss_beyond_the_margin_is_refused_and_a_wider_margin_lets_it_pass() -> None:
    ours, theirs = evaluation("b", share(0.52, 200, seed=3)), evaluation("a", share(0.50, 200, seed=4))
    strict = gate(ours, theirs, GateSettings(margin=0.02))
    assert not strict.promote
    assert "may be worse by more than 2 points" in strict.reason
    assert gate(ours, theirs, GateSettings(margin=0.3)).promote


def test_only_shared_queries_are_compared() -> None:
    """The candidate was also asked 300 new queries and found them all; on the old ones it is no better."""
    old = share(0.5, 400)
    result = gate(evaluation("b", old + [True] * 300), evaluation("a", old))
    assert not result.promote
    assert result.numbers["shared_queries"] == 400
    assert result.numbers["difference"] == 0


def test_too_few_shared_queries_ask_for_a_new_evaluation_of_the_champion() -> None:
    result = gate(evaluation("b", share(1.0, 400)), evaluation("a", share(0.5, 40)))
    assert not result.promote
    assert "share only 40 of 400 queries" in result.reason
    assert "evaluate the champion" in result.reason


def test_the_champion_does_not_replace_itself() -> None:
    result = gate(evaluation("a", share(0.9)), evaluation("a", share(0.5)))
    assert not result.promote
    assert "champion already" in result.reason


def test_different_galleries_are_pointed_out() -> None:
    result = gate(evaluation("b", share(0.9, seed=1), 2000), evaluation("a", share(0.5, seed=2), 1000))
    assert "galleries differ (2000 and 1000 pictures)" in result.reason


def test_an_evaluation_without_queries_is_an_error() -> None:
    with pytest.raises(NotEnoughDataError, match="b has no queries"):
        gate(evaluation("b", []), None)


def test_the_decision_is_the_same_every_time() -> None:
    ours, theirs = evaluation("b", share(0.6, seed=1)), evaluation("a", share(0.5, seed=2))
    assert gate(ours, theirs) == gate(ours, theirs)


def test_classifiers_are_compared_by_the_score_of_each_photo() -> None:
    rng = np.random.default_rng(0)
    merit = rng.uniform(0, 0.8, 400)

    def scored(name: str, values: np.ndarray) -> ModelEvaluation:
        ids = [f"c{i}" for i in range(len(values))]
        return ModelEvaluation(name, pa.table({"capture_id": ids, "location_id": ids, "merit": values}), measure="GeoScore")

    first = gate(scored("a", merit), None)
    assert first.numbers == {"geo_score_share": pytest.approx(merit.mean())}
    assert "a is the first model: GeoScore" in first.reason
    better = gate(scored("b", merit + 0.1), scored("a", merit))
    assert better.promote
    assert better.numbers["champion_geo_score_share"] == pytest.approx(merit.mean())
    assert better.numbers["difference"] == pytest.approx(0.1)
    assert not gate(scored("b", merit - 0.1), scored("a", merit)).promote
