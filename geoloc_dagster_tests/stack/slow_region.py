"""The definitions of a region for trials of faults: partitions that take a while and say in a file what they have done.

A run that is repeated goes on where the one before it stopped, as collection does. `TICKS` and `TICK_S` say how long one takes.
A second asset fails at once, which the sensor of failed runs tells a webhook where there is one.
"""

import fcntl
import os
import time
from pathlib import Path

import dagster as dg

from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.alerts import build_failure_sensor
from geoloc_dagster.defs.region import Region
from geoloc_dagster.defs.resources import Webhook

FOLDER = Path(__file__).resolve().parent / "progress"
TICKS, TICK_S = int(os.environ.get("TRIAL_TICKS", "20")), float(os.environ.get("TRIAL_TICK_S", "0.3"))
parts = dg.StaticPartitionsDefinition(["oslo", "bergen", "tromso", "bodo"])


@dg.asset(key=["slow", "steps"], partitions_def=parts, pool="trial")
def steps(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """One line per step; a partition that another run is at is an error that no repetition mends."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{context.partition_key}.txt"
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (FOLDER / f"{context.partition_key}.two-at-once").touch()
            raise dg.Failure("two runs at once", allow_retries=False) from None
        stream.seek(0)
        done = len(stream.read().splitlines())
        for number in range(done, TICKS):
            time.sleep(TICK_S)
            stream.write(f"{number} {os.getpid()} {context.run_id}\n")
            stream.flush()
            if number % 5 == 0:
                context.log.info("step %s", number)
    return dg.MaterializeResult(metadata={"steps": TICKS, "resumed_at": done})


@dg.asset(key=["slow", "refused"])
def refused() -> None:
    """A step that ends as with a key that is refused."""
    raise dg.Failure("the service refused the key", allow_retries=False)


region = Region(load_settings(Path(__file__).with_name("geoloc.yaml")))
defs = dg.Definitions(
    assets=[steps, refused],
    sensors=[build_failure_sensor(region)],
    resources={"webhook": Webhook("GEOLOC_WEBHOOK_URL", 5.0)},
    executor=dg.in_process_executor,
)
