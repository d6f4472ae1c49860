"""The alias of the registered model follows the champion, in a real MLflow registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoloc_dagster.config.layout import Layout
from geoloc_dagster.prediction.alias import ALIAS, point_alias
from geoloc_dagster.prediction.promotion import promote_best
from geoloc_dagster_tests.prediction.world import FIRST, NOW, SECOND, trained


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_promotion_moves_the_alias_a_refusal_does_not_and_repeating_adds_no_version(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    layout, uri = Layout(tmp_path / "data"), f"sqlite:///{tmp_path}/mlflow.db"

    def promoted() -> str:
        """The model behind the alias after another look at what was evaluated."""
        champion = promote_best(layout, ["retrieval"], now=NOW).champion
        assert point_alias(uri, "geoloc-aland", champion) == point_alias(uri, "geoloc-aland", champion)
        return MlflowClient(tracking_uri=uri).get_model_version_by_alias("geoloc-aland", ALIAS).tags["model_version"]

    trained(layout, FIRST, 0.7)
    assert promoted() == FIRST
    trained(layout, SECOND, 0.5, day=2)
    assert promoted() == FIRST
    trained(layout, "retrieval-cccccccccccc", 0.9, day=3)
    assert promoted() == "retrieval-cccccccccccc"
    versions = MlflowClient(tracking_uri=uri).search_model_versions("name = 'geoloc-aland'")
    assert sorted(version.tags["model_version"] for version in versions) == [FIRST, "retrieval-cccccccccccc"]
