"""The released model in memory: loaded once, replaced when the release changes, asked in batches.

A request takes what is served when it comes and keeps it to the end, so a change of the release fails none. While one batch is
computed the next fills up, so that many single photos cost what a batch of them costs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.errors import GeolocError, NoReleaseError, ObjectStorageError
from geoloc_dagster.object_storage.binding import working_copy_of
from geoloc_dagster.prediction.fused import FusedPrediction, FusedPredictor, load_fused
from geoloc_dagster.prediction.protocol import Prediction
from geoloc_dagster.prediction.release import Release, load_release
from geoloc_dagster.prediction.retrieval import RetrievalPredictor
from geoloc_dagster.prediction.runtimes import EncoderLoader
from geoloc_dagster.retrieval.encoder import Pictures
from geoloc_dagster.retrieval.pointer import read_pointer

logger = logging.getLogger(__name__)
MOST_AT_ONCE = 16
_POLL_S = 1.0
_NOTHING = "Nothing has been released yet: `geoloc run` makes a release."
Answer = FusedPrediction | Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A release as photos are asked of it.

    Attributes:
        release: its id.
        activated_at: when it was put in place.
        fused: all experts together; None where the release has no fusion.
        retrieval: the nearest pictures alone, where it has none.
        held_out: that of the two that there is, to which the pictures that are asked about are no neighbours.
        districts: name of the district of each cell of the grid; empty without a fusion.
    """

    release: str
    activated_at: datetime
    fused: FusedPredictor | None
    retrieval: Release | None
    held_out: FusedPredictor | RetrievalPredictor
    districts: np.ndarray

    @property
    def sizes(self) -> list[int]:
        """Sides of the pictures that it looks at, pixels."""
        return self.fused.sizes if self.fused is not None else [self._retrieval().encoder.image_size]

    def answer(
        self, pictures: Mapping[int, Pictures], coverage: float, expert: str | None, *, held_out: bool = False
    ) -> Sequence[Answer]:
        """One answer per picture; `held_out` for those of the region itself, which must not find themselves."""
        predictor = self.held_out if held_out else self.fused or self._retrieval().predictor()
        if isinstance(predictor, FusedPredictor):
            return predictor.answer(pictures, coverage=coverage, expert=expert)
        return predictor.predict(pictures[self.sizes[0]])

    def _retrieval(self) -> Release:
        assert self.retrieval is not None
        return self.retrieval


Loader = Callable[[], Served]


