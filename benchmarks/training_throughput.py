"""How many pictures a second does each part of a training manage on this machine, and what does the loop around it cost?

Reading (decode, checksum, resize), training steps (augmentation, forward, backward, optimiser) and embedding are timed
apart, on made-up pictures, for each recipe named. `loop` is the whole training as the asset runs it (sampler, loader,
Lightning, logging, checkpoints) as a share of the same steps on pictures that are in memory already; the two alternate,
and the median of the ratios counts. Usage:

    python benchmarks/training_throughput.py retrieval retrieval_plain --steps 20

With `--at-once 2` two processes train at the same time instead, as a nightly training and a backfill do: with threads that spin
while they wait, as OpenMP has it, and as `share_cores` has it; and each way alone.

    python benchmarks/training_throughput.py retrieval --folder geoloc_dagster/templates/demo --steps 12 --at-once 2
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from geoloc_dagster.dataset.schema import CATALOG, CROPS
from geoloc_dagster.learning.augmentation import augment
from geoloc_dagster.learning.encoder import Encoder
from geoloc_dagster.learning.memory import keep_freed_memory
from geoloc_dagster.learning.module import RetrievalModule
from geoloc_dagster.learning.pictures import read_pictures
from geoloc_dagster.learning.recipe import Recipe, load_recipe
from geoloc_dagster.learning.training import train
from geoloc_dagster.tables import append_rows, open_table

PICTURES = 512


def write_crops(folder: Path, rng: np.random.Generator) -> tuple[Path, list[str]]:
    """A crops table of 224-pixel JPEGs with about as much detail as a street."""
    rows = []
    for number in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)).resize((224, 224), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        coarse.save(stream, "JPEG", quality=92)
        image = stream.getvalue()
        crop = {"capture_id": f"c{number}", "batch": "100m-0000", "image": image, "sha256": hashlib.sha256(image).hexdigest()}
        place = {"source": "made", "location_id": str(number // 8), "lat_deg": 0.0, "lng_deg": 0.0, "flags": []}
        rows.append({**crop, **place, "licence": "CC0-1.0", "attribution": "nobody"})
    append_rows(folder / "crops.lance", pa.Table.from_pylist(rows, schema=CROPS))
    return folder / "crops.lance", [row["capture_id"] for row in rows]


def training_rate(recipe: Recipe, pictures: torch.Tensor, steps: int) -> float:
    """Pictures a second of whole training steps, after two steps of warming up."""
    places = np.arange(PICTURES) // 4
    module = RetrievalModule(recipe, places, places // 2, total_steps=steps + 2)
    optimiser = module.configure_optimizers()["optimizer"]
    generator = torch.Generator().manual_seed(0)
    size = recipe.sampler.places * recipe.sampler.pictures_per_place
    started = time.perf_counter()
    for step in range(steps + 2):
        if step == 2:
            started = time.perf_counter()
        rows = torch.arange(step * size, (step + 1) * size) % PICTURES
        inputs = augment(pictures[rows], recipe.data.image_size, recipe.augmentation, generator, recipe.data.normalise)
        labels = torch.from_numpy(places)[rows]
        loss = module.loss(module.network(inputs), labels, labels // 2)["loss"]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.optimiser.clip_norm)
        optimiser.step()
    return steps * size / (time.perf_counter() - started)


def write_catalog(ids: list[str], crops: Path) -> pa.Table:
    """A catalog of these crops, every one of train: places of four pictures of different dates."""
    table = open_table(crops).to_table(columns=["capture_id", "sha256"])
    sums = dict(zip(table["capture_id"].to_pylist(), table["sha256"].to_pylist(), strict=True))
    rows = [
        {
            "capture_id": name,
            "batch": "100m-0000",
            "series": "100m",
            "source": "made",
            "location_id": str(number // 8),
            "lat_deg": 0.0,
            "lng_deg": number // 8 * 0.01,
            "district": "d",
            "view": f"r{number // 4 % 2}",
            "captured_on": dt.date(2010 + number % 4, 1, 1),
            "year": 2010 + number % 4,
            "sha256": sums[name],
            "flags": [],
            "split": "train",
            "usable": True,
            "is_query": False,
            "licence": "CC0-1.0",
            "attribution": "nobody",
        }
        for number, name in enumerate(ids)
    ]
    return pa.Table.from_pylist(rows, schema=CATALOG)


def loop_rate(recipe: Recipe, catalog: pa.Table, crops: Path, folder: Path, steps: int) -> float:
    """Pictures a second of a whole training of about `steps` steps, from its first step to its last."""
    size = recipe.sampler.places * recipe.sampler.pictures_per_place
    per_epoch = max(1, PICTURES // 4 // recipe.sampler.places)
    epochs = max(1, steps // per_epoch)
    data = recipe.data.model_copy(update={"splits": ["train"]})
    shortened = recipe.model_copy(update={"data": data, "budget": recipe.budget.model_copy(update={"epochs": epochs})})
    done: list[int] = []
    model = train(shortened, catalog, crops, folder, resume=False, progress=lambda step, total: done.append(step))
    return max(done) * size / model.seconds


def say_bare_rate(recipe: Recipe, steps: int) -> None:
    """Print the pictures a second of training steps on noise."""
    keep_freed_memory()
    size = recipe.data.stored_size
    print(training_rate(recipe, torch.randint(0, 256, (PICTURES, 3, size, size), dtype=torch.uint8), steps))


def rates_at_once(name: str, folder: Path, steps: int, count: int, environment: dict[str, str]) -> list[float]:
    """Pictures a second of each of so many processes that train at the same time."""
    command = [sys.executable, __file__, name, "--folder", str(folder), "--steps", str(steps), "--bare"]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [float(process.communicate()[0]) for process in started]


def compare_at_once(name: str, folder: Path, steps: int, count: int, rounds: int) -> None:
    """Print the rates alone and at once, by how threads wait; the two ways alternate."""
    plain = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ways = {"spinning": plain, "share_cores": plain | {"GOMP_SPINCOUNT": "1000"}}
    print(f"{'pictures/s':<12} {'alone':>24} {f'{count} at once, together':>24}")
    found: dict[str, list[list[float]]] = {way: [[], []] for way in ways}
    for _ in range(rounds):
        for way, environment in ways.items():
            for number, processes in enumerate((1, count)):
                found[way][number].append(sum(rates_at_once(name, folder, steps, processes, environment)))
    for way, rates in found.items():
        print(f"{way:<12}" + "".join(f" {f'{statistics.median(r):.0f} ({min(r):.0f}-{max(r):.0f})':>24}" for r in rates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="names or files of recipes")
    parser.add_argument("--folder", type=Path, default=Path(), help="with a `recipes/` folder, searched first")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="of the loop against bare steps")
    parser.add_argument("--at-once", type=int, default=0, metavar="N", help="so many trainings at once, and nothing else")
    parser.add_argument("--bare", action="store_true", help="only the rate of training steps, as a number")
    arguments = parser.parse_args()
    if arguments.bare:
        say_bare_rate(load_recipe(arguments.recipes[0], arguments.folder), arguments.steps)
        return
    if arguments.at_once:
        compare_at_once(arguments.recipes[0], arguments.folder, arguments.steps, arguments.at_once, arguments.rounds)
        return
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print(f"{'recipe':<20} {'read/s':>8} {'train/s':>8} {'embed/s':>8} {'loop':>6}  parameters")
    with tempfile.TemporaryDirectory() as folder:
        crops, ids = write_crops(Path(folder), np.random.default_rng(0))
        for name in arguments.recipes:
            recipe = load_recipe(name, arguments.folder)
            started = time.perf_counter()
            pictures = read_pictures(crops, ids, recipe.data.stored_size)
            read = PICTURES / (time.perf_counter() - started)
            catalog = write_catalog(ids, crops)
            bare, ratios = [], []
            for number in range(arguments.rounds):
                bare.append(training_rate(recipe, pictures, arguments.steps))
                loop = loop_rate(recipe, catalog, crops, Path(folder) / f"{name}-{number}", arguments.steps)
                ratios.append(loop / bare[-1])
            trained = statistics.median(bare)
            encoder = Encoder(RetrievalModule(recipe, np.zeros(1, int), np.zeros(1, int), 1).network, recipe, "untrained")
            started = time.perf_counter()
            encoder.embed(pictures)
            embedded = PICTURES / (time.perf_counter() - started)
            parameters = sum(parameter.numel() for parameter in encoder.network.parameters())
            print(
                f"{recipe.name:<20} {read:8.0f} {trained:8.0f} {embedded:8.0f} {statistics.median(ratios):6.0%}  {parameters:,}"
            )


if __name__ == "__main__":
    main()
