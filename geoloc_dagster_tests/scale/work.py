"""What the nodes of a test's cluster are given to do: importable there, which the program that asks is not."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from geoloc_dagster.retrieval.encoder import Encoder
from geoloc_dagster.scale.engine import Tick
from geoloc_dagster_tests.retrieval.city import FakeEncoder


@dataclass(frozen=True, slots=True)
class FakeLoading:
    """In place of `Loading`: an encoder that needs no file and no torch."""

    folder: Path
    model_version: str

    def encoder(self) -> Encoder:
        return FakeEncoder(self.model_version)


@dataclass(frozen=True, slots=True)
class Nap:
    """A piece that says in a file where it is being done, and waits there until it may go on."""

    folder: Path
    number: int
    rows: int = 1

    @property
    def may_end(self) -> Path:
        return self.folder / "go"


def nap(piece: Nap, tick: Tick) -> str:
    """Which node did it."""
    node = os.environ["GEOLOC_TESTS_NODE"]
    (piece.folder / f"{piece.number}.{node}.begun").touch()
    while not piece.may_end.exists():
        time.sleep(0.02)
    tick(piece.rows)
    return node


@dataclass(frozen=True, slots=True)
class Empty:
    """A piece in which there is nothing to do."""

    rows: int = 1


def nothing(piece: Empty, tick: Tick) -> None:
    """Be done."""
    tick(piece.rows)
