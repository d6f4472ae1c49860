"""Which device, in which precision, compiled or not, and how pictures get there; on a CPU everything is as plain as can be.

A GPU computes while the next pictures travel: bytes are copied from pinned memory on a stream of their own, results are fetched
one batch late, and nothing in between waits for the device.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from geoloc_dagster.learning.recipe_parts import ComputeSpec

_log = logging.getLogger(__name__)
Precision = Literal["32", "bf16", "16"]
_Answer = TypeVar("_Answer")
_AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}
_LIGHTNING = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
_STEPS_THAT_PAY = 2_000  # compiling takes a minute or two, a step of a ResNet50 some 50 ms


def default_device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def device_name() -> str:
    """As its maker calls it; `cpu` where there is no GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def precision_of(compute: ComputeSpec, device: torch.device) -> Precision:
    """What `auto` means on this device: bf16 on a GPU, where it is faster and as good, 32 bits elsewhere."""
    if compute.precision != "auto":
        return compute.precision
    return "bf16" if device.type == "cuda" else "32"


def trainer_precision(compute: ComputeSpec, device: torch.device) -> str:
    """As Lightning's trainer calls it."""
    return _LIGHTNING[precision_of(compute, device)]


def arithmetic(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Where a network is asked: automatic mixed precision, or nothing at 32 bits."""
    if precision == "32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, _AUTOCAST[precision])


def steady_arithmetic(device: torch.device, lightning_precision: str) -> AbstractContextManager[object]:
    """Where a network is trained: on a CPU in bf16 without oneDNN, whose gradients of convolutions at times were no numbers.

    On a processor without instructions for bf16 it read memory that nothing had been written to (torch 2.15: 2 of 30 backward
    passes of a small ResNet, by what lay in that memory).
    """
    if device.type == "cpu" and lightning_precision == _LIGHTNING["bf16"]:
        return torch.backends.mkldnn.flags(enabled=False)
    return contextlib.nullcontext()


def compile_where_it_pays(network: nn.Module, compute: ComputeSpec, device: torch.device, *, steps: int) -> bool:
    """Have torch compile a network in place, its weights keep their names; says whether it will.

    Args:
        network: whose calls are compiled.
        compute: of the recipe.
        device: that it computes on.
        steps: that are to be taken; few do not pay for the compiler.
    """
    wanted = compute.compile == "always" or (
        compute.compile == "auto" and device.type == "cuda" and steps >= _STEPS_THAT_PAY and _can_compile()
    )
    if wanted:
        _log.info("torch compiles the network at its first step")
        network.compile()
    return wanted


def _can_compile() -> bool:
    """Triton makes the kernels and a C compiler their launchers."""
    compilers = ("cc", "gcc", "clang")
    return importlib.util.find_spec("triton") is not None and any(shutil.which(name) for name in compilers)


def moved(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; to a GPU from pinned memory, without waiting for the copy."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def ahead_on_device(parts: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Each part on the device; on a GPU the next one travels, on a stream of its own, while the last is computed on."""
    if device.type != "cuda":
        yield from (part.to(device) for part in parts)
        return
    stream = torch.cuda.Stream(device)
    travelling: tuple[Tensor, torch.cuda.Event] | None = None
    for part in parts:
        with torch.cuda.stream(stream):
            copy, arrived = moved(part, device), torch.cuda.Event()
            arrived.record(stream)
        if travelling is not None:
            yield _arrived(*travelling)
        travelling = copy, arrived
    if travelling is not None:
        yield _arrived(*travelling)


def _arrived(copy: Tensor, arrived: torch.cuda.Event) -> Tensor:
    """The computing stream waits for the copy, and its memory is not given away before that stream is done with it."""
    computing = torch.cuda.current_stream(copy.device)
    computing.wait_event(arrived)
    copy.record_stream(computing)
    return copy


def answers_one_late(ask: Callable[[Tensor], _Answer], parts: Iterable[Tensor], device: torch.device) -> Iterator[_Answer]:
    """What `ask` says of each part, on the device; a GPU is given the next part before the answer to the last is handed out."""
    waiting: _Answer | None = None
    for part in ahead_on_device(parts, device):
        said = ask(part)
        if device.type != "cuda":
            yield said
            continue
        if waiting is not None:
            yield waiting
        waiting = said
    if waiting is not None:
        yield waiting
