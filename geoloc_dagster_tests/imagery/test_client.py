"""What the client promises whatever the service: budgets, a breaker that probes, opt-outs, robots, pauses of other processes."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from geoloc_dagster.config.collection import ServiceSettings
from geoloc_dagster.errors import ServiceUnavailableError
from geoloc_dagster.imagery.buckets import HostBuckets, MemoryBuckets
from geoloc_dagster.imagery.client import Answer, Budget, Etiquette, ServiceClient
from geoloc_dagster.imagery.factory import daily_budgets
from geoloc_dagster.imagery.ledger import Ledger
from geoloc_dagster.imagery.provider import CollectionStopped, RequestFailedError, failure_classes

DAY = dt.date(2026, 11, 21)
PICTURE = b"\xff\xd8 a picture \xff\xd9"


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def client(handle: Callable[[httpx2.Request], httpx2.Response], time: Time | None = None, **options: Any) -> ServiceClient:
    time = time or Time()
    etiquette = options.pop("etiquette", Etiquette(requests_per_second=100, attempts=1, concurrency=1))
    return ServiceClient(
        "maps",
        "https://maps.example",
        etiquette,
        transport=httpx2.MockTransport(handle),
        today=lambda: DAY,
        sleep=time.sleep,
        clock=time,
        rng=random.Random(1),
        **options,
    )


def ask(one: ServiceClient, count: int = 1, path: str = "/picture") -> list[Answer | Exception]:
    async def all_of_them() -> list[Answer | Exception]:
        answers: list[Answer | Exception] = []
        async with one.session():
            for _ in range(count):
                try:
                    answers.append(await one.get(path, {}, expect="image", charge="image"))
                except Exception as error:  # noqa: BLE001
                    answers.append(error)
        return answers

    return asyncio.run(all_of_them())


def good(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, content=PICTURE)


@pytest.mark.parametrize(
    ("budget", "answered", "said"),
    [
        (Budget("image", 3, {"image": 1}, "3 requests for a picture a day"), 3, "3 requests for a picture a day are spent"),
        (Budget("request", 2, {}, "2 requests a day"), 2, "2 requests a day are spent"),
        (Budget("byte", 2 * len(PICTURE), {}, "30 bytes a day"), 2, "30 bytes a day are spent"),
        (Budget("microdollar", 28_000, {"image": 7_000}, "0.03 dollars a day"), 4, "0.03 dollars a day are spent"),
    ],
)
def test_each_budget_ends_the_day_by_itself(tmp_path: Path, budget: Budget, answered: int, said: str):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    answers = ask(client(good, ledger=ledger, budgets=[budget]), 6)
    assert sum(isinstance(answer, Answer) for answer in answers) == answered
    stop = answers[answered]
    assert isinstance(stop, CollectionStopped)
    assert stop.reason == "budget"
    assert stop.detail == said


def test_what_has_no_limit_is_counted(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ask(client(good, ledger=ledger, budgets=daily_budgets(ServiceSettings())), 3)
    used = {what: ledger.used("maps", DAY, what) for what in ("image", "request", "byte", "microdollar")}
    assert used == {"image": 3, "request": 3, "byte": 3 * len(PICTURE), "microdollar": 21_000}


def test_a_budget_that_is_spent_takes_nothing_from_the_others(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    budgets = [Budget("request", 100, {}, "100 requests a day"), Budget("image", 1, {"image": 1}, "1 picture a day")]
    ask(client(good, ledger=ledger, budgets=budgets), 3)
    assert ledger.used("maps", DAY, "request") == 1


def test_an_open_breaker_waits_and_probes_once_and_closes_again():
    time, asked = Time(), list[float]()

    def handle(_: httpx2.Request) -> httpx2.Response:
        asked.append(time())
        return httpx2.Response(500 if len(asked) <= 4 else 200, content=PICTURE)

    etiquette = Etiquette(requests_per_second=100, attempts=1, concurrency=1, breaker_failures=4, probe_after_s=30)
    answers = ask(client(handle, time, etiquette=etiquette), 8)
    assert [isinstance(answer, Answer) for answer in answers] == [False] * 4 + [True] * 4
    assert asked[4] - asked[3] >= 30
    assert asked[5] - asked[4] < 1


def test_a_probe_that_fails_ends_the_run_and_nothing_more_is_asked():
    time, asked = Time(), list[float]()

    def handle(_: httpx2.Request) -> httpx2.Response:
        asked.append(time())
        return httpx2.Response(500)

    etiquette = Etiquette(requests_per_second=100, attempts=1, concurrency=1, breaker_failures=4, probe_after_s=30)
    answers = ask(client(handle, time, etiquette=etiquette), 9)
    assert len(asked) == 5
    assert all(isinstance(answer, ServiceUnavailableError) for answer in answers[4:])


@pytest.mark.parametrize("header", ["noai", "noimageai", "noindex, NOAI", "geoloc_dagster: noai"])
def test_who_does_not_want_to_be_trained_on_is_left_out(header: str):
    answers = ask(client(lambda _: httpx2.Response(200, headers={"x-robots-tag": header}, content=PICTURE)))
    assert isinstance(answers[0], RequestFailedError)
    assert answers[0].kind == "opted_out"
    assert not answers[0].retryable


def test_an_index_rule_is_no_opt_out():
    answers = ask(client(lambda _: httpx2.Response(200, headers={"x-robots-tag": "noindex"}, content=PICTURE)))
    assert isinstance(answers[0], Answer)


def test_what_robots_txt_forbids_is_not_asked_for():
    asked: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return good(request)

    async def allowed(url: str) -> bool:
        return "/private" not in url

    one = client(handle, allowed=allowed)
    assert isinstance(ask(one, path="/public")[0], Answer)
    refused = ask(one, path="/private/1")[0]
    assert isinstance(refused, RequestFailedError)
    assert refused.kind == "disallowed"
    assert asked == ["/public"]


def test_a_pause_asked_of_one_process_holds_for_the_next(tmp_path: Path):
    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(429, headers={"retry-after": "900"})

    first = ask(client(handle, buckets=HostBuckets(tmp_path / "buckets.sqlite")))[0]
    assert isinstance(first, CollectionStopped)
    asked: list[str] = []

    def seen(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return good(request)

    second = ask(client(seen, buckets=HostBuckets(tmp_path / "buckets.sqlite")))[0]
    assert isinstance(second, CollectionStopped)
    assert second.reason == "pause"
    assert asked == []


def test_pictures_on_another_host_are_asked_for_without_the_key_and_may_be_gone():
    asked: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(403) if "old" in request.url.path else good(request)

    one = client(handle, buckets=MemoryBuckets())
    one.use_key("k-secret", parameter="access_token")
    assert isinstance(ask(one, path="https://cdn.example/new?sig=abc")[0], Answer)
    gone = ask(one, path="https://cdn.example/old?sig=abc")[0]
    assert isinstance(gone, RequestFailedError)
    assert gone.kind == "gone"
    assert "sig" not in str(gone)
    ask(one)
    assert asked == [
        "https://cdn.example/new?sig=abc",
        "https://cdn.example/old?sig=abc",
        "https://maps.example/picture?access_token=k-secret",
    ]


def test_failures_are_sorted_by_what_to_do_about_them():
    sorted_out = failure_classes({"timeout": 2, "gone": 1, "truncated": 3, "opted_out": 4, "undecodable": 5})
    assert sorted_out == {
        "network": {"timeout": 2, "truncated": 3},
        "gone": {"gone": 1},
        "refused": {"opted_out": 4},
        "quality": {"undecodable": 5},
    }
