"""Questions that are asked one by one and answered many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

A = TypeVar("A")


class Together(Generic[A]):
    """Asks about each id once, together with whatever is asked about at the same time; answers are remembered, failures not.

    Args:
        ask: answers about several ids at once; an id that its answer lacks is unknown.
        most: ids of one question.
    """

    def __init__(self, ask: Callable[[list[str]], Awaitable[Mapping[str, A]]], most: int) -> None:
        self._ask = ask
        self._most = most
        self._tasks: dict[str, asyncio.Task[Mapping[str, A]]] = {}
        self._open: list[str] = []
        self._opened: asyncio.Task[Mapping[str, A]] | None = None

    async def get(self, ids: Iterable[str]) -> dict[str, A]:
        """The answers by id, in the order of the ids; unknown ones are left out. Raises as `ask`."""
        tasks = {one: self._task(one) for one in ids}
        unique = list(dict.fromkeys(tasks.values()))
        for task, outcome in zip(unique, await asyncio.gather(*map(asyncio.shield, unique), return_exceptions=True), strict=True):
            if isinstance(outcome, BaseException):
                self._tasks = {one: other for one, other in self._tasks.items() if other is not task}
                raise outcome
        return {one: task.result()[one] for one, task in tasks.items() if one in task.result()}

    def forget(self, one: str) -> None:
        """Ask anew the next time."""
        self._tasks.pop(one, None)

    async def close(self) -> None:
        """End what is under way, and forget everything."""
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._open, self._opened = [], None

    def _task(self, one: str) -> asyncio.Task[Mapping[str, A]]:
        if one not in self._tasks:
            if self._opened is None or len(self._open) >= self._most:
                self._open = []
                self._opened = asyncio.create_task(self._send(self._open))
            self._open.append(one)
            self._tasks[one] = self._opened
        return self._tasks[one]

    async def _send(self, ids: list[str]) -> Mapping[str, A]:
        await asyncio.sleep(0)  # whoever asks in this turn of the loop goes along
        if self._open is ids:
            self._opened = None
        return await self._ask(ids)
