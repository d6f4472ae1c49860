"""Who becomes champion, and that nothing else ever changes what is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NoReleaseError, NotEnoughDataError
from geoloc_dagster.prediction.champion import embed_champion, promote, read_champion
from geoloc_dagster.prediction.promotion import promote_best
from geoloc_dagster_tests.prediction.world import (
    FIRST,
    NOW,
    SECOND,
    embed_and_index,
    load,
    publish,
    released,
    trained,
    write_model,
)
from geoloc_dagster_tests.retrieval.city import City, flip_byte

RECIPES = ["retrieval"]


def snapshot(layout: Layout) -> dict[str, str]:
    """Every file that serving depends on, with its sha256."""
    roots = [layout.releases, layout.indexes, layout.champion, layout.embeddings, layout.checkpoints / "retrieval" / FIRST]
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*"))) if file.is_file()]
    return {str(file): storage.sha256_file(file) for file in files}


def test_the_first_evaluated_model_becomes_champion(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trained(layout, FIRST, 0.7)
    outcome = promote_best(layout, RECIPES, now=NOW)
    assert outcome.promoted
    champion = read_champion(layout)
    assert (champion.model_version, champion.recipe) == (FIRST, "retrieval")
    assert champion.folder == layout.checkpoints / "retrieval" / FIRST
    assert champion.evaluation == {"recall_at_1": 0.7, "queries": 400}
    assert champion.promoted_at == "2026-11-20T22:00:00+00:00"


def test_of_several_recipes_the_best_becomes_the_first_champion(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trained(layout, "plain-cccccccccccc", 0.8, recipe="plain")
    trained(layout, FIRST, 0.7)
    assert promote_best(layout, ["retrieval", "plain"], now=NOW).champion.recipe == "plain"


def test_a_better_model_replaces_the_champion(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trained(layout, FIRST, 0.7)
    promote_best(layout, RECIPES, now=NOW)
    trained(layout, SECOND, 0.8, day=2)
    outcome = promote_best(layout, RECIPES, now=NOW)
    assert outcome.promoted
    assert read_champion(layout).model_version == SECOND
    assert "is better" in read_champion(layout).reason


def test_a_model_that_is_not_promoted_changes_nothing_that_is_served(city: City) -> None:
    layout = released(city)
    before, answer = snapshot(layout), load(layout).release_id
    trained(layout, SECOND, 0.5, day=2)
    outcome = promote_best(layout, RECIPES, now=NOW)
    assert not outcome.promoted
    assert outcome.champion.model_version == FIRST
    assert "stays champion" in outcome.reason
    assert "significantly worse" in outcome.reason
    embed_and_index(city, layout)
    publish(layout)
    assert snapshot(layout) == before
    assert load(layout).release_id == answer


def test_a_trained_model_without_an_evaluation_is_no_candidate(city: City) -> None:
    layout = released(city)
    write_model(layout, SECOND, day=2)
    outcome = promote_best(layout, RECIPES, now=NOW)
    assert (outcome.promoted, outcome.champion.model_version) == (False, FIRST)


def test_a_new_champion_is_served_only_once_every_batch_and_the_index_are_its_own(city: City) -> None:
    layout = released(city)
    trained(layout, SECOND, 0.9, day=2)
    promote_best(layout, RECIPES, now=NOW)
    with pytest.raises(ModelMismatchError, match=f"vectors of {FIRST}, the champion is {SECOND}"):
        publish(layout)
    assert load(layout).model_version == FIRST
    embed_and_index(city, layout)
    publish(layout)
    assert load(layout).model_version == SECOND


def test_without_any_evaluation_there_is_nothing_to_promote(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughDataError, match="none of the recipes retrieval has an evaluated checkpoint"):
        promote_best(Layout(tmp_path), RECIPES, now=NOW)
    with pytest.raises(NoReleaseError, match="no model has been promoted"):
        read_champion(Layout(tmp_path))


def test_a_changed_byte_of_the_champion_is_refused_by_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trained(layout, FIRST, 0.7)
    promote_best(layout, RECIPES, now=NOW)
    folder = layout.checkpoints / "retrieval" / FIRST
    rng = np.random.default_rng(0)
    for file in [layout.champion, *sorted(folder.iterdir())]:
        original = file.read_bytes()
        for _ in range(25):
            what = flip_byte(file, rng)
            with pytest.raises(IntegrityError) as refused:
                embed_champion(layout, "100m-0000")
            assert str(file) in refused.value.cause, what
            assert "aterialise" in refused.value.remedy
            file.write_bytes(original)


@pytest.mark.parametrize("damaged", ["pointer", "model"])
def test_a_damaged_champion_is_replaced_by_the_best_intact_model(tmp_path: Path, damaged: str) -> None:
    layout = Layout(tmp_path)
    trained(layout, FIRST, 0.9)
    promote_best(layout, RECIPES, now=NOW)
    flip_byte(
        layout.champion if damaged == "pointer" else layout.checkpoints / "retrieval" / FIRST / "weights.safetensors",
        np.random.default_rng(1),
    )
    trained(layout, SECOND, 0.6, day=2)
    outcome = promote_best(layout, RECIPES, now=NOW)
    assert (outcome.promoted, read_champion(layout).model_version) == (True, SECOND)
    assert "takes its place" in outcome.reason


def test_a_damaged_champion_without_a_substitute_is_an_error(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trained(layout, FIRST, 0.9)
    promote_best(layout, RECIPES, now=NOW)
    flip_byte(layout.checkpoints / "retrieval" / FIRST / "weights.safetensors", np.random.default_rng(1))
    with pytest.raises(IntegrityError, match=r"weights\.safetensors has changed"):
        promote_best(layout, RECIPES, now=NOW)


def test_a_changed_evaluation_is_not_believed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    trained(layout, FIRST, 0.7)
    flip_byte(layout.evaluations / "retrieval" / FIRST / "report.json", np.random.default_rng(2))
    with pytest.raises(IntegrityError, match=r"report\.json has changed"):
        promote_best(layout, RECIPES, now=NOW)
    assert not layout.champion.exists()


def test_an_unknown_or_damaged_model_cannot_be_promoted(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    folder = write_model(layout, FIRST)
    with pytest.raises(IntegrityError, match="no folder"):
        promote(layout, SECOND, {}, NOW, "because")
    flip_byte(folder / "weights.safetensors", np.random.default_rng(3))
    with pytest.raises(IntegrityError, match=r"weights\.safetensors has changed"):
        promote(layout, FIRST, {}, NOW, "because")
    assert not layout.champion.exists()
