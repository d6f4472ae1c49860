"""A training on two devices is the training of one: the same batches, the same random numbers, the loss of the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from geoloc_dagster.errors import RecipeError
from geoloc_dagster.learning.augmentation import augment, mirror
from geoloc_dagster.learning.loop import LAST_CHECKPOINT, build_trainer
from geoloc_dagster.learning.photo_batches import ShuffledBatches
from geoloc_dagster.learning.recipe_parts import AugmentationSpec, ComputeSpec
from geoloc_dagster.learning.shared_batch import SharedGenerator, ShareOfBatches
from geoloc_dagster_tests.learning.on_many import train_one

START = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def on_two(kind: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [*START, "geoloc_dagster_tests.learning.on_many", kind, str(out), "2", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


def only_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, float], int]:
    """Weights, metrics and attempts of the one model of a folder."""
    (model,) = [path for path in folder.iterdir() if not path.name.startswith(".")]
    facts = json.loads((model / "training.json").read_text())
    return load_file(model / "weights.safetensors"), facts["metrics"], facts["attempts"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["cells", "retrieval", "stopping"])
def test_two_processes_end_where_one_does_and_go_on_after_a_kill(kind: str, tmp_path: Path):
    """A classifier's first process dies in the middle of the second epoch; what is left over is a checkpoint of the first.

    With `stopping` the best epoch on dev is kept: of eight questions one that is found by a hair makes another epoch the best.
    """
    train_one(kind, tmp_path / "one", 1)
    wanted, metrics, _ = only_model(tmp_path / "one")

    if kind == "cells":
        assert on_two(kind, tmp_path / "two", "7").returncode != 0
        assert len(list((tmp_path / "two").glob(f".work-*/{LAST_CHECKPOINT}"))) == 1
    again = on_two(kind, tmp_path / "two")
    assert again.returncode == 0, again.stderr[-2000:]

    weights, told, attempts = only_model(tmp_path / "two")
    assert attempts == (2 if kind == "cells" else 1)
    if kind == "stopping":
        assert told["dev_recall_at_1"] == pytest.approx(metrics["dev_recall_at_1"], abs=0.126)
        return
    assert told == pytest.approx(metrics, rel=2e-2, abs=2e-3)
    far = max(float((weights[name] - wanted[name]).norm() / (wanted[name].norm() + 1e-3)) for name in wanted)
    assert far < 2e-2, f"a tensor differs by {far:.3f} of its length"


@pytest.mark.parametrize("parts", [2, 4])
def test_shares_together_are_the_batch_in_its_order(parts: int):
    whole = list(ShuffledBatches(50, 16, seed=1, epoch=2))
    shares = [list(ShareOfBatches(ShuffledBatches(50, 16, seed=1, epoch=2), 16, part, parts)) for part in range(parts)]
    assert len(whole) == 3
    assert [[row for share in shares for row in share[number]] for number in range(3)] == whole


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(RecipeError, match="a batch of 16 pictures cannot be shared by 3 devices"):
        ShareOfBatches(ShuffledBatches(50, 16, seed=1, epoch=2), 16, 0, 3)


def test_each_picture_is_changed_as_it_would_be_on_one_device():
    """A process that drew numbers of its own, or those of another one's rows, would give other pictures."""
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 3, 36, 36), dtype=np.uint8))
    spec = AugmentationSpec(min_scale=0.6, erase=0.5, blur=0.5, grey=0.3, colour_cast=0.2)

    def changed(part: int, parts: int) -> Tensor:
        generator = SharedGenerator()
        generator.part, generator.parts = part, parts
        generator.manual_seed(4)
        own = pictures[part * 12 // parts : (part + 1) * 12 // parts]
        return augment(mirror(own, 0.5, generator), 32, spec, generator)

    torch.testing.assert_close(torch.cat([changed(part, 3) for part in range(3)]), changed(0, 1))


def test_several_devices_are_not_trained_on_by_one_process(tmp_path: Path):
    with pytest.raises(RecipeError, match="compute asks for 2 devices, this training was started on 1"):
        build_trainer(tmp_path, None, [], epochs=1, clip_norm=1, compute=ComputeSpec(devices=2))
