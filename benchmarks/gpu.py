"""Pictures per second of training and embedding through our pipeline, beside the bare model, on a GPU or the CPU.

    python benchmarks/gpu.py                              # retrieval and cells, at sizes that suit the device
    python benchmarks/gpu.py --what cells --backbone vit_base_patch16_224 --compile auto always --rounds 5

The bare model is the same network on one batch of finished pictures that lies on the device already: forward, backward and step,
or forward alone, in the same precision and memory format. `pipeline` of training is Lightning's loop over uint8 pictures in
memory: pinned copies, augmentation on the device, losses, logging; of embedding it is `Encoder.embed` and
`CellsModel.log_probabilities`. The two alternate, and the median of the ratios is the share reached.

It runs without an installation, `PYTHONPATH=. python benchmarks/gpu.py`, and downloads nothing. Beside torch, pytorch-lightning,
timm, numpy, pandas, pyarrow, pillow, pyyaml and safetensors, which machines for GPU work have, it needs pydantic (pydantic-core,
annotated-types, typing-inspection), pytorch-metric-learning, pyproj and shapely; no Dagster, Lance or MLflow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from geoloc_dagster.geo.partitioning import LevelRule, Partitioning, partition
from geoloc_dagster.learning.augmentation import augment, plain
from geoloc_dagster.learning.cells_losses import unit_vectors
from geoloc_dagster.learning.cells_model import CellsModel
from geoloc_dagster.learning.cells_module import CellsModule
from geoloc_dagster.learning.cells_network import build_cells_network
from geoloc_dagster.learning.cells_recipe import CellsRecipe
from geoloc_dagster.learning.device import arithmetic, compile_where_it_pays, default_device, device_name, precision_of
from geoloc_dagster.learning.encoder import Encoder
from geoloc_dagster.learning.loop import build_trainer
from geoloc_dagster.learning.memory import keep_freed_memory
from geoloc_dagster.learning.module import RetrievalModule
from geoloc_dagster.learning.photo_batches import ShuffledBatches
from geoloc_dagster.learning.photo_rows import PhotoRows
from geoloc_dagster.learning.pictures import MemoryPictures, keep_batch
from geoloc_dagster.learning.recipe import Recipe

_processor_time = False
RULES = (LevelRule("coarse", 50, 5_000), LevelRule("middle", 50, 2_000), LevelRule("fine", 50, 1_000))


@dataclass(frozen=True)
class Case:
    """One model to measure: how it trains and answers through our pipeline, and its bare network."""

    module: pl.LightningModule
    network: nn.Module
    recipe: Recipe | CellsRecipe
    answer: Callable[[Tensor, int], Any]
    bare_loss: Callable[[Any], Tensor]


def retrieval(options: argparse.Namespace, compute: dict[str, Any]) -> Case:
    """Places of four pictures, multi-similarity loss."""
    recipe = Recipe.model_validate(
        {
            "name": "bench",
            "data": {"image_size": options.size, "stored_size": options.size * 8 // 7},
            "backbone": {"name": options.backbone},
            "loss": {"multi_similarity": {}},
            "sampler": {"places": options.batch_size // 4, "pictures_per_place": 4},
            "compute": compute,
        }
    )
    places = np.arange(options.pictures) // 4
    module = RetrievalModule(recipe, places, places // 2, total_steps=10_000)
    labels = torch.arange(options.batch_size, device=default_device()) // 4

    def bare_loss(vectors: Tensor) -> Tensor:
        return module.loss(vectors.float(), labels, labels // 2)["loss"]

    def answer(pictures: Tensor, batch_size: int) -> Any:
        return Encoder(module.network, recipe, "bench").embed(pictures, batch_size)

    return Case(module, module.network, recipe, answer, bare_loss)


def cells(options: argparse.Namespace, compute: dict[str, Any]) -> Case:
    """Three levels with about as many cells as the published partitionings have."""
    recipe = CellsRecipe.model_validate(
        {
            "name": "bench",
            "kind": "cells",
            "data": {"image_size": options.size, "stored_size": options.size * 8 // 7},
            "backbone": {"name": options.backbone},
            "budget": {"batch_size": options.batch_size},
            "compute": compute,
        }
    )
    parts = many_cells(options.photos_of_cells)
    counts = {level.name: len(level) for level in parts.levels}
    rng = np.random.default_rng(2)
    rows = PhotoRows(
        capture_ids=[str(number) for number in range(options.pictures)],
        sha256={},
        classes=np.stack([rng.integers(0, count, options.pictures) for count in counts.values()], axis=1),
        lat_deg=rng.uniform(-60, 60, options.pictures),
        lng_deg=rng.uniform(-180, 180, options.pictures),
        scenes=np.full((options.pictures, 3), np.nan, np.float32),
    )
    network = build_cells_network(recipe, counts)
    module = CellsModule(recipe, network, parts, rows, rows.chosen(np.zeros(options.pictures, bool)))
    device = default_device()
    classes = torch.from_numpy(rows.classes[: options.batch_size].astype(np.int64)).to(device)
    positions = unit_vectors(rows.lat_deg, rows.lng_deg)[: options.batch_size].to(device)
    scenes = torch.full((options.batch_size, 3), float("nan"), device=device)

    def bare_loss(logits: dict[str, Tensor]) -> Tensor:
        return module.loss({name: value.float() for name, value in logits.items()}, classes, positions, scenes)["loss"]

    precision = precision_of(recipe.compute, device)
    weights = dict.fromkeys(counts, 1.0)

    def answer(pictures: Tensor, batch_size: int) -> Any:
        model = CellsModel(
            recipe=recipe,
            partitioning=parts,
            network=network,
            model_version="bench",
            weights=weights,
            inference=recipe.inference,
            precision=precision,
        )
        return model.log_probabilities(pictures, batch_size=batch_size)

    return Case(module, network, recipe, answer, bare_loss)


def many_cells(photos: int) -> Partitioning:
    """Cells of photos that lie around some thousand centres."""
    rng = np.random.default_rng(1)
    centres = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 4_000))), rng.uniform(-180, 180, 4_000)], axis=1)
    at = centres[rng.integers(0, len(centres), photos)] + rng.normal(0, 0.3, (photos, 2))
    return partition(np.clip(at[:, 0], -90, 90), (at[:, 1] + 180) % 360 - 180, RULES)


class Window(pl.Callback):
    """Seconds of the steps after the first few, the device waited for at both ends; the checkpoint of an epoch comes after."""

    def __init__(self, warm_up: int, steps: int) -> None:
        self._warm_up, self._last, self._began = warm_up, warm_up + steps - 1, 0.0
        self.seconds = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """The clock starts after the warm-up."""
        if batch_idx == self._warm_up:
            wait()
            self._began = now()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """It stops with the last step."""
        if batch_idx == self._last:
            wait()
            self.seconds = now() - self._began


class Batches(pl.LightningDataModule):
    """The pictures in batches of some steps, as trainings hold them in memory."""

    def __init__(self, pictures: MemoryPictures, batch_size: int, steps: int) -> None:
        super().__init__()
        self._pictures, self._size, self._steps = pictures, batch_size, steps

    def train_dataloader(self) -> DataLoader[Any]:
        """Epoch after epoch until there are as many steps as wanted."""
        return DataLoader(
            self._pictures,
            batch_sampler=_Repeated(len(self._pictures), self._size, self._steps),
            collate_fn=keep_batch,
            pin_memory=torch.cuda.is_available(),
        )


class _Repeated(torch.utils.data.Sampler[list[int]]):
    def __init__(self, rows: int, size: int, steps: int) -> None:
        self._rows, self._size, self._steps = rows, size, steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        done, epoch = 0, 0
        while done < self._steps:
            for batch in ShuffledBatches(self._rows, self._size, 0, epoch):
                if done < self._steps:
                    yield batch
                    done += 1
            epoch += 1


def now() -> float:
    """Seconds of the wall, or of this process's processor time where `--processor-time` asks for it."""
    return time.process_time() if _processor_time else time.perf_counter()


