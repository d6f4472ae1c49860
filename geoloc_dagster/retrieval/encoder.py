"""What retrieval needs of a model; `learning.encoder` is one. Light, so that what only names models imports no torch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Turns pictures into comparable vectors; what `learning.encoder.load_encoder` returns."""

    @property
    def model_version(self) -> str:
        """Names the exact weights."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def image_size(self) -> int:
        """Side in pixels to which pictures are resized before the first layer."""
        ...

    def embed(self, pictures: Pictures, batch_size: int = ...) -> Vectors:
        """Vectors of uint8 pictures (N, 3, S, S): float32 (N, dimension), L2-normalised."""
        ...
