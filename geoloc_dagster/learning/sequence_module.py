"""The Lightning module of a sequence model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geoloc_dagster.geo.partitioning import DROPPED, Partitioning
from geoloc_dagster.learning.augmentation import augment, prepared
from geoloc_dagster.learning.cells_losses import CellsLoss, unit_vectors
from geoloc_dagster.learning.seeded import SeededModule
from geoloc_dagster.learning.sequence_network import SequenceNetwork, in_slots
from geoloc_dagster.learning.sequence_recipe import SequenceRecipe, ViewsSpec
from geoloc_dagster.learning.sequence_rows import SequenceRows, levels_of


def drawn_views(
    headings_deg: Tensor, present: Tensor, relative: Tensor, spec: ViewsSpec, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """What a training step sees: which views are kept, (N, V), their headings, (N, V), and where the sequence starts, (N,).

    Views go missing at random, one is always left; of some places all headings are hidden. With a random start, headings that
    count from an unknown one are turned by a random angle, and recurrent encoders begin at a random heading; without it they
    begin at north.

    Args:
        headings_deg: (N, V), NaN where unknown.
        present: (N, V) bool.
        relative: (N,) bool: headings count from an unknown one.
        spec: of the recipe.
        generator: on the CPU.
    """
    draw = torch.rand(present.shape, generator=generator).masked_fill(~present, -1.0)
    kept = present & (draw >= spec.dropout)
    kept[torch.arange(len(kept)), draw.argmax(dim=1)] = True
    angles = 360 * torch.rand(len(present), 2, generator=generator)
    if not spec.random_start:
        angles.zero_()
    turned = torch.where(relative[:, None], torch.remainder(headings_deg + angles[:, :1], 360), headings_deg)
    hidden = torch.rand(len(present), 1, generator=generator) < spec.unknown
    return kept, turned.masked_fill(hidden, torch.nan), angles[:, 1]


class SequenceModule(SeededModule):
    """Learns the classes of places from their views at every level.

    Args:
        recipe: what to train.
        network: to train.
        classes: that places lie in.
        rows: places and dates of training.
        dev: those on which loss and accuracy are told after each epoch.
    """

    def __init__(
        self, recipe: SequenceRecipe, network: SequenceNetwork, classes: Partitioning, rows: SequenceRows, dev: SequenceRows
    ) -> None:
        super().__init__(recipe.seed, recipe.optimiser)
        self.recipe, self.network = recipe, network
        self._levels = levels_of(recipe, classes)
        self.loss = CellsLoss(recipe.heads.of_cells, classes, self._levels)
        self._targets = {"train": _targets(rows), "dev": _targets(dev)}
        self._views = {"train": _views(rows), "dev": _views(dev)}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Drop views, augment the others, classify, add up the losses."""
        views, rows = batch
        headings, present, relative = (part[rows.cpu()] for part in self._views["train"])
        kept, headings, start = drawn_views(headings, present, relative, self.recipe.views, self._generator)
        views = views[kept[present].to(views.device)]
        if not self.recipe.frozen:
            data = self.recipe.data
            pictures = augment(views, data.image_size, self.recipe.augmentation, self._generator, data.normalise)
            views = self.network.view_features(pictures)
        order = torch.rand(kept.shape, generator=self._generator).argsort(dim=1)  # or slots would tell hidden headings
        kept, headings, start, order = (part.to(self.device) for part in (kept, headings, start, order))
        table = in_slots(views, kept)
        table = table.gather(1, order[..., None].expand_as(table))
        parts = self._losses("train", self.network(table, headings.gather(1, order), kept.gather(1, order), start), rows)
        values = {f"train_{name}": value.detach() for name, value in parts.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(rows))
        return parts["loss"]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy on the split dev, with all views."""
        views, rows = batch
        headings, present, _ = (part[rows.cpu()].to(self.device) for part in self._views["dev"])
        if not self.recipe.frozen:
            views = self.network.view_features(prepared(views, self.recipe.data.image_size, self.recipe.data.normalise))
        logits = self.network(in_slots(views, present), headings, present)
        parts = self._losses("dev", logits, rows)
        self.log_dict({f"dev_{name}": value for name, value in parts.items()}, on_epoch=True, batch_size=len(rows))
        classes = self._targets["dev"][0][rows.cpu()].to(self.device)
        for number, level in enumerate(self._levels):
            known = classes[:, number] != DROPPED
            if bool(known.any()):
                right = (logits[level][known].argmax(1) == classes[known, number]).float().mean()
                self.log(f"dev_{level}_accuracy", right, on_step=False, on_epoch=True, batch_size=int(known.sum()))

    def configure_optimizers(self) -> Any:
        """One cycle of the learning rate over all steps that the trainer will take."""
        return self.one_cycle(self.network, int(self.trainer.estimated_stepping_batches))

    def _losses(self, split: str, logits: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        classes, positions = (part[rows.cpu()].to(self.device) for part in self._targets[split])
        no_scenes = positions.new_full((len(rows), 3), torch.nan)
        return self.loss({name: value.float() for name, value in logits.items()}, classes, positions, no_scenes)


def _targets(rows: SequenceRows) -> tuple[Tensor, Tensor]:
    return torch.tensor(rows.classes, dtype=torch.int64), unit_vectors(rows.lat_deg, rows.lng_deg)


def _views(rows: SequenceRows) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor(rows.headings), torch.tensor(rows.present), torch.tensor(rows.relative)
