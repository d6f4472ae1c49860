"""Failed runs, told to a webhook: the sensor that notices them, and what it says of one."""

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg

from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Webhook

if TYPE_CHECKING:
    from geoloc_dagster.alerts import Alert

UI = "http://127.0.0.1:3000"


def build_failure_sensor(region: Region) -> dg.SensorDefinition:
    """Post every failed run of the region; a webhook that fails is said in the tick, and changes no run."""

    @dg.run_failure_sensor(
        name=f"{region.name}_failure_alerts",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=f"Posts failed runs to the address in {region.settings.alerts.webhook_variable}; does nothing without it.",
    )
    def failure_alerts(context: dg.RunFailureSensorContext, webhook: dg.ResourceParam[Webhook]) -> dg.SkipReason | None:
        if not webhook.configured():
            return dg.SkipReason(f"{webhook.variable} is not set, so nobody is told")
        problem = webhook.send(alert_of(region, context))
        if problem is None:
            context.log.info("told the webhook that run %s failed", context.dagster_run.run_id)
            return None
        context.log.warning("run %s failed, and nobody was told: %s", context.dagster_run.run_id, problem)
        return dg.SkipReason(problem)

    return failure_alerts


def alert_of(region: Region, context: dg.RunFailureSensorContext) -> "Alert":
    """What to say of the run: its first failed step, or the run itself."""
    from geoloc_dagster.alerts import Alert

    run = context.dagster_run
    steps = context.get_step_failure_events()
    asset, error_class, code, failure_class = None, "RunFailure", None, None
    if steps:
        data = steps[0].step_failure_data
        asset = (steps[0].step_key or "").removeprefix(f"{region.name}__") or None
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        error_class = "unknown" if error is None else error.cls_name or "unknown"
        said = {} if data.user_failure_data is None else data.user_failure_data.metadata
        code, failure_class = (str(said[name].value) if name in said else None for name in ("code", "class"))
    return Alert(
        region=region.name,
        job=run.job_name,
        asset=asset,
        partition=run.tags.get("dagster/partition"),
        error_class=error_class,
        code=code,
        failure_class=failure_class,
        run_id=run.run_id,
        url=f"{(region.settings.explorer.dagster_url or UI).rstrip('/')}/runs/{run.run_id}",
        failed_at=_ended_at(context),
    )


def _ended_at(context: dg.RunFailureSensorContext) -> str:
    record = context.instance.get_run_record_by_id(context.dagster_run.run_id)
    ended = None if record is None else record.end_time
    return "unknown" if ended is None else dt.datetime.fromtimestamp(ended, dt.UTC).isoformat()
