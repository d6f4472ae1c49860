"""`python -m geoloc_dagster_tests.scale.trial FOLDER`: everything that needs a cluster, with one start of one.

Writes what it saw to `FOLDER/seen.json`; the tests judge it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from geoloc_dagster.config.dataset import CropSettings
from geoloc_dagster.dataset.crops import write_crops
from geoloc_dagster.dataset.schema import CAPTURES
from geoloc_dagster.errors import GeolocError
from geoloc_dagster.retrieval import embedding
from geoloc_dagster.scale.engine import LOCAL, Engine
from geoloc_dagster.scale.ray_engine import RayEngine, connect
from geoloc_dagster.storage import write_json
from geoloc_dagster.tables import append_rows, open_table, verify_table
from geoloc_dagster_tests.dataset.test_crops import capture
from geoloc_dagster_tests.imagery.pictures import jpeg
from geoloc_dagster_tests.retrieval.city import FakeEncoder
from geoloc_dagster_tests.scale.cluster import ADDRESS, Cluster, Node, require_started, running_cluster, wait_for
from geoloc_dagster_tests.scale.work import FakeLoading, Nap, nap

BATCH, OTHER, ROWS = "100m-0000", "100m-0001", 1_100
SETTINGS = CropSettings(size=32)


def main(folder: Path) -> None:
    captures = folder / "captures.lance"
    write_captures(captures)
    began = time.monotonic()
    with running_cluster() as cluster:
        node = cluster.add_node()
        connect({**os.environ, "RAY_ADDRESS": ADDRESS})
        import ray

        def both() -> bool:
            require_started(cluster)
            return len([one for one in ray.nodes() if one["Alive"]]) == 2

        wait_for(both, "two nodes")
        seen: dict[str, Any] = {"start_s": round(time.monotonic() - began, 1)}
        engine = RayEngine()
        seen["cut"] = [[part.start, part.stop] for part in engine.cut(ROWS)]
        for name, one in (("local", LOCAL), ("ray", engine)):
            seen[name] = made(folder / name, captures, one)
        seen["refused"] = refused(folder / "refused", captures, engine)
        seen["killed"] = killed(folder, cluster, node, engine)
        seen["seconds"] = round(time.monotonic() - began, 1)
        write_json(folder / "seen.json", seen)
        ray.shutdown()


def write_captures(path: Path) -> None:
    """A batch of many captures, a few of them broken, and another whose last one has been changed."""
    pictures = [jpeg(number, 48) for number in range(7)]
    rows = [capture(pictures[number % 7][: None if number % 500 else 60], number) for number in range(ROWS)]
    rows += [capture(pictures[0], 9_000 + number, batch=OTHER) for number in range(ROWS)]
    rows[-1]["image"] = pictures[1]
    for first in range(0, len(rows), 400):
        append_rows(path, pa.Table.from_pylist(rows[first : first + 400], schema=CAPTURES))


def made(folder: Path, captures: Path, engine: Engine) -> dict[str, Any]:
    """Crops and vectors of the batch, twice: the second time nothing is left to do."""
    ticks: list[tuple[int, int]] = []
    crops, vectors = folder / "crops.lance", folder / "embeddings.lance"
    embedding.Loading = FakeLoading  # type: ignore[misc]
    for _ in range(2):
        cropped = write_crops(captures, crops, BATCH, SETTINGS, lambda *state: ticks.append(state), engine)
        embedded = embedding.embed_batch(FakeEncoder(), crops, vectors, BATCH, engine=engine, model_folder=folder)
    for table in (crops, vectors):
        verify_table(table)
    return {
        "crops": rows_of(crops),
        "embeddings": rows_of(vectors),
        "flags": cropped.flags,
        "share": cropped.decodable_share,
        "ticks": [ticks[0], ticks[-1]],
        "files": len(list((vectors / "data").iterdir())),
        "changed": [cropped.changed, embedded.changed],
        "receipt": [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))],
    }


def rows_of(path: Path) -> list[str]:
    """Every value of every row, ordered."""
    table = open_table(path)
    assert table is not None
    return sorted(repr(sorted(row.items())) for row in table.to_table().to_pylist())


def refused(folder: Path, captures: Path, engine: Engine) -> dict[str, Any]:
    """What a capture that has changed is refused with, by each engine, and what is left behind."""
    said: list[str] = []
    for number, one in enumerate((LOCAL, engine)):
        try:
            write_crops(captures, folder / f"{number}.lance", OTHER, SETTINGS, engine=one)
        except GeolocError as error:
            said.append(f"{type(error).__name__} {error}")
    return {"said": said, "tables": [open_table(folder / f"{number}.lance") is not None for number in range(2)]}


def killed(folder: Path, cluster: Cluster, node: Node, engine: RayEngine) -> dict[str, Any]:
    """Two pieces are under way, one on each node; one node is lost, and the other one does both."""
    place = folder / "naps"
    place.mkdir()
    answer: list[list[str]] = []
    pieces = [Nap(place, number) for number in range(2)]
    ticks: list[int] = []
    asking = threading.Thread(target=lambda: answer.append(engine.map(nap, pieces, ticks.append)))
    asking.start()
    wait_for(lambda: len(list(place.glob("*.begun"))) == 2, "both pieces under way")
    before = sorted(path.name for path in place.glob("*.begun"))
    node.kill()
    pieces[0].may_end.touch()
    asking.join(120)
    return {
        "before": before,
        "answer": answer[0] if answer else None,
        "ticks": sum(ticks),
        "alive": len(cluster.nodes[0].processes()),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
