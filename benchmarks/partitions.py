"""What Dagster's control plane takes as the batches of a region become many.

    python benchmarks/partitions.py [--batches 100 1000 10000]

A stack of its own runs (PostgreSQL, code server, webserver, proxy; the daemon is kept down, so that nothing starts by itself)
over the demo's region. At each size batches are registered, their pictures, crops and vectors recorded as made, and then asked:
how long the region's automation takes to look at everything (the first time, again when nothing has happened, and after one
batch more has been collected), how large its cursor is, and how long the pages of the UI wait for what they ask. Medians of
`--rounds`.
"""

from __future__ import annotations

import argparse
import importlib.resources
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dagster as dg
from dagster import DagsterInstance

from geoloc_dagster.defs import build_definitions
from geoloc_dagster_tests.stack.driver import RunningStack, open_folder, running_stack

PARTITIONED = ("panoramas", "crops", "embeddings")
ASSET = """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
    partitionStats { numMaterialized numPartitions numFailed }
    assetPartitionStatuses { ... on DefaultPartitionStatuses {
        materializedPartitions unmaterializedPartitions failedPartitions } }
    latestMaterializationByPartition(partitions: ["60m-0000"]) { timestamp } } } }"""
GRAPH = """{ assetNodes { assetKey { path } staleStatus dependencyKeys { path }
    partitionStats { numMaterialized numPartitions numFailed } assetMaterializations(limit: 1) { timestamp } } }"""
KEYS = """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
    partitionKeyConnection(limit: 100, ascending: true) { results hasMore }
    partitionKeysByDimension { name partitionKeys } } } }"""
STEPS = ("registering", "one event", "first look", "nothing new", "one more", "cursor, kB", "asset page", "keys", "graph")


def batch(number: int) -> str:
    """The key of a batch."""
    return f"60m-{number:04d}"


def collected(instance: DagsterInstance, numbers: Sequence[int]) -> float:
    """Record batches as collected, cropped and embedded; seconds an event."""
    began = time.perf_counter()
    for name in PARTITIONED:
        for number in numbers:
            key = dg.AssetKey(["demo", name])
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=batch(number), metadata={"rows": 400}))
    return (time.perf_counter() - began) / (len(numbers) * len(PARTITIONED))


def timed(call: Callable[[], Any], rounds: int) -> float:
    """Median seconds."""
    seconds = list[float]()
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def measure(stack: RunningStack, instance: DagsterInstance, defs: dg.Definitions, grown: range, rounds: int) -> list[float]:
    """One size: what `STEPS` names, in seconds but for the cursor."""
    began = time.perf_counter()
    for start in range(grown.start, grown.stop, 1000):
        instance.add_dynamic_partitions("demo_batches", [batch(i) for i in range(start, min(start + 1000, grown.stop))])
    registering = time.perf_counter() - began
    event = collected(instance, range(grown.start, grown.stop - rounds))

    def look(cursor: Any = None) -> Any:
        return dg.evaluate_automation_conditions(defs, instance, cursor=cursor).cursor

    began = time.perf_counter()
    cursor = look()
    first = time.perf_counter() - began
    nothing = timed(lambda: look(cursor), rounds)
    after = list[float]()
    for number in range(grown.stop - rounds, grown.stop):
        collected(instance, [number])
        began = time.perf_counter()
        cursor = look(cursor)
        after.append(time.perf_counter() - began)
    path = ["demo", "panoramas"]
    pages = [lambda: stack.graphql(ASSET, path=path), lambda: stack.graphql(KEYS, path=path), lambda: stack.graphql(GRAPH)]
    size = len(dg.serialize_value(cursor)) / 1000
    return [registering, event, first, nothing, statistics.median(after), size, *(timed(page, rounds) for page in pages)]


def check(stack: RunningStack, batches: int) -> None:
    """The UI counts what was registered and made.

    Raises:
        AssertionError: it counts something else.
    """
    said = stack.graphql(ASSET, path=["demo", "panoramas"])["assetNodeOrError"]
    assert said["partitionStats"] == {"numMaterialized": batches, "numPartitions": batches, "numFailed": 0}, said[
        "partitionStats"
    ]


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with open_folder() as folder:
        region = folder / "demo"
        with importlib.resources.as_file(importlib.resources.files("geoloc_dagster") / "templates" / "demo") as template:
            shutil.copytree(template, region)
        with running_stack(region, "--no-mlflow", "--no-explorer", held=("daemon",)) as stack:
            os.environ["DAGSTER_HOME"] = str(stack.folder.dagster_home)
            os.environ["GEOLOC_DATA_ROOT"] = str(region / "data")
            defs = build_definitions(region / "geoloc.yaml")
            print("| batches | " + " | ".join(STEPS) + " |\n|---:|" + "---:|" * len(STEPS))
            with DagsterInstance.get() as instance:
                size = 0
                for batches in sorted(options.batches):
                    figures = measure(stack, instance, defs, range(size, batches), options.rounds)
                    check(stack, batches)
                    size = batches
                    print(f"| {batches:,} | " + " | ".join(f"{figure:.3g}" for figure in figures) + " |", flush=True)


if __name__ == "__main__":
    main()
