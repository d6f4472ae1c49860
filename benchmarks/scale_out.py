"""The same graph on a cluster of two Ray nodes as in one process: the same tables, a node lost on the way, and what it costs.

    python -m benchmarks.scale_out [--parts same,killed,local,multiprocess,tasks] [--folder DIR]

Everything runs in a network and among processes of its own, in which there is only a loopback interface. A small emulated region
is collected once. `same` makes everything else of it twice, in one process and with GEOLOC_ENGINE=ray, and compares every table
and figure. `killed` then makes crops and vectors of the second once more, through the stack and as backfills on Ray, and kills a
node while it is at a piece. `local` makes the crops through a stack without Ray, `multiprocess` with Dagster's multiprocess
executor and its in-process one, and `tasks` counts what a piece costs. Fails where a table differs, or a row is there twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geoloc_dagster.config import Layout
from geoloc_dagster.dataset.pending import registered_batches
from geoloc_dagster.storage import read_json, read_parquet
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.end_to_end.regions import ORIGIN, rectangle, write_region
from geoloc_dagster_tests.scale.cluster import (
    ADDRESS,
    INSIDE,
    JOBS,
    Cluster,
    isolated,
    require_started,
    running_cluster,
    wait_for,
)
from geoloc_dagster_tests.stack.driver import BACKFILL, RunningStack, running_stack

NAME = "scaled"
LAUNCH = """mutation($names: [String!]!, $path: [String!]!) { launchPartitionBackfill(backfillParams: {
    partitionNames: $names, assetSelection: [{path: $path}], fromFailure: false}) {
    ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } ... on UnauthorizedError { message } } }"""
RUNS = """{ runsOrError { ... on Runs { results { runId status creationTime startTime endTime tags { key value } } } } }"""
STEPS = """query($id: ID!) { runOrError(runId: $id) { ... on Run { stepStats { startTime endTime status } } } }"""
VOLATILE = {"run_id", "fetched_at"}
RECIPE = {
    "version": 1,
    "name": "tiny",
    "data": {"place": "view", "image_size": 32, "stored_size": 36},
    "backbone": {
        "library": "timm",
        "name": "resnet_basic",
        "channels": [8, 8, 16, 16],
        "blocks": [1, 1, 1, 1],
        "weights": "none",
    },
    "head": {"dimension": 32},
    "loss": {"multi_similarity": {}},
    "sampler": {"places": 8, "pictures_per_place": 2},
    "budget": {"epochs": 1},
}


def prepare(folder: Path) -> Path:
    """The region's folder: some 300 m each way, batches of more rows than one piece has."""
    region = folder / NAME
    (region / "recipes").mkdir(parents=True)
    around = ((ORIGIN[0] - 0.0018, ORIGIN[1] - 0.0025), (ORIGIN[0] + 0.0018, ORIGIN[1] + 0.0025))
    sections: dict[str, Any] = {
        "region": {"name": NAME},
        "buffers": {"spacings_m": [20], "batch_size": 32},
        "capture": {"size": [160, 160], "headings_deg": list(range(0, 360, 45)), "commit_rows": 256},
        "crops": {"size": 96},
        "recipes": ["tiny"],
    }
    write_region(region, boundary=rectangle(*around), **sections)
    (region / "recipes" / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    (region / "definitions.py").write_text(
        "from pathlib import Path\n\nfrom geoloc_dagster.defs import build_definitions\n\n"
        'defs = build_definitions(config=Path(__file__).with_name("geoloc.yaml"))\n'
    )
    return region


# --- the same graph --------------------------------------------------------------------------------------------------
def make(region: Path, root: Path, *select: str, **environment: str) -> dict[str, Any]:
    """`geoloc run` in a process of its own; its summary, with the wall time."""
    command = [sys.executable, "-m", "geoloc_dagster", "run", "--config", str(region), "--data-root", str(root), *select]
    began = time.monotonic()
    done = subprocess.run(command, env={**os.environ, **environment}, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {**read_json(Layout(root).reports / "summary.json"), "wall_s": time.monotonic() - began}


def digest(rows: list[dict[str, Any]]) -> str:
    """Of rows in whatever order, without what tells one run from another."""
    lines = sorted(repr(sorted((name, value) for name, value in row.items() if name not in VOLATILE)) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def table_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a table whose files are those that were written; no capture is there twice."""
    verify_table(path)
    table = open_table(path)
    assert table is not None
    rows = table.to_table().to_pylist()
    ids = [row["capture_id"] for row in rows]
    assert len(set(ids)) == len(ids), f"{path.name}: {len(ids) - len(set(ids))} captures are there twice"
    return rows


def contents(root: Path) -> dict[str, tuple[int, str]]:
    """Rows and digest of everything that the graph has made of a region."""
    layout = Layout(root)
    tables = {path.stem: table_rows(path) for path in (layout.crops, layout.embeddings)}
    tables["catalog"] = read_parquet(layout.catalog).to_pylist()
    index = max(layout.indexes.glob("*/rows.parquet"), key=lambda path: path.stat().st_mtime)
    tables["index rows"] = read_parquet(index).to_pylist()
    return {name: (len(rows), digest(rows)) for name, rows in tables.items()}


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    """What the evaluation says of the recipe."""
    return {name: value for name, value in summary.items() if name not in ("assets", "seconds", "wall_s", "versions")}


def collect(region: Path, one: Path, two: Path) -> None:
    """Look up and collect the region once: that is never done by a cluster."""
    began = time.monotonic()
    make(region, one, "--select", "region_boundary,grid_points,street_view_metadata,buffer_csvs,panoramas")
    shutil.copytree(one, two)
    table = open_table(Layout(one).panoramas)
    assert table is not None
    batches = dict(Counter(table.to_table(columns=["batch"])["batch"].to_pylist()))
    print(f"collected {table.count_rows()} views in {time.monotonic() - began:.0f} s: {batches}", flush=True)


def same(region: Path, one: Path, two: Path) -> None:
    """Make the region in one process and with a cluster, and compare."""
    alone = make(region, one, "--select", "crops+")
    together = make(region, two, "--select", "crops+", GEOLOC_ENGINE="ray", RAY_ADDRESS=ADDRESS)
    print(f"\nrun in one process {alone['wall_s']:.0f} s, with tasks on two nodes {together['wall_s']:.0f} s")
    print("\n| asset | rows | in one process s | tasks on two nodes s |\n|---|---:|---:|---:|")
    for name in ("crops", "catalog", "checkpoints", "embeddings"):
        left, right = alone["assets"][name], together["assets"][name]
        print(f"| {name} | {left['rows']} | {left['seconds']:.1f} | {right['seconds']:.1f} |")
    require_same(contents(one), contents(two))
    assert figures(alone) == figures(together), (figures(alone), figures(together))
    print(f"the same figures, sha256 of all: {hashlib.sha256(repr(figures(alone)).encode()).hexdigest()[:16]}", flush=True)


def require_same(one: dict[str, tuple[int, str]], two: dict[str, tuple[int, str]]) -> None:
    """Print both, and fail where they differ."""
    print("\n| table | rows | sha256 in one process | on the cluster |\n|---|---:|---|---|")
    for name, (rows, sha256) in one.items():
        print(f"| {name} | {rows} | {sha256} | {two[name][1]} |", flush=True)
    assert one == two


# --- backfills -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Timing:
    """Of the runs of a backfill, in seconds: medians of waiting, of starting, and of what is not the step itself."""

    runs: int
    wall_s: float
    start_s: float
    beside_s: float
    step_s: float

    def __str__(self) -> str:
        return f"{self.runs} | {self.wall_s:.0f} | {self.start_s:.1f} | {self.step_s:.1f} | {self.beside_s:.1f}"


def backfill(
    stack: RunningStack, asset: str, keys: list[str], strike: Callable[[], None] | None = None, most_s: float = 480
) -> Timing:
    """Materialise partitions of an asset; `strike` is called while they are made."""
    began = time.monotonic()
    number = stack.graphql(LAUNCH, names=keys, path=[NAME, asset])["launchPartitionBackfill"]["backfillId"]
    if strike is not None:
        strike()
    state = lambda: stack.graphql(BACKFILL, id=number)["partitionBackfillOrError"]["status"]  # noqa: E731
    stack.wait_for(lambda: state().startswith(("COMPLETED", "FAILED", "CANCELED")), f"backfill of {asset}", most_s)
    assert state() == "COMPLETED_SUCCESS", state()
    wall = time.monotonic() - began
    tag = {"key": "dagster/backfill", "value": number}
    runs = [run for run in stack.graphql(RUNS)["runsOrError"]["results"] if tag in run["tags"]]
    assert [run["status"] for run in runs].count("SUCCESS") == len(keys), runs
    done = [run for run in runs if run["status"] == "SUCCESS"]
    steps = {run["runId"]: stack.graphql(STEPS, id=run["runId"])["runOrError"]["stepStats"] for run in done}
    step = {number: sum(one["endTime"] - one["startTime"] for one in stats) for number, stats in steps.items()}
    return Timing(
        len(runs),
        wall,
        statistics.median(run["startTime"] - run["creationTime"] for run in done),
        statistics.median(run["endTime"] - run["creationTime"] - step[run["runId"]] for run in done),
        statistics.median(step.values()),
    )


@contextmanager
def stack_of(region: Path, root: Path, *arguments: str) -> Generator[RunningStack]:
    """A stack over a data root, in whose instance the batches are registered."""
    link = region / "data"
    link.unlink(missing_ok=True)
    link.symlink_to(root)
    options = ["--no-mlflow", "--no-explorer", "--poll-s", "5", *arguments]
    with running_stack(region, *options, wait_s=420.0) as stack:
        names = registered_batches(Layout(root))
        add = "mutation($s: RepositorySelector!, $k: String!) { addDynamicPartition(repositorySelector: $s, partitionKey: $k,"
        add += f' partitionsDefName: "{NAME}_batches") {{ __typename }} }}'
        for name in names:
            where = {"repositoryName": "__repository__", "repositoryLocationName": NAME}
            answer = stack.graphql(add, s=where, k=name)["addDynamicPartition"]["__typename"]
            assert answer in ("AddDynamicPartitionSuccess", "DuplicateDynamicPartitionError"), answer
        yield stack


def forget_tables(root: Path, *tables: str) -> None:
    """As if they had never been made."""
    for name in tables:
        for path in (root / "tables").glob(f"{name}.lance*"):
            shutil.rmtree(path)
    for path in (root / "tables").glob("*receipts*"):
        shutil.rmtree(path)


def killed(region: Path, one: Path, two: Path, cluster: Cluster) -> None:
    """Crops and vectors as backfills on Ray, of which one loses a node."""
    keys = registered_batches(Layout(two))
    forget_tables(two, "crops", "embeddings")
    with stack_of(region, two, "--ray", JOBS) as stack:
        lost: list[float] = []
        began = time.monotonic()

        def kill() -> None:
            node = cluster.nodes[-1]
            wait_for(lambda: node.works_on("crop_piece"), "a piece on the second node", 400)
            node.kill()
            lost.append(time.monotonic() - began)

        print("\n| backfill on Ray | runs | wall s | asked to started s | step s | run without its step s |", flush=True)
        print("|---|---:|---:|---:|---:|---:|", flush=True)
        print(f"| crops, a node killed at a piece | {backfill(stack, 'crops', keys, kill)} |", flush=True)
        print(f"| embeddings, on the node that is left | {backfill(stack, 'embeddings', keys)} |", flush=True)
    print(f"the node was killed {lost[0]:.0f} s after the backfill was asked for", flush=True)
    require_same(contents(one), contents(two))


def local(region: Path, root: Path) -> None:
    """The same backfill as processes of this machine."""
    forget_tables(root, "crops")
    with stack_of(region, root) as stack:
        timing = backfill(stack, "crops", registered_batches(Layout(root)))
    print("\n| backfill through the local launcher | runs | wall s | asked to started s | step s | run without its step s |")
    print(f"|---|---:|---:|---:|---:|---:|\n| crops | {timing} |", flush=True)


# --- executors -------------------------------------------------------------------------------------------------------
EXECUTORS = """
import json, sys, time
from pathlib import Path
import dagster as dg
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.build import build_definitions
from geoloc_dagster.dataset.pending import registered_batches
from geoloc_dagster.config import Layout

NAME, FOLDER, ROOT = {name!r}, Path({folder!r}), Path({root!r})


def job():
    made = build_definitions(settings=load_settings(FOLDER, data_root=ROOT))
    executor = dg.multiprocess_executor.configured({{"max_concurrent": 2}})
    wanted = dg.define_asset_job("cropping", [dg.AssetKey([NAME, "crops"])], executor_def=executor)
    return dg.Definitions(assets=made.assets, resources=made.resources, jobs=[wanted]).resolve_job_def("cropping")


if __name__ == "__main__":
    which, keys, seconds, steps = sys.argv[1], registered_batches(Layout(ROOT)), [], []
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(NAME + "_batches", keys)
        for key in keys:
            began = time.monotonic()
            if which == "in_process":
                result = job().execute_in_process(instance=instance, partition_key=key)
                events = result.all_events
            else:
                tags = {{"dagster/partition": key}}
                with dg.execute_job(dg.reconstructable(job), instance=instance, tags=tags) as result:
                    events = result.all_events
            assert result.success
            seconds.append(time.monotonic() - began)
            steps.append(sum(e.step_success_data.duration_ms / 1000 for e in events if e.is_step_success))
    print(json.dumps([seconds, steps]))
"""


def multiprocess(region: Path, root: Path, folder: Path) -> None:
    """One run per partition, in a process that has loaded everything, with each of Dagster's executors."""
    script = folder / "executors.py"
    script.write_text(EXECUTORS.format(name=NAME, folder=str(region), root=str(root)))
    print("\n| executor, from a process that is there | runs | step s | run without its step s |\n|---|---:|---:|---:|")
    for which in ("in_process", "multiprocess"):
        forget_tables(root, "crops")
        done = subprocess.run([sys.executable, str(script), which], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        seconds, steps = json.loads(done.stdout.splitlines()[-1])
        beside = statistics.median(one - step for one, step in zip(seconds, steps, strict=True))
        print(f"| {which} | {len(seconds)} | {statistics.median(steps):.1f} | {beside:.1f} |", flush=True)


def tasks() -> None:
    """What a piece costs that does nothing."""
    code = (
        "import json, os, time\n"
        "from geoloc_dagster.scale.engine import LOCAL\n"
        "from geoloc_dagster.scale.ray_engine import RayEngine, connect\n"
        "from geoloc_dagster_tests.scale.work import Empty, nothing\n"
        "began = time.monotonic(); connect(os.environ); joined = time.monotonic() - began\n"
        "pieces, seconds = [Empty() for _ in range(500)], []\n"
        "for engine in (RayEngine(), RayEngine(), LOCAL):\n"
        "    began = time.monotonic(); engine.map(nothing, pieces, lambda _: None); seconds.append(time.monotonic() - began)\n"
        "print(json.dumps([joined, *seconds]))\n"
    )
    environment = {**os.environ, "RAY_ADDRESS": ADDRESS}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    joined, first, second, here = json.loads(done.stdout.splitlines()[-1])
    print(f"\njoining the cluster {joined:.1f} s; 500 empty pieces: first {first:.2f} s, again {second:.2f} s ", end="")
    print(f"({second * 2:.1f} ms each), in one process {here * 1000:.1f} ms", flush=True)


def nodes(cluster: Cluster) -> int:
    """How many have joined."""
    require_started(cluster)
    command = [str(Path(sys.executable).with_name("ray")), "status", f"--address={ADDRESS}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.count(" node_")


def measure(parts: list[str], folder: Path) -> None:
    """All parts that are wanted, on one region."""
    one, two = folder / "one", folder / "two"
    region = folder / NAME if (folder / NAME).exists() else prepare(folder)
    if not one.exists():
        collect(region, one, two)
    began = time.monotonic()
    if {"same", "killed", "tasks"} & set(parts):
        with running_cluster(dashboard=True) as cluster:
            head = time.monotonic() - began
            cluster.add_node()
            wait_for(lambda: nodes(cluster) == 2, "two nodes")
            print(f"the head was there after {head:.0f} s, both nodes after {time.monotonic() - began:.0f} s", flush=True)
            if "tasks" in parts:
                tasks()
            if "same" in parts:
                same(region, one, two)
            if "killed" in parts:
                killed(region, one, two, cluster)
    if "local" in parts:
        local(region, two)
    if "multiprocess" in parts:
        multiprocess(region, two, folder)


def main() -> None:
    """Run what is wanted in a network of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="tasks,same,killed,local,multiprocess", help="which, comma separated")
    parser.add_argument("--folder", type=Path, help="kept afterwards; one that is there already is gone on with")
    arguments = parser.parse_args()
    if not os.environ.get(INSIDE):
        sys.exit(isolated("benchmarks.scale_out", *sys.argv[1:]).returncode)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="geoloc-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    measure(arguments.parts.split(","), folder)
    if arguments.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
