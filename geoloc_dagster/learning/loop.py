"""The parts of every training: a trainer for one device, going on from the last checkpoint, and the folder that is left."""

from __future__ import annotations

import hashlib
import inspect
import logging
import math
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors.torch import save
from torch import nn

from geoloc_dagster.errors import IntegrityError, RecipeError
from geoloc_dagster.learning.device import default_device, device_name, steady_arithmetic, trainer_precision
from geoloc_dagster.learning.encoder import RECIPE_FILE, TRAINING_FILE
from geoloc_dagster.learning.recipe import AnyRecipe
from geoloc_dagster.learning.recipe_parts import ComputeSpec
from geoloc_dagster.learning.tracking import MlflowTarget
from geoloc_dagster.storage import atomic_folder, read_json, write_bytes, write_json, write_manifest

_log = logging.getLogger(__name__)
LAST_CHECKPOINT = "last.ckpt"
ONE_DEVICE = ComputeSpec()


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a training leaves behind.

    Attributes:
        folder: immutable; weights, recipe, `training.json` and a manifest.
        model_version: `{recipe}-{12 hex digits}` of recipe, rows and weights; also the folder's name.
        recipe: that was trained.
        metrics: losses of the last epoch and, where there is a dev split, its recall.
        rows: number of pictures learned from.
        seconds: of computing, over all attempts.
        epochs: that were trained.
        finished_at: ISO 8601.
        mlflow_run_id: of its run, None where it was not tracked.
    """

    folder: Path
    model_version: str
    recipe: AnyRecipe
    metrics: dict[str, float]
    rows: int
    seconds: float
    epochs: int
    finished_at: str
    mlflow_run_id: str | None


def build_trainer(
    work: Path,
    mlflow: MlflowTarget | None,
    callbacks: Sequence[pl.Callback],
    *,
    epochs: int,
    clip_norm: float,
    options: Mapping[str, Any] | None = None,
    compute: ComputeSpec = ONE_DEVICE,
) -> pl.Trainer:
    """A trainer for the device of this process; on a GPU in bfloat16, on the CPU in float32, unless `compute` says otherwise.

    Args:
        work: folder of `last.ckpt`.
        mlflow: where to log; nowhere without it.
        callbacks: besides that which keeps the last checkpoint.
        epochs: to train.
        clip_norm: of gradients.
        options: of Lightning's trainer, which go before these.
        compute: of the recipe; several devices train together where torchrun started this process on each of them.

    Raises:
        RecipeError: the trainer has no such option, or does not take its value; or several devices are asked of one process.
    """
    keep_last = ModelCheckpoint(dirpath=work, filename=Path(LAST_CHECKPOINT).stem, enable_version_counter=False)
    on_gpu = torch.cuda.is_available()
    chosen: dict[str, Any] = {
        "accelerator": "gpu" if on_gpu else "cpu",
        "precision": trainer_precision(compute, default_device()),
        "benchmark": on_gpu,  # batches have one size
        **_devices(compute, on_gpu),
        **(options or {}),
    }
    unknown = sorted(chosen.keys() - inspect.signature(pl.Trainer.__init__).parameters.keys())
    if unknown:
        raise RecipeError(f"trainer: Lightning's trainer has no option {unknown[0]!r}")
    try:
        return pl.Trainer(
            max_epochs=epochs,
            callbacks=[*callbacks, keep_last],
            logger=mlflow.logger() if mlflow is not None else False,
            default_root_dir=work,
            gradient_clip_val=clip_norm,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            **chosen,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise RecipeError(f"trainer: {' '.join(str(error).split())}") from error


def _devices(compute: ComputeSpec, on_gpu: bool) -> dict[str, Any]:
    """Options of the trainer: one device, or those of all processes that torchrun started."""
    started = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if started != compute.processes:
        raise RecipeError(
            f"compute asks for {compute.processes} devices, this training was started on {started}",
            "Train through the asset `checkpoints`, or start geoloc_dagster.training_process by torchrun.",
        )
    if on_gpu and compute.devices > torch.cuda.device_count():
        raise RecipeError(f"compute asks for {compute.devices} GPUs, this machine has {torch.cuda.device_count()}")
    if started == 1:
        return {"devices": 1}
    return {
        "devices": compute.devices,
        "num_nodes": compute.nodes,
        "strategy": "ddp" if compute.strategy == "auto" else compute.strategy,
        "sync_batchnorm": on_gpu,
    }


def fit(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, last: Path) -> None:
    """Train to the end, from `last` where it exists.

    Raises:
        IntegrityError: `last` cannot be read.
        RecipeError: several devices are to share the batches of a module that knows no such thing; or weights are no numbers at
            the end, and then `last` is gone, which would lead there again.
    """
    if trainer.world_size > 1 and not getattr(module, "shares_batches", False):
        raise RecipeError("recipes of this kind train on one device", "Set compute.devices and compute.nodes to 1.")
    if last.is_file():
        _log.info("going on from %s", last)
        _check_archive(last)
    with steady_arithmetic(default_device(), trainer.precision):
        trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
    broken = [name for name, weight in module.state_dict().items() if not bool(torch.isfinite(weight).all())]
    if broken:
        if is_first_process():
            last.unlink(missing_ok=True)
        raise RecipeError(
            f"the training ended with {len(broken)} tensors of weights that are not finite numbers, the first {broken[0]}",
            "Lower `optimiser.learning_rate`, or set `compute: {precision: '32'}`, and train again; nothing was kept of this.",
        )


def _check_archive(checkpoint: Path) -> None:
    """Compare the checksums inside a checkpoint, which is a zip archive, without loading anything."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        broken = str(error)
    if broken is not None:
        remedy = f"Delete {checkpoint.parent} to train from the start."
        raise IntegrityError(f"{checkpoint} is damaged ({broken})", remedy)


