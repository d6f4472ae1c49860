"""What `geoloc.yaml` may say of running a region: what happens by itself, what holds a model up, whom to tell, what to tidy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from geoloc_dagster.config.section import Section


class PromotionSettings(Section):
    """When a newly evaluated model replaces the champion."""

    margin: float = Field(
        default=0.02, ge=0, lt=1, description="The gain's 95 % interval may reach this far below zero (a share of the queries)."
    )
    part_margin: float = Field(
        default=0.05, ge=0, lt=1, description="A district or capture year that is shown to lose more than this share holds it up."
    )
    part_min_queries: int = Field(default=30, gt=1, description="A district or capture year with fewer queries is not looked at.")
    part_min_places: int = Field(default=10, gt=1, description="Likewise with fewer places.")


class DriftSettings(Section):
    """When the champion is said to do worse on what is new than it did before; a warning, which changes nothing."""

    months: int = Field(default=12, gt=0, description="Pictures taken within so many months of the newest one are new.")
    margin: float = Field(default=0.02, ge=0, lt=1, description="A loss of up to this share of the queries is no warning.")
    min_queries: int = Field(default=30, gt=1, description="With fewer new, or fewer earlier, queries nothing is said.")
    min_places: int = Field(default=10, gt=1, description="Likewise with fewer places.")


class AutomationSettings(Section):
    """When the system acts by itself."""

    batches_per_night: int = Field(default=4, gt=0, description="Batches that the nightly schedule asks for.")
    order: Literal["rank", "gain"] = Field(
        default="rank",
        description="Of the nightly batches: `rank`, widest spacing first and from the start point on; or `gain`, those first "
        "that let the champion find most photos on top, judged by its evaluation, by coverage and by the age of pictures.",
    )
    rescan_after_days: int = Field(default=30, gt=0, description="A place whose last visit is older is asked for new dates.")
    retrain_after_rows: int = Field(default=2_000, gt=0, description="New usable rows that ask for a training.")


class AlertSettings(Section):
    """Whom to tell when a run fails."""

    webhook_variable: str = Field(
        default="GEOLOC_WEBHOOK_URL",
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="Holds the address that failed runs are posted to.",
    )
    timeout_s: float = Field(default=10, gt=0, le=60, description="Until an answer that does not come is given up.")


class MaintenanceSettings(Section):
    """What the weekly maintenance, and `geoloc maintain`, may take away."""

    keep_runs_days: int = Field(default=90, gt=0, description="Older runs go with their event logs, but for those still needed.")
    keep_versions_days: int = Field(
        default=7, ge=0, description="Older versions of tables go, but for those that a release, a champion or an index names."
    )
