"""When things happen by themselves: conditions, sensors and schedules.

Collection is never declarative: it costs money and patience, so schedules with budgets ask for it. From `crops` on the
graph keeps itself up to date, and training is asked for by a sensor that counts what is new.
"""

from __future__ import annotations

import functools
import operator

import dagster as dg

from geoloc_dagster.defs.region import Region

AC = dg.AutomationCondition
WHY = "geoloc/why"
"""The tag of a run that says why this batch, and why now."""

_ORDERS = {"rank": "in rank order", "gain": "those first that are expected to add most"}


def refresh_condition() -> dg.AutomationCondition:
    """Follow the inputs of the same partition: catch up on what is missing, repeat what has new inputs.

    A partition that failed is not repeated until one of its own inputs changes, so a failed gate neither hammers nor
    holds up its neighbours. Nothing is built on inputs whose blocking check failed, such as a catalog that leaks.
    """
    due = (AC.missing() & ~AC.execution_failed()) | AC.any_deps_updated().since_last_handled()
    ready = ~AC.any_deps_missing() & ~AC.any_deps_in_progress() & AC.all_deps_blocking_checks_passed()
    return (due & ready & ~AC.in_progress()).with_label("follow_inputs")


def after_checks_condition() -> dg.AutomationCondition:
    """Follow the inputs, but only once every check of theirs has passed, warnings included: buffers wait for all lookups."""
    passed = AC.all_deps_match(AC.all_checks_match(AC.check_passed())).with_label("all_deps_checks_passed")
    return (refresh_condition() & passed).with_label("follow_checked_inputs")


def index_first_condition(region: Region) -> dg.AutomationCondition:
    """Follow the inputs, but after a promotion only once the index is the new champion's: until then the two do not fit."""
    if not region.recipes_of("retrieval"):
        return refresh_condition()
    coming = AC.newly_updated() | AC.will_be_requested()
    promoted = AC.asset_matches(region.key("champion"), coming)
    indexed = AC.asset_matches(region.key("faiss_index"), coming) & ~promoted
    waiting = promoted.since(indexed).with_label("waits_for_the_index_of_the_champion")
    return (refresh_condition() & ~waiting).with_label("follow_inputs_after_the_index")


def fan_in_condition(region: Region, *partitioned: str) -> dg.AutomationCondition:
    """Follow all partitions of the assets `partitioned` without waiting for those that are still to be collected, or failed.

    `~any_deps_missing` would hold the asset up until the last registered batch is there, which at a few batches a night
    is months; instead at least one partition of each must be there, and none of them may be on its way.
    """
    fan_in = dg.AssetSelection.assets(*(region.key(name) for name in partitioned))
    each = [AC.any_deps_match(~AC.missing()).allow(dg.AssetSelection.assets(region.key(name))) for name in partitioned]
    something = functools.reduce(operator.and_, each)
    others_missing = AC.any_deps_match(AC.missing()).ignore(fan_in)
    due = (AC.missing() & ~AC.execution_failed()) | AC.any_deps_updated().since_last_handled()
    ready = something & ~others_missing & ~AC.any_deps_in_progress() & AC.all_deps_blocking_checks_passed()
    return (due & ready & ~AC.in_progress()).with_label("follow_all_batches")


