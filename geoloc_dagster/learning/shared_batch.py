"""One batch on several devices: each has its share of the rows, of the random numbers, and sees the vectors of all in the loss.

A training on many devices is the training of the recipe: the same batches in the same order, changed by the same random numbers,
and a loss over the whole batch, so that its gradient is that of one device. Batch norm does the same on GPUs (`SyncBatchNorm`);
between processes on the CPU it sees the share of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils.data import Sampler

from geoloc_dagster.errors import RecipeError


class SharedGenerator(torch.Generator):
    """Random numbers of a whole batch, of which a process takes those of its own rows.

    Attributes:
        part: of this process, from 0.
        parts: how many processes share a batch.
    """

    part: int = 0
    parts: int = 1


def rand(count: int, *shape: int, generator: torch.Generator) -> Tensor:
    """Numbers from 0 to 1 for `count` rows of this process, the same that one process would draw for them."""
    parts, part = (generator.parts, generator.part) if isinstance(generator, SharedGenerator) else (1, 0)
    return torch.rand(count * parts, *shape, generator=generator)[part * count : (part + 1) * count]


class ShareOfBatches(Sampler[list[int]]):
    """The rows of each batch that belong to one of several processes: equal blocks in the order of the processes.

    Args:
        batches: of the recipe.
        rows: of each of them.
        part: of this process, from 0.
        parts: how many processes share a batch.

    Raises:
        RecipeError: a batch cannot be shared equally.
    """

    def __init__(self, batches: Sampler[list[int]], rows: int, part: int, parts: int) -> None:
        if rows % parts:
            raise RecipeError(
                f"a batch of {rows} pictures cannot be shared by {parts} devices",
                "Make the batch a multiple of compute.devices x compute.nodes.",
            )
        self._batches, self._part, self._share = batches, part, rows // parts

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        start = self._part * self._share
        for batch in self._batches:
            yield batch[start : start + self._share]


def gathered(values: Tensor) -> Tensor:
    """The rows of all processes in their order, N / parts x ... -> N x ..., with gradients; the values themselves in one process.

    The gradient of a loss that every process computes over all rows, averaged over the processes, is that of one process.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return values
    return _Gather.apply(values)  # type: ignore[no-any-return]


def all_gathered(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`gathered` by name."""
    return {name: gathered(value) for name, value in values.items()}


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        count = len(gradient) // distributed.get_world_size()
        start = distributed.get_rank() * count
        return gradient[start : start + count]