def wait() -> None:
    """Until the device has done all that it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def trained_rate(case: Case, pictures: MemoryPictures, options: argparse.Namespace) -> float:
    """Pictures a second of Lightning's loop."""
    window = Window(options.warm_up, options.steps)
    with TemporaryDirectory() as folder:
        trainer = build_trainer(
            Path(folder), None, [window], epochs=1, clip_norm=case.recipe.optimiser.clip_norm, compute=case.recipe.compute
        )
        trainer.fit(case.module, datamodule=Batches(pictures, options.batch_size, options.warm_up + options.steps))
    return options.steps * options.batch_size / window.seconds


def bare_trained_rate(case: Case, inputs: Tensor, options: argparse.Namespace) -> float:
    """Pictures a second of forward, loss, backward, clipping and step on one batch that lies on the device."""
    device = default_device()
    case.module.to(device).train()
    optimiser = torch.optim.AdamW(case.network.parameters(), lr=1e-4)
    precision = precision_of(case.recipe.compute, device)
    began = 0.0
    for step in range(options.warm_up + options.steps):
        if step == options.warm_up:
            wait()
            began = now()
        with arithmetic(device, precision):
            said = case.network(inputs)
        optimiser.zero_grad()
        case.bare_loss(said).backward()
        nn.utils.clip_grad_norm_(case.network.parameters(), case.recipe.optimiser.clip_norm)
        optimiser.step()
    wait()
    return options.steps * options.batch_size / (now() - began)