def training_facts(
    recipe: AnyRecipe,
    metrics: Mapping[str, float],
    *,
    rows: int,
    epochs: int,
    steps: int,
    samples: int,
    seconds: float,
    attempts: int,
) -> dict[str, Any]:
    """What `training.json` says of every training; `trained_on_rows` is what the retraining sensor compares."""
    return {
        "recipe": recipe.name,
        "recipe_hash": recipe.recipe_hash(),
        "seed": recipe.seed,
        "trained_on_rows": rows,
        "epochs": epochs,
        "steps": steps,
        "samples": samples,
        "seconds": round(seconds, 1),
        "attempts": attempts,
        "images_per_second": round(samples / max(seconds, 1e-9), 1),
        "metrics": {name: value if math.isfinite(value) else None for name, value in sorted(metrics.items())},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processes": recipe.compute.processes,
        "device": device_name(),
    }


def write_model(
    out_folder: Path,
    recipe: AnyRecipe,
    networks: Mapping[str, nn.Module],
    facts: Mapping[str, Any],
    also: Callable[[Path], None] | None = None,
) -> TrainedModel:
    """Write the model folder in one rename; its name follows from recipe, rows and weights.

    Args:
        out_folder: of the recipe's models.
        recipe: that was trained.
        networks: the file of the weights of each, e.g. `weights.safetensors`.
        facts: `training.json`.
        also: writes what else belongs to the model into its folder.

    Of several processes of one training the first writes, all return.
    """
    weights = {file: save({k: v.contiguous() for k, v in network.state_dict().items()}) for file, network in networks.items()}
    digests = " ".join(hashlib.sha256(content).hexdigest() for content in weights.values())
    identity = f"{facts['recipe_hash']} {facts['rows_sha256']} {digests}"
    version = f"{recipe.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not is_first_process():
        return _trained(out_folder / version, recipe, facts)
    with atomic_folder(out_folder / version) as folder:
        for file, content in weights.items():
            write_bytes(folder / file, content)
        write_bytes(folder / RECIPE_FILE, recipe.to_yaml().encode())
        write_json(folder / TRAINING_FILE, {**facts, "model_version": version})
        if also is not None:
            also(folder)
        write_manifest(folder, model_version=version, recipe=recipe.name)
    return _trained(out_folder / version, recipe, facts)


def is_first_process() -> bool:
    """Whether this process writes for all that train together."""
    return int(os.environ.get("RANK", "0")) == 0 or "TORCHELASTIC_RUN_ID" not in os.environ


def read_trained(folder: Path, recipe: AnyRecipe) -> TrainedModel:
    """What another process has trained."""
    return _trained(folder, recipe, read_json(folder / TRAINING_FILE))


def _trained(folder: Path, recipe: AnyRecipe, facts: Mapping[str, Any]) -> TrainedModel:
    return TrainedModel(
        folder=folder,
        model_version=folder.name,
        recipe=recipe,
        metrics={name: value for name, value in facts["metrics"].items() if value is not None},
        rows=facts["trained_on_rows"],
        seconds=facts["seconds"],
        epochs=facts["epochs"],
        finished_at=str(facts.get("finished_at", "")),
        mlflow_run_id=facts.get("mlflow_run_id"),
    )
