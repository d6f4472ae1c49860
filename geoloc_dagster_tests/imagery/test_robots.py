"""The promises of RFC 9309, one test each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2
import pytest

from geoloc_dagster.imagery.robots import MAX_BYTES, Fetched, Robots

PAGE = "https://photos.example/a/b.jpg"
FILE = "https://photos.example/robots.txt"


class Hosts:
    """Answers to URLs, and what was asked for."""

    def __init__(self, answers: Mapping[str, Fetched | Exception]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, url: str) -> Fetched:
        self.asked.append(url)
        answer = self.answers[url]
        if isinstance(answer, Exception):
            raise answer
        return answer


def text(*lines: str) -> Fetched:
    return Fetched(200, "\n".join(lines).encode())


def allowed(answers: Mapping[str, Fetched | Exception], url: str = PAGE) -> bool:
    return asyncio.run(Robots(Hosts(answers)).allowed(url))


def test_it_is_fetched_once_per_host_before_the_first_request_however_many_ask_at_once():
    hosts = Hosts({FILE: text("User-agent: *", "Disallow: /private")})
    robots = Robots(hosts)

    async def ask() -> list[bool]:
        return await asyncio.gather(*(robots.allowed(f"https://photos.example/{part}/1") for part in ("a", "private", "b")))

    assert asyncio.run(ask()) == [True, False, True]
    assert hosts.asked == [FILE]


def test_it_is_fetched_again_after_a_day():
    hosts, now = Hosts({FILE: text("")}), [0.0]
    robots = Robots(hosts, clock=lambda: now[0])
    for moment in (0.0, 86_399.0, 86_401.0):
        now[0] = moment
        assert asyncio.run(robots.allowed(PAGE))
    assert len(hosts.asked) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429])
def test_a_host_without_the_file_allows_everything(status: int):
    assert allowed({FILE: Fetched(status)})


@pytest.mark.parametrize("answer", [Fetched(500), Fetched(503), OSError("no route"), httpx2.ConnectError("refused")])
def test_a_host_that_fails_allows_nothing(answer: Fetched | Exception):
    assert not allowed({FILE: answer})


def test_a_host_that_failed_is_asked_again_soon():
    hosts, now = Hosts({FILE: Fetched(503)}), [0.0]
    robots = Robots(hosts, clock=lambda: now[0])
    assert not asyncio.run(robots.allowed(PAGE))
    hosts.answers = {FILE: text("")}
    now[0] = 601.0
    assert asyncio.run(robots.allowed(PAGE))


def test_five_redirects_are_followed_and_a_loop_allows_everything():
    hops = {f"https://photos.example/{i}": Fetched(302, location=f"/{i + 1}") for i in range(1, 5)}
    chain: dict[str, Fetched | Exception] = {FILE: Fetched(301, location="/1"), **hops}
    assert not allowed({**chain, "https://photos.example/5": text("User-agent: *", "Disallow: /")})
    assert allowed({FILE: Fetched(301, location="/robots.txt")})


def test_rules_within_512_kib_count():
    padding = "# " + "x" * 998 + "\n"
    lines = "User-agent: *\n" + padding * 400 + "Disallow: /a\n"
    assert 400_000 < len(lines) < MAX_BYTES
    assert not allowed({FILE: Fetched(200, lines.encode())})


def test_the_longest_match_wins_and_our_own_group_before_everybodys():
    rules = text(
        "User-agent: *", "Disallow: /", "", "User-agent: geoloc_dagster", "Disallow: /a", "Allow: /a/b", "Disallow: /*.png$"
    )
    assert allowed({FILE: rules})
    assert not allowed({FILE: rules}, "https://photos.example/a/c.jpg")
    assert not allowed({FILE: rules}, "https://photos.example/z.png")
    assert allowed({FILE: rules}, "https://photos.example/z.png?size=1")


def test_the_crawl_delay_is_told():
    robots = Robots(Hosts({FILE: text("User-agent: *", "Crawl-delay: 2.5")}))
    assert asyncio.run(robots.crawl_delay_s(PAGE)) == 2.5


def test_bytes_that_are_no_text_are_no_rules():
    assert allowed({FILE: Fetched(200, b"\xff\xd8\xff\xe0" + bytes(range(256)))})
