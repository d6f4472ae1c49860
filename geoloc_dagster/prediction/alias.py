"""The champion in MLflow's model registry: one registered model per region, one version per promotion, one alias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geoloc_dagster.prediction.champion import Champion
from geoloc_dagster.storage import read_json

ALIAS = "champion"


def point_alias(tracking_uri: str, model_name: str, champion: Champion) -> str:
    """Register the champion's folder as a version of `model_name`, unless it is one, and point the alias at it; may be repeated.

    Returns:
        The version's number in MLflow.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    if not client.search_registered_models(filter_string=f"name = '{model_name}'"):
        client.create_registered_model(model_name)
    known = [
        version.version
        for version in client.search_model_versions(f"name = '{model_name}'")
        if version.tags.get("model_version") == champion.model_version
    ]
    number = str(known[0]) if known else _new_version(client, model_name, champion)
    client.set_registered_model_alias(model_name, ALIAS, number)
    return number


def _new_version(client: Any, model_name: str, champion: Champion) -> str:
    run_id = _run_id(champion.folder)
    version = client.create_model_version(
        model_name,
        source=str(champion.folder),
        run_id=run_id,
        tags={"model_version": champion.model_version, "recipe": champion.recipe},
        description=champion.reason,
    )
    return str(version.version)


def _run_id(folder: Path) -> str | None:
    run_id = read_json(folder / "training.json").get("mlflow_run_id")
    return None if run_id is None else str(run_id)