def answered_rate(case: Case, pictures: Tensor, options: argparse.Namespace) -> float:
    """Pictures a second of what embeds or classifies a region."""
    batches = max(2, options.steps)
    many = pictures[torch.arange(batches * options.batch_size) % len(pictures)]
    case.answer(many[: options.batch_size], options.batch_size)
    wait()
    began = now()
    case.answer(many, options.batch_size)
    wait()
    return len(many) / (now() - began)


def bare_answered_rate(case: Case, inputs: Tensor, options: argparse.Namespace) -> float:
    """Pictures a second of forward alone on one batch that lies on the device."""
    device = default_device()
    case.module.to(device)
    case.network.eval()
    batches = max(2, options.steps)
    with torch.inference_mode(), arithmetic(device, precision_of(case.recipe.compute, device)):
        case.network(inputs)
        wait()
        began = now()
        for _ in range(batches):
            case.network(inputs)
        wait()
    return batches * options.batch_size / (now() - began)


def measure(name: str, case: Case, pictures: MemoryPictures, options: argparse.Namespace, compiled: str) -> Iterator[str]:
    """A line for training and one for embedding."""
    device = default_device()
    compile_where_it_pays(case.network, case.recipe.compute, device, steps=1_000_000)
    batch = pictures.pictures[: options.batch_size].to(device)
    shown = augment(batch, options.size, case.recipe.augmentation, torch.Generator())
    for what, ours, alone, inputs in (
        ("training", lambda: trained_rate(case, pictures, options), bare_trained_rate, shown),
        ("embedding", lambda: answered_rate(case, pictures.pictures, options), bare_answered_rate, plain(batch, options.size)),
    ):
        if options.only not in (None, what):
            continue
        turns = [(alone(case, inputs, options), ours()) for _ in range(options.rounds)]
        shares = [pipeline / bare for bare, pipeline in turns]
        bare, pipeline = (statistics.median(turn[side] for turn in turns) for side in (0, 1))
        spread = f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
        precision = precision_of(case.recipe.compute, device)
        yield f"| {name} | {options.backbone} | {what} | {precision} | {compiled} | {pipeline:,.1f} | {bare:,.1f} | {spread} |"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options; sizes that are not given suit the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--what", nargs="+", choices=("retrieval", "cells"), default=["retrieval", "cells"])
    parser.add_argument("--only", choices=("training", "embedding"), help="one of the two")
    parser.add_argument("--backbone", default="resnet50" if gpu else "resnet18", help="of timm, ViTs too")
    parser.add_argument("--size", type=int, default=224 if gpu else 112, help="pixels; a multiple of 7 (and of a ViT's patch)")
    parser.add_argument("--batch-size", type=int, default=256 if gpu else 32, help="a multiple of 4")
    parser.add_argument("--pictures", type=int, default=8_192 if gpu else 256, help="held in memory")
    parser.add_argument("--steps", type=int, default=60 if gpu else 6, help="timed in each turn")
    parser.add_argument("--warm-up", type=int, default=10 if gpu else 2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=("auto", "32", "bf16", "16"))
    parser.add_argument(
        "--compile", nargs="+", default=["never", "auto"] if gpu else ["never"], choices=("never", "auto", "always")
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="time processor seconds: ratios hold beside other work, on one thread of a CPU",
    )
    parser.add_argument("--photos-of-cells", type=int, default=4_000_000 if gpu else 400_000, help="more photos, more cells")
    return parser.parse_args(arguments)


def main() -> None:
    """Print the table."""
    global _processor_time
    options = parsed()
    _processor_time = options.processor_time
    keep_freed_memory()
    torch.backends.cudnn.benchmark = torch.cuda.is_available()  # as trainings have it
    print(f"{device_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {options.size} px, batches of "
          f"{options.batch_size}, {options.steps} steps a turn, {options.rounds} turns")  # fmt: skip
    print("| recipe | backbone | what | precision | compile | pipeline, pictures/s | bare, pictures/s | share reached |")
    print("|---|---|---|---|---|---:|---:|---:|")
    side = options.size * 8 // 7
    pictures = MemoryPictures(torch.randint(0, 256, (options.pictures, 3, side, side), dtype=torch.uint8))
    for name in options.what:
        for compiled in options.compile:
            compute = {"precision": options.precision, "compile": compiled}
            case = (retrieval if name == "retrieval" else cells)(options, compute)
            for line in measure(name, case, pictures, options, compiled):
                print(line, flush=True)


if __name__ == "__main__":
    main()
