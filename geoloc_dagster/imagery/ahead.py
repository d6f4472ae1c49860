"""Asking ahead: several questions in flight, answers in the order of the questions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


async def ahead(ask: Callable[[Q], Awaitable[A]], questions: Iterable[Q], depth: int) -> AsyncGenerator[A]:
    """The answers in the order of the questions; what is still in flight when the reader stops is cancelled.

    Args:
        ask: answers one.
        questions: all of them.
        depth: how many are in flight at most.
    """
    waiting: deque[asyncio.Future[A]] = deque()
    try:
        for question in questions:
            waiting.append(asyncio.ensure_future(ask(question)))
            if len(waiting) >= depth:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
