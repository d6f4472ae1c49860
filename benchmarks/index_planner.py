"""What each kind of index costs and finds, at some sizes of gallery, beside a KD-tree of scikit-learn.

    python benchmarks/index_planner.py --vectors 100000 [1000000] [--dimension 256] [--region REGION]

Vectors are made: places drawn from the covariance of a region's own vectors (`--region`, a folder after `geoloc run`), or from
one whose variance falls with the direction as 1 / n, and ten pictures of each that differ by noise, as pictures of one place do.
A KD-tree with leaves of 40 is what the Stockholm project searched; it is exact, and as slow as asking everything in so many
dimensions. Everything runs on the threads that faiss and scikit-learn take by themselves; ratios count.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.neighbors import KDTree

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.retrieval.index import latest_index, load_index
from geoloc_dagster.retrieval.index_planner import NEAREST, PlanSettings, kinds_for, smallest, try_kinds

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


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--region", type=Path)
    options = parser.parse_args()
    deviations = spectrum(options.region, options.dimension)
    for count in options.vectors:
        vectors = made(count, deviations)
        print(f"\n{count:,} vectors of dimension {vectors.shape[1]}; at least {options.recall:.0%} of the ten nearest")
        print("| kind | lists searched | recall@10 | bytes a vector | ms a query | build, s |\n|---|---:|---:|---:|---:|---:|")
        settings = PlanSettings(options.recall, 0, options.queries, count)
        trials = []
        for kind in kinds_for(count, vectors.shape[1]):
            (trial,) = try_kinds(vectors, [kind], settings)
            trials.append(trial)
            print(
                f"| {kind} | {trial.probes or ''} | {trial.recall:.3f} | {trial.bytes_per_vector:,.0f} | "
                f"{trial.milliseconds:.2f} | {trial.build_seconds:.1f} |",
                flush=True,
            )
        size, milliseconds, seconds = tree(vectors, TREE_QUERIES)
        print(f"| KD-tree of scikit-learn | | 1.000 | {size:,.0f} | {milliseconds:.2f} | {seconds:.1f} |")
        best, exact = smallest(trials, options.recall), next(trial for trial in trials if trial.kind == "Flat")
        print(f"chosen: {best.kind}, {exact.bytes_per_vector / best.bytes_per_vector:.1f} times smaller than exact, "
              f"{milliseconds / best.milliseconds:.0f} times as quick as the tree")  # fmt: skip


if __name__ == "__main__":
    main()
