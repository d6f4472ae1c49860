"""A server that does to its client whatever a socket allows: each trick ends as its own class, in time, and in little memory."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from geoloc_dagster.errors import ServiceBlockedError
from geoloc_dagster.imagery.client import Etiquette, ServiceClient
from geoloc_dagster.imagery.provider import RequestFailedError
from geoloc_dagster.imagery.received import check_picture
from geoloc_dagster_tests.imagery.pictures import jpeg
from geoloc_dagster_tests.imagery.stubs import serve

DEADLINE_S = 1.0
LIMITS = Etiquette(requests_per_second=500, deadline_s=DEADLINE_S, max_bytes=1 << 20, attempts=1, breaker_failures=1_000)
PICTURE = jpeg(7, 64)
Send = Callable[[socket.socket], None]


def answer(body: bytes, *headers: str, length: int | None = None, status: str = "200 OK", kind: str = "image/jpeg") -> Send:
    """One complete answer, whose length may be a lie."""
    said = len(body) if length is None else length
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {said}", "Connection: close", *headers])
    return lambda connection: connection.sendall(head.encode() + b"\r\n\r\n" + body)


def raw(content: bytes) -> Send:
    return lambda connection: connection.sendall(content)


def forever(start: bytes, piece: bytes, pause_s: float = 0.0) -> Send:
    """A beginning and then the same piece for as long as the client stays."""

    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(pause_s)

    return send


def silent(connection: socket.socket) -> None:
    """Takes the request, never answers, and waits for the client to hang up."""
    while connection.recv(4096):
        pass


def reset(after: bytes) -> Send:
    def send(connection: socket.socket) -> None:
        connection.sendall(after)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return send


def packed(content: bytes) -> bytes:
    return gzip.compress(content, 9)


def bomb(total: int) -> bytes:
    """`total` blanks, a thousandth of that on the wire."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * (1 << 20)
    return b"".join([*(squeezer.compress(block) for _ in range(total >> 20)), squeezer.flush()])


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
OPEN_END = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff\xe0"
HEADERS = b"HTTP/1.1 200 OK\r\n"

TRICKS: dict[str, tuple[Send, str]] = {
    "accepted and never answered": (silent, "timeout"),
    "a status line byte by byte": (forever(b"", b"H", 0.05), "timeout"),
    "headers byte by byte": (forever(HEADERS + b"X-A: ", b"a", 0.05), "timeout"),
    "a header more now and then": (forever(HEADERS, b"X-A: a\r\n", 0.05), "timeout"),
    "100 Continue without end": (forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02), "timeout"),
    "a body byte by byte": (forever(OPEN_END, b"\0", 0.05), "timeout"),
    "chunks of a byte": (forever(CHUNKED, b"1\r\n\0\r\n", 0.05), "timeout"),
    "a body that stops in the middle": (
        lambda connection: (answer(PICTURE[:99], length=len(PICTURE))(connection), silent(connection))[0],
        "timeout",
    ),
    "hung up without a word": (raw(b""), "network"),
    "reset without a word": (reset(b""), "network"),
    "reset in the headers": (reset(HEADERS + b"Content-Le"), "network"),
    "reset in the body": (reset(OPEN_END + b"\0" * 999), "network"),
    "hung up in the body": (answer(PICTURE, length=len(PICTURE) + 1_000), "truncated"),
    "hung up in a chunk": (raw(CHUNKED + b"ffff\r\nabc"), "truncated"),
    "a picture that ends early": (answer(PICTURE[:-200]), "truncated"),
    "nothing at all": (answer(b""), "truncated"),
    "more than was announced": (answer(PICTURE + b"more", length=len(PICTURE) - 300), "truncated"),
    "a length of letters": (raw(HEADERS + b"Content-Length: many\r\n\r\n" + PICTURE), "network"),
    "two lengths": (raw(HEADERS + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + PICTURE), "network"),
    "no HTTP": (raw(b"220 mail.example ESMTP ready\r\n"), "network"),
    "headers without end": (forever(HEADERS, b"X-A: " + b"a" * 4_000 + b"\r\n"), "network"),
    "a body without end": (forever(OPEN_END, b"\0" * 65_536), "too_large"),
    "chunks without end": (forever(CHUNKED, b"10000\r\n" + b"\0" * 65_536 + b"\r\n"), "too_large"),
    "a length of a terabyte": (answer(b"\xff\xd8", length=1 << 40), "too_large"),
    "packed blanks without end": (answer(bomb(600 << 20), "Content-Encoding: gzip"), "too_large"),
    "packed twice": (answer(packed(packed(b" " * (64 << 20))), "Content-Encoding: gzip, gzip"), "too_large"),
    "packed, and broken": (answer(b"\x1f\x8b\x08 not gzip at all", "Content-Encoding: gzip"), "truncated"),
    "packed, and cut off": (answer(packed(PICTURE)[:-300], "Content-Encoding: gzip"), "truncated"),
    "text instead of a picture": (answer(b"no picture today", kind="text/plain"), "not_an_image"),
}


