"""Pieces as tasks of a Ray cluster; a task whose node is lost is done again by another one.

Nothing here starts a cluster. The nodes have this package, in the same version, and the data root at the same path.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from geoloc_dagster.errors import EngineError, EngineMissingError, GeolocError
from geoloc_dagster.scale.engine import UNIT, Piece, Tick

_log = logging.getLogger(__name__)
_REACH_S = 5.0
_LEAST_ROWS = 2 * UNIT  # smaller pieces would be smaller files, of which a table gets slow
_PER_CPU = 2  # pieces, so that the slower nodes do not keep the others waiting
_AGAIN = 3  # times that a lost piece is done again
P = TypeVar("P", bound=Piece)
R = TypeVar("R")


def require_ray() -> Any:
    """The package `ray`.

    Raises:
        EngineMissingError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise EngineMissingError(f"Ray is asked for and is not installed ({error})") from error
    return ray


def connect(environ: Mapping[str, str]) -> None:
    """Join the cluster that `RAY_ADDRESS` names, or the one of this machine; nothing where this process has joined one.

    Raises:
        EngineMissingError: Ray is not installed.
        EngineError: no cluster answers, or it refuses the token.
    """
    ray = require_ray()
    if ray.is_initialized():
        return
    address = environ.get("RAY_ADDRESS") or "auto"
    _require_answer(address)
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise EngineError(f"the Ray cluster {_named(address)} cannot be joined: {_first_line(error)}") from error


def require_jobs(address: str) -> None:
    """Refuse a Jobs API, `http://HOST:PORT`, that runs could not be handed to.

    Raises:
        EngineMissingError: Ray or dagster-ray is not installed.
        EngineError: nothing answers there, or it refuses the token.
    """
    require_ray()
    if importlib.util.find_spec("dagster_ray") is None:
        raise EngineMissingError("runs are to go to Ray and dagster-ray is not installed")
    from ray.job_submission import JobSubmissionClient

    try:
        JobSubmissionClient(address).list_jobs()
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"the Jobs API of Ray at {address} cannot be used: {_first_line(error)}",
            "Give the address of the head's dashboard, http://HOST:8265, and RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH as there.",
        ) from error


def _require_answer(address: str) -> None:
    """Ray itself would ask for a minute, and end the process."""
    if address in ("auto", "local"):
        if address == "local":
            raise EngineError("RAY_ADDRESS is `local`, which would start a cluster for every step")
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise EngineError(f"RAY_ADDRESS is {address!r}, and should be HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise EngineError(f"the Ray cluster {_named(address)} does not answer: {error}") from error


def _named(address: str) -> str:
    return "of this machine" if address == "auto" else f"at {address}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def cut(rows: int, cpus: int) -> list[range]:
    """Pieces of so many rows for so many CPUs; see `RayEngine.cut`."""
    units = max(_LEAST_ROWS // UNIT, math.ceil(rows / (_PER_CPU * max(1, cpus)) / UNIT))
    return [range(first, min(first + units * UNIT, rows)) for first in range(0, rows, units * UNIT)]


class RayEngine:
    """Does each piece as a task, on whichever node has a CPU free."""

    elsewhere = True

    def __init__(self) -> None:
        self._ray = require_ray()

    def cut(self, rows: int) -> list[range]:
        """Two pieces for every CPU of the cluster, none smaller than it is worth a file."""
        return cut(rows, int(self._ray.cluster_resources().get("CPU", 1)))

    def map(self, work: Callable[[P, Tick], R], pieces: Sequence[P], tick: Tick, *, gpu: bool = False) -> list[R]:
        """See `Engine`; rows tick a piece at a time."""
        ray = self._ray
        gpus = 1 if gpu and self._ray.cluster_resources().get("GPU", 0) >= 1 else 0
        options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": _AGAIN, "scheduling_strategy": "SPREAD"}
        task = ray.remote(_work_quietly).options(name=work.__name__, **options)
        waiting = {task.remote(work, piece): number for number, piece in enumerate(pieces)}
        answers = dict[int, R]()
        try:
            while waiting:
                (ready,), _ = ray.wait(list(waiting), num_returns=1)
                answers[waiting[ready]] = ray.get(ready)
                tick(pieces[waiting.pop(ready)].rows)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GeolocError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise EngineError(f"{work.__name__}: the work was lost {_AGAIN + 1} times: {_first_line(error)}") from error
        finally:
            for reference in waiting:
                ray.cancel(reference)
        return [answers[number] for number in range(len(pieces))]


def _work_quietly(work: Callable[[P, Tick], R], piece: P) -> R:
    return work(piece, lambda _: None)
