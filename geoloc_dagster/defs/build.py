"""The code location as a function of its configuration, so that tests and other deployments can replace resources."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from geoloc_dagster.config import Settings
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.cores import share_cores
from geoloc_dagster.defs.alerts import build_failure_sensor
from geoloc_dagster.defs.assets import (
    cards,
    cells,
    champions,
    collection,
    coverage,
    dataset,
    index,
    photos,
    release,
    segmentation,
    training,
)
from geoloc_dagster.defs.assets import region as region_assets
from geoloc_dagster.defs.automation import build_automation_sensor, build_retraining_sensor, build_schedules
from geoloc_dagster.defs.checks import build_checks
from geoloc_dagster.defs.maintenance import build_maintenance_schedule
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Clock, Imagery, Mlflow, Scale, Webhook
from geoloc_dagster.learning.recipe import check_recipes


def build_definitions(
    config: Path | str | None = None, *, settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """Everything Dagster needs to know of one region.

    Args:
        config: path of the region's `geoloc.yaml`; found through GEOLOC_CONFIG or `./geoloc.yaml` when omitted.
        settings: settings that are loaded already; takes precedence over `config`.
        resource_overrides: resources to use in place of the default `clock`, `imagery`, `mlflow`, `scale`, `webhook` and `pipes`.

    Raises:
        ConfigError: the configuration is broken; the message names the line.
        ConfigNotFoundError: there is no configuration.
        RecipeError: a recipe is wrong, or does not go with the configuration.
    """
    share_cores()
    region = Region(settings or load_settings(None if config is None else Path(config)))
    check_recipes(
        region.settings.recipes,
        region.settings.folder,
        cells=region.settings.cells is not None,
        grid_cells=region.settings.grid_cells is not None,
        class_maps=region.settings.segmentation is not None,
        ensemble=region.settings.fusion.ensemble,
    )
    modules = (
        region_assets,
        coverage,
        collection,
        photos,
        segmentation,
        dataset,
        cells,
        training,
        champions,
        index,
        release,
        cards,
    )
    overrides = dict(resource_overrides or {})
    clock: Clock = overrides.setdefault("clock", Clock())
    resources: dict[str, Any] = {
        "imagery": Imagery(region.settings, clock),
        "mlflow": _mlflow(region, os.environ),
        "webhook": Webhook(region.settings.alerts.webhook_variable, region.settings.alerts.timeout_s),
        "scale": Scale(),
        "pipes": dg.PipesSubprocessClient(),
        **overrides,
    }
    return dg.Definitions(
        assets=[asset for module in modules for asset in module.build(region)],
        asset_checks=build_checks(region),
        schedules=[*build_schedules(region), build_maintenance_schedule(region)],
        sensors=[build_automation_sensor(region), build_retraining_sensor(region), build_failure_sensor(region)],
        resources=resources,
        executor=dg.in_process_executor,
    )


def _mlflow(region: Region, environ: Mapping[str, str]) -> Mlflow:
    """The server that MLFLOW_TRACKING_URI names, which says itself where files go; else the file below the data root."""
    server = environ.get("MLFLOW_TRACKING_URI")
    return Mlflow(
        tracking_uri=server or region.layout.mlflow_uri,
        artifact_location=None if server else str(region.layout.mlflow_artifacts),
        experiment=region.model_name,
        page=environ.get("GEOLOC_MLFLOW_PAGE"),
    )
