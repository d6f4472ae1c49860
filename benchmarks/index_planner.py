"""What each kind of index costs and finds, at some sizes of gallery, beside a KD-tree of scikit-learn.

    python benchmarks/index_planner.py --vectors 100000 [1000000] [--region REGION] [--shards 4] [--kinds Flat SQ8]

Vectors are made: places drawn from the covariance of a region's own vectors (`--region`, a folder after `geoloc run`), or from
one whose variance falls with the direction as 1 / n, and ten pictures of each that differ by noise, as pictures of one place do.
A KD-tree with leaves of 40 is what the Stockholm project searched; it is exact, and as slow as asking everything in so many
dimensions. Everything runs on the threads that faiss and scikit-learn take by themselves; ratios count.

`--shards` adds what a gallery larger than memory would be: lists with product codes, cut into so many files that are searched
from disk (memory-mapped) and merged, at growing numbers of lists looked at in each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from sklearn.neighbors import KDTree

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.retrieval.index import latest_index, load_index
from geoloc_dagster.retrieval.index_planner import NEAREST, PlanSettings, build, kinds_for, smallest, try_kinds, without_self

PICTURES = 10
NOISE = 0.67  # of a picture, relative to its place: two pictures of a view have a cosine of 0.69 on average, as in the demo
TREE_QUERIES = 50


def spectrum(region: Path | None, dimension: int) -> np.ndarray:
    """Standard deviation along each direction, (dimension,), descending."""
    if region is None:
        return 1 / np.sqrt(np.arange(1, dimension + 1))
    index = load_index(latest_index(Layout(load_settings(region / "geoloc.yaml").data_root).indexes))
    return np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(index.vectors().T))[::-1], 1e-12))


def made(count: int, deviations: np.ndarray, seed: int = 0) -> np.ndarray:
    """Vectors of `count` pictures, L2-normalised, in random order."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(count // PICTURES, len(deviations))).astype(np.float32) * deviations.astype(np.float32)
    vectors = np.repeat(places, PICTURES, axis=0)
    noise = rng.normal(size=vectors.shape).astype(np.float32) * deviations.astype(np.float32)
    vectors += NOISE * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[rng.permutation(len(vectors))]


def tree(vectors: np.ndarray, queries: int) -> tuple[float, float, float]:
    """Bytes a vector, milliseconds a query, and seconds to build a KD-tree."""
    began = time.perf_counter()
    built = KDTree(vectors, leaf_size=40)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    built.query(vectors[:queries], k=NEAREST + 1)
    milliseconds = (time.perf_counter() - began) * 1000 / queries
    return sum(part.nbytes for part in built.get_arrays()) / len(vectors), milliseconds, seconds


def shards(vectors: np.ndarray, count: int, queries: int) -> None:
    """Print what a gallery in `count` files finds, takes and costs; codes of an eighth of the dimension, in bytes."""
    asked = np.sort(np.random.default_rng(0).permutation(len(vectors))[:queries])
    truth = without_self(build(vectors, "Flat").search(vectors[asked], NEAREST + 1)[1], asked)
    part, lists = len(vectors) // count, 2 ** round(np.log2(4 * np.sqrt(len(vectors) / count)))
    pieces = vectors.shape[1] // 8
    kind = f"IVF{lists},PQ{pieces}"
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.faiss" for number in range(count)]
        for number, file in enumerate(files):
            faiss.write_index(build(vectors[number * part : (number + 1) * part], kind), str(file))
        size = sum(file.stat().st_size for file in files) / len(vectors)
        opened = [faiss.read_index(str(file), faiss.IO_FLAG_MMAP) for file in files]
        together = faiss.IndexShards(vectors.shape[1], True, True)
        for one in opened:
            together.add_shard(one)
        print(f"\n{count} files of {part:,} vectors, {kind}, from disk: {size:.0f} bytes a vector")
        print("| lists searched in each | recall@10 | ms a query |\n|---:|---:|---:|")
        for probes in (1, 8, 32, 128):
            for one in opened:
                faiss.extract_index_ivf(one).nprobe = probes
            began = time.perf_counter()
            found = np.concatenate([together.search(vectors[asked[i : i + 16]], NEAREST + 1)[1] for i in range(0, queries, 16)])
            milliseconds = (time.perf_counter() - began) * 1000 / queries
            recall = (without_self(found, asked)[:, :, None] == truth[:, None, :]).any(axis=1).mean()
            print(f"| {probes} | {recall:.3f} | {milliseconds:.2f} |", flush=True)


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--region", type=Path)
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", help="Only these, `Flat` among them; by default those that the planner tries.")
    options = parser.parse_args()
    deviations = spectrum(options.region, options.dimension)
    for count in options.vectors:
        vectors = made(count, deviations)
        print(f"\n{count:,} vectors of dimension {vectors.shape[1]}; at least {options.recall:.0%} of the ten nearest")
        print("| kind | lists searched | recall@10 | bytes a vector | ms a query | build, s |\n|---|---:|---:|---:|---:|---:|")
        settings = PlanSettings(options.recall, 0, options.queries, count)
        trials = []
        for trial in try_kinds(vectors, options.kinds or kinds_for(count, vectors.shape[1]), settings):
            trials.append(trial)
            print(
                f"| {trial.kind} | {trial.probes or ''} | {trial.recall:.3f} | {trial.bytes_per_vector:,.0f} | "
                f"{trial.milliseconds:.2f} | {trial.build_seconds:.1f} |",
                flush=True,
            )
        size, milliseconds, seconds = tree(vectors, TREE_QUERIES)
        print(f"| KD-tree of scikit-learn | | 1.000 | {size:,.0f} | {milliseconds:.2f} | {seconds:.1f} |")
        best, exact = smallest(trials, options.recall), next(trial for trial in trials if trial.kind == "Flat")
        print(f"chosen: {best.kind}, {exact.bytes_per_vector / best.bytes_per_vector:.1f} times smaller than exact, "
              f"{milliseconds / best.milliseconds:.0f} times as quick as the tree")  # fmt: skip
        if options.shards:
            shards(vectors, options.shards, options.queries)


if __name__ == "__main__":
    main()