class Serving:
    """What is served, kept current.

    Args:
        load: makes what is served now.
        pointer: the file that says what that is; where it changes, `load` is called again.
    """

    def __init__(self, load: Loader, pointer: Path) -> None:
        self._load, self._pointer = load, pointer
        self._served: Served | None = None
        self._seen: tuple[int, int] | None = None
        self._refreshing = threading.Lock()
        self._cut_off = False
        self.problem: str | None = _NOTHING
        """Why what is served is not what the pointer names, in words; None where it is."""

    @property
    def served(self) -> Served:
        """What is served now.

        Raises:
            NoReleaseError: nothing is.
        """
        if self._served is None:
            raise NoReleaseError(self.problem or _NOTHING, "`/health` says when that changes.")
        return self._served

    @property
    def release(self) -> str | None:
        """Its id."""
        return None if self._served is None else self._served.release

    def refresh(self) -> bool:
        """Load what the pointer names if that has changed; whether it had. What was served stays where that fails."""
        with self._refreshing:
            self._pull()
            return self._refresh()

    def _pull(self) -> None:
        """Bring in a release that another machine has published; where that fails what is served stays, and it is tried again."""
        copy = working_copy_of(self._pointer)
        if copy is None:
            return
        try:
            if not copy.is_current(self._pointer):
                copy.pull()
            self._cut_off = False
        except ObjectStorageError as error:
            if not self._cut_off:
                logger.warning("no newer release can be seen: %s", error)
            self._cut_off = True

    def _refresh(self) -> bool:
        found = self._stamp()
        if found == self._seen:
            return False
        self._seen = found
        if found is None:
            self.problem = _NOTHING
            return False
        if self._served is None:
            self.problem = "The release is being checked and loaded; come again in a moment."
        try:
            fresh = self._load()
        except GeolocError as error:
            self.problem = f"{error.cause}. {error.remedy}"
            logger.warning("the release cannot be served: %s", error)
            return False
        self._served, self.problem = fresh, None
        logger.info("serving release %s", fresh.release)
        return True

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Refresh for ever, in a thread of its own, while requests go on; `on_change` after each change."""
        while True:
            if await asyncio.to_thread(self.refresh):
                on_change()
            await asyncio.sleep(_POLL_S)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._pointer.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino


def load_served(
    settings: Settings, layout: Layout, held_out: Callable[[], list[str]], encoder_loader: EncoderLoader | None = None
) -> Served:
    """The served release, with every byte of it checked.

    Args:
        settings: of the region.
        layout: likewise.
        held_out: capture ids of the pictures that may be asked about as samples and in the game.
        encoder_loader: in place of that of the models' own networks.

    Raises:
        NoReleaseError: nothing has been released, or the release has neither index nor fusion.
        IntegrityError: a file is missing or has changed.
    """
    try:
        fused = load_fused(layout, encoder_loader=encoder_loader)
    except NoReleaseError:
        release = load_release(layout, encoder_loader=encoder_loader)
        alone = release.predictor()
        hidden = replace(alone, index=alone.index.without(held_out()))
        return Served(release.release_id, _activated_at(layout), None, release, hidden, np.empty(0, np.str_))
    districts = _districts(settings, layout, fused)
    return Served(fused.release, _activated_at(layout), fused, None, fused.without(held_out()), districts)


def _activated_at(layout: Layout) -> datetime:
    fields = read_pointer(layout.releases / "CURRENT.json", "Materialise `release` again.")
    return datetime.fromisoformat(fields["activated_at"])


def _districts(settings: Settings, layout: Layout, fused: FusedPredictor) -> np.ndarray:
    from geoloc_dagster.geo.boundary import read_boundary
    from geoloc_dagster.geo.districts import district_of, unnamed_level

    region, grid = settings.region, fused.fusion.grid
    path = None if region.districts is None else settings.resolve(region.districts)
    level = unnamed_level(read_boundary(layout.boundary).area_km2)
    return district_of(grid.lat_deg, grid.lng_deg, path, region.district_property, level=level)


@dataclass(slots=True, eq=False)
class _Waiting:
    served: Served
    pictures: Mapping[int, Pictures]
    coverage: float
    expert: str | None
    held_out: bool
    answer: asyncio.Future[Answer]

    @property
    def kind(self) -> tuple[int, float, str | None, bool]:
        """Those of one kind can be asked together."""
        return id(self.served), self.coverage, self.expert, self.held_out


class Batches:
    """Asks about pictures of many requests together, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._worker = ThreadPoolExecutor(1, "ask")
        self._running: asyncio.Task[None] | None = None

    async def ask(
        self, served: Served, pictures: Mapping[int, Pictures], coverage: float, expert: str | None, *, held_out: bool = False
    ) -> Answer:
        """The answer to one picture, as each network looks at it: side -> (1, 3, side, side).

        Raises:
            NoReleaseError: there is no such expert.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(served, pictures, coverage, expert, held_out, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch = self._next()
            if batch:
                await self._ask(batch)

    def _next(self) -> list[_Waiting]:
        """The first that waits and others of its kind; those whose request is gone are left out."""
        kind, batch, others = self._waiting[0].kind, list[_Waiting](), list[_Waiting]()
        while self._waiting and len(batch) < MOST_AT_ONCE:
            one = self._waiting.popleft()
            if not one.answer.done():
                (batch if one.kind == kind else others).append(one)
        self._waiting.extendleft(reversed(others))
        return batch

    async def _ask(self, batch: list[_Waiting]) -> None:
        first = batch[0]
        together = {size: np.concatenate([one.pictures[size] for one in batch]) for size in first.pictures}

        def ask() -> Sequence[Answer]:
            return first.served.answer(together, first.coverage, first.expert, held_out=first.held_out)

        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._worker, ask)
        except Exception as error:  # noqa: BLE001 - each request says so; the next batch is asked all the same
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in zip(batch, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(wait=False, cancel_futures=True)