def build_automation_sensor(region: Region) -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates the conditions of this region, and of no other."""
    return dg.AutomationConditionSensorDefinition(
        f"{region.name}_automation",
        target=dg.AssetSelection.key_prefixes([region.name]),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        run_tags={"geoloc/region": region.name, "geoloc/trigger": "automation"},
    )


def build_retraining_sensor(region: Region) -> dg.SensorDefinition:
    """Ask for a training of a recipe once enough usable rows have come in since its newest checkpoint."""
    threshold = region.settings.automation.retrain_after_rows

    @dg.sensor(
        name=f"{region.name}_retraining",
        target=dg.AssetSelection.assets(region.key("checkpoints"), region.key("evaluations")),
        minimum_interval_seconds=300,
        description=f"Asks for a training when the catalog has {threshold:,} more usable rows than the newest checkpoint saw.",
    )
    def retraining(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from geoloc_dagster.dataset.freshness import retraining_due, usable_rows
        from geoloc_dagster.learning.recipe import load_recipe
        from geoloc_dagster.learning.registry import newest_training

        layout = region.fresh_layout()
        if not layout.catalog.is_file():
            return dg.SkipReason("there is no catalog yet")
        requests: list[dg.RunRequest] = []
        reasons: list[str] = []
        for recipe in region.settings.recipes:
            newest = newest_training(layout.checkpoints / recipe)
            rows = usable_rows(layout.catalog, load_recipe(recipe, region.settings.folder).data.splits)
            due, reason = retraining_due(rows, newest.usable_rows if newest else 0, threshold)
            reasons.append(f"{recipe}: {reason}")
            if due:
                version = newest.model_version if newest else "first"
                requests.append(
                    dg.RunRequest(
                        run_key=f"retrain-{recipe}-{version}-{rows}",
                        partition_key=recipe,
                        tags={"geoloc/region": region.name, "geoloc/trigger": "retraining"},
                    )
                )
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("; ".join(reasons))

    return retraining


def build_schedules(region: Region) -> list[dg.ScheduleDefinition]:
    """Every schedule of the region; lookups only where a live service is asked."""
    lookups = [] if region.settings.coverage.provider == "csv" else [build_lookup_schedule(region)]
    return [*lookups, build_collection_schedule(region)]


def build_lookup_schedule(region: Region) -> dg.ScheduleDefinition:
    """Every night, look up the next grid points, as many as one run may."""
    job = dg.define_asset_job(
        f"{region.name}_lookups",
        selection=dg.AssetSelection.assets(region.key("street_view_metadata")),
        description="Ask the service about the next grid points.",
    )

    order = "nearest to the start first" if region.settings.grid_cells is None else "in rounds over the cells"

    @dg.schedule(
        name=f"{region.name}_nightly_lookups",
        job=job,
        cron_schedule="0 0 * * *",
        execution_timezone="UTC",
        description=f"Asks about the next {region.settings.coverage.lookups_per_run:,} grid points, {order}.",
    )
    def nightly_lookups(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        from geoloc_dagster.imagery.lookups import points_due

        layout = region.fresh_layout()
        if not layout.grid_points.is_file():
            return dg.SkipReason("there is no grid yet; materialise the group `region` first")
        due = points_due(region.settings, layout, now=context.scheduled_execution_time)
        if due == 0:
            return dg.SkipReason("every grid point has an answer that is still valid")
        night = context.scheduled_execution_time.date().isoformat()
        return dg.RunRequest(run_key=f"lookups-{night}", tags=_nightly(region))

    return nightly_lookups


def build_collection_schedule(region: Region) -> dg.ScheduleDefinition:
    """Every night, collect the next batches within the budgets: first what was never visited to the end, then revisits."""
    job = dg.define_asset_job(
        f"{region.name}_collection",
        selection=dg.AssetSelection.assets(region.key(region.pictures)),
        partitions_def=region.batches,
        description="Collect one batch of locations.",
    )

    @dg.schedule(
        name=f"{region.name}_nightly_collection",
        job=job,
        cron_schedule="0 1 * * *",
        execution_timezone="UTC",
        description=f"Asks for the next batches that are not complete, {_ORDERS[region.settings.automation.order]}, then for "
        "those due for another visit, within the budgets. The tag geoloc/why of each run says why it is its turn.",
    )
    def nightly_collection(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        from geoloc_dagster.imagery.nightly import batches_of_the_night

        night = context.scheduled_execution_time
        tonight = batches_of_the_night(region.settings, region.fresh_layout(), night)
        if not tonight.batches:
            return dg.SkipReason(tonight.nothing)
        date = night.date().isoformat()
        return [
            dg.RunRequest(run_key=f"{date}-{key}", partition_key=key, tags=_nightly(region) | {WHY: why})
            for key, why in tonight.batches.items()
        ]

    return nightly_collection


def _nightly(region: Region) -> dict[str, str]:
    return {"geoloc/region": region.name, "geoloc/trigger": "nightly"}
