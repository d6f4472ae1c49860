"""One way to say "do this to each of these pieces", and the engine that does it in this process.

A piece is plain values: paths, table versions, numbers of rows. What is done with it returns names of files, checksums and
counts. Pictures and vectors are read and written where the work is done, and never pass through the step that asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from geoloc_dagster.errors import ConfigError

ENGINE = "GEOLOC_ENGINE"
"""Environment variable that names the engine; what it names changes per machine, and no result."""
ENGINES = ("local", "ray")
Tick = Callable[[int], None]


class Piece(Protocol):
    """A part of a batch, as plain values."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        ...


P = TypeVar("P", bound=Piece)
R = TypeVar("R")


class Engine(Protocol):
    """What does the work of a step, piece by piece."""

    @property
    def elsewhere(self) -> bool:
        """Whether the work is done by other processes, which have nothing but the piece."""
        ...

    def cut(self, rows: int) -> list[range]:
        """The pieces into which so many rows are best divided, none for no rows; all but the last a multiple of `UNIT`."""
        ...

    def map(self, work: Callable[[P, Tick], R], pieces: Sequence[P], tick: Tick, *, gpu: bool = False) -> list[R]:
        """What `work` returns of each piece, in the order of the pieces.

        Args:
            work: a function that other processes can find by its name, and that may be called again for the same piece.
            pieces: of the batch.
            tick: called with numbers of rows as they are done.
            gpu: whether a GPU helps, where there is one.

        Raises:
            GeolocError: what the work raised.
            EngineError: the work was lost again and again, or those who do it cannot be reached.
        """
        ...


UNIT = 256
"""Rows that are embedded together; pieces begin at multiples of it, so that no vector depends on the engine."""


class LocalEngine:
    """Does everything in this process, one piece after the other."""

    elsewhere = False

    def cut(self, rows: int) -> list[range]:
        """One piece."""
        return [range(rows)] if rows else []

    def map(self, work: Callable[[P, Tick], R], pieces: Sequence[P], tick: Tick, *, gpu: bool = False) -> list[R]:
        """See `Engine`."""
        return [work(piece, tick) for piece in pieces]


LOCAL = LocalEngine()


def counted(progress: Callable[[int, int], None] | None, total: int) -> Tick:
    """A tick that tells `progress` how many rows are done, of how many."""
    done = 0

    def tick(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    return tick


def chosen_engine(environ: Mapping[str, str]) -> Engine:
    """The engine that `GEOLOC_ENGINE` names; this process without it.

    Raises:
        ConfigError: there is none of that name.
        EngineMissingError: it is not installed.
        EngineError: its cluster cannot be reached.
    """
    name = environ.get(ENGINE) or "local"
    if name not in ENGINES:
        raise ConfigError(f"{ENGINE} is {name!r}, and engines are {' and '.join(ENGINES)}", f"Unset it, or set {ENGINE}=ray.")
    if name == "local":
        return LOCAL
    from geoloc_dagster.scale.ray_engine import RayEngine, connect

    connect(environ)
    return RayEngine()