def ask(port: int, etiquette: Etiquette = LIMITS, times: int = 1) -> list[bytes | Exception]:
    async def asking() -> list[bytes | Exception]:
        client = ServiceClient("maps", f"http://127.0.0.1:{port}", etiquette, rng=random.Random(1))
        answers: list[bytes | Exception] = []
        async with client.session():
            for _ in range(times):
                try:
                    answers.append((await client.get("/picture", {}, expect="image", check=check_picture)).body)
                except Exception as error:  # noqa: BLE001 - whatever comes is looked at
                    answers.append(error)
        return answers

    return asyncio.run(asking())


def serving(send: Send, then: Send | None = None) -> Callable[[socket.socket, list[str]], None]:
    """Reads one request a connection, does the trick, and hangs up; from the second connection on `then`."""

    def handle(connection: socket.socket, seen: list[str]) -> None:
        request = b""
        while b"\r\n\r\n" not in request and (piece := connection.recv(65_536)):
            request += piece
        seen.append(request.split(b"\r\n")[0].decode())
        (send if then is None or len(seen) == 1 else then)(connection)

    return handle


@pytest.mark.parametrize("trick", TRICKS)
def test_every_trick_ends_as_its_own_class_in_time_and_the_next_request_is_answered(trick: str):
    send, kind = TRICKS[trick]
    with serve(serving(send, then=answer(PICTURE))) as server:
        started = time.monotonic()
        first, second = ask(server.port, times=2)
        took_s = time.monotonic() - started
    assert isinstance(first, RequestFailedError), first
    assert first.kind == kind, first
    assert first.retryable == (kind not in ("too_large", "not_an_image"))
    assert took_s < DEADLINE_S + 2
    assert second == PICTURE


@pytest.mark.parametrize("packing", ["gzip", "gzip, gzip"])
def test_a_bomb_is_not_unpacked_into_memory(packing: str):
    total = 600 << 20
    content = bomb(total) if packing == "gzip" else packed(bomb(total))
    with serve(serving(answer(content, f"Content-Encoding: {packing}"))) as server:
        tracemalloc.start()
        (error,) = ask(server.port, Etiquette(deadline_s=20, max_bytes=1 << 20, attempts=1))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(error, RequestFailedError)
    assert error.kind == "too_large"
    assert peak < 16 << 20


def test_a_page_for_people_ends_everything_whatever_it_calls_itself():
    with serve(serving(answer(b"<!DOCTYPE html><html>sorry</html>"))) as server:
        answers = ask(server.port, times=3)
        assert len(server.seen) == 1
    assert all(isinstance(error, ServiceBlockedError) for error in answers)


@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent"]
)
@pytest.mark.parametrize("where", ["itself", "loopback", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd"])
def test_nobody_is_sent_elsewhere(status: str, where: str):
    """Neither in circles nor to an address that only this machine can reach."""
    with serve(serving(answer(PICTURE))) as inner:
        target = {"itself": "/picture", "loopback": f"http://127.0.0.1:{inner.port}/secret"}.get(where, where)
        with serve(serving(answer(b"", f"Location: {target}", status=status))) as server:
            started = time.monotonic()
            (error,) = ask(server.port)
            assert len(server.seen) == 1
        assert inner.seen == []
    assert isinstance(error, ServiceBlockedError)
    assert "answered 30" in str(error)
    assert "a redirect where a picture was expected" in str(error)
    assert time.monotonic() - started < DEADLINE_S


def test_a_drip_holds_a_place_no_longer_than_the_deadline_and_attempts_do_not_add_up_without_end():
    etiquette = Etiquette(requests_per_second=500, deadline_s=0.5, attempts=3, concurrency=1)
    with serve(serving(forever(OPEN_END, b"\0", 0.02))) as server:
        started = time.monotonic()
        (error,) = ask(server.port, etiquette)
        took_s = time.monotonic() - started
        assert len(server.seen) == 3
    assert isinstance(error, RequestFailedError)
    assert error.kind == "timeout"
    assert took_s < 3 * 0.5 + 1 + 2 + 2  # three deadlines, two backoffs of at most one and two seconds, and a slow machine
