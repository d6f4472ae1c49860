"""The ledger of requests: one budget, however many take from it."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from geoloc_dagster.errors import DataRootError, IntegrityError
from geoloc_dagster.imagery.ledger import Ledger

DAY = dt.date(2026, 11, 21)


def take_all(path: Path, limit: int, tries: int, start: object, results: object) -> None:
    ledger = Ledger(path)
    start.wait()  # type: ignore[attr-defined]
    results.put(sum(ledger.take("google", DAY, "image", 1, limit) for _ in range(tries)))  # type: ignore[attr-defined]


def test_what_is_taken_is_gone_until_the_next_day(tmp_path: Path):
    ledger = Ledger(tmp_path / "service" / "ledger.sqlite")
    assert ledger.used("google", DAY, "image") == 0
    assert [ledger.take("google", DAY, "image", 1, 3) for _ in range(5)] == [True, True, True, False, False]
    assert ledger.used("google", DAY, "image") == 3
    assert ledger.take("google", DAY + dt.timedelta(days=1), "image", 1, 3)


def test_services_and_kinds_have_budgets_of_their_own(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.take("google", DAY, "image", 1, 1)
    assert ledger.take("google", DAY, "metadata", 1, 1)
    assert ledger.take("emulator", DAY, "image", 1, 1)
    assert not ledger.take("google", DAY, "image", 1, 1)


@pytest.mark.parametrize("first", [True, False])
def test_more_than_is_left_is_not_taken_in_part(tmp_path: Path, first: bool):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    used = 0 if first else 6
    if used:
        assert ledger.take("google", DAY, "image", used, 10)
    assert not ledger.take("google", DAY, "image", 11 - used, 10)
    assert ledger.used("google", DAY, "image") == used
    assert ledger.take("google", DAY, "image", 10 - used, 10)


def test_a_budget_of_nothing_gives_nothing_and_a_smaller_one_takes_nothing_back(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert not ledger.take("google", DAY, "image", 1, 0)
    ledger.add("google", DAY, "image", 700)
    assert not ledger.take("google", DAY, "image", 1, 500)
    assert ledger.used("google", DAY, "image") == 700
    with pytest.raises(ValueError, match="-1"):
        ledger.take("google", DAY, "image", -1, 500)


def test_another_process_later_finds_what_was_counted(tmp_path: Path):
    first = Ledger(tmp_path / "ledger.sqlite")
    first.add("google", DAY, "image", 5)
    assert Ledger(tmp_path / "ledger.sqlite").used("google", DAY, "image") == 5
    first.close()
    assert first.used("google", DAY, "image") == 5


def test_four_processes_never_take_more_than_there_is(tmp_path: Path):
    path = tmp_path / "service" / "ledger.sqlite"
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(4), context.Queue()
    children = [context.Process(target=take_all, args=(path, 500, 200, start, results)) for _ in range(4)]
    for child in children:
        child.start()
    taken = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert sum(taken) == 500
    assert Ledger(path).used("google", DAY, "image") == 500


def test_threads_share_one_ledger(tmp_path: Path):
    ledger, taken = Ledger(tmp_path / "ledger.sqlite"), list[int]()

    def work() -> None:
        taken.append(sum(ledger.take("google", DAY, "image", 1, 150) for _ in range(100)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 150


def test_a_forked_child_counts_too(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.add("google", DAY, "image", 1)
    child = os.fork()
    if child == 0:
        try:
            ledger.add("google", DAY, "image", 1)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    ledger.add("google", DAY, "image", 1)
    assert ledger.used("google", DAY, "image") == 3


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda path: path.write_bytes(b"not a database, by any means" * 100), IntegrityError),
        (lambda path: path.mkdir(), DataRootError),
    ],
    ids=["other file", "folder"],
)
def test_a_ledger_that_cannot_be_used_says_so(tmp_path: Path, spoil: Callable[[Path], None], error: type[Exception]):
    path = tmp_path / "service" / "ledger.sqlite"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(error, match="ledger"):
        Ledger(path).take("google", DAY, "image", 1, 10)
