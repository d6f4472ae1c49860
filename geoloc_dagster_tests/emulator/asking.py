"""Asking an emulated service, kindly or byte by byte."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2

METADATA = "/maps/api/streetview/metadata"
IMAGE = "/maps/api/streetview"
HISTORY = "/maps/api/streetview/history"
# One client for all tests, as each would load certificates anew; without connections that outlive their service.
CLIENT = httpx2.Client(trust_env=False, timeout=20, limits=httpx2.Limits(max_keepalive_connections=0))
PATHS = {"metadata": METADATA, "image": IMAGE, "history": HISTORY}


def get(url: str, path: str, /, **params: object) -> httpx2.Response:
    return CLIENT.get(url + path, params={name: str(value) for name, value in params.items()})


def metadata(url: str, /, **params: object) -> dict[str, Any]:
    response = get(url, METADATA, **params)
    assert response.status_code == 200
    return response.json()


def image(url: str, /, **params: object) -> httpx2.Response:
    return get(url, IMAGE, **{"size": "64x48", "return_error_code": "true", **params})


class RawAnswer:
    """What came over the wire: everything that was read, and how it ended."""

    def __init__(self, received: bytes, end: str) -> None:
        head, _, self.body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status.split()[1]) if status else None
        self.headers = dict(line.lower().split(": ", 1) for line in lines)
        self.end = end


def raw(url: str, path: str, *, at_most: int | None = None, timeout_s: float = 10, **params: object) -> RawAnswer:
    """One request over a bare socket; `end` is `eof`, `reset`, `timeout`, or `enough` once `at_most` bytes were read."""
    parts = urlsplit(url)
    received, end = b"", "enough"
    with socket.create_connection((parts.hostname, parts.port), timeout=timeout_s) as connection:
        query = urlencode({name: str(value) for name, value in params.items()})
        request = f"GET {path}?{query} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        while at_most is None or len(received) < at_most:
            try:
                piece = connection.recv(1 << 16)
            except ConnectionResetError:
                end = "reset"
                break
            except TimeoutError:
                end = "timeout"
                break
            if not piece:
                end = "eof"
                break
            received += piece
    return RawAnswer(received, end)


def outcomes(report: dict[str, Any]) -> list[str]:
    return [hit["outcome"] for hit in report["requests"]]


def as_json(body: bytes) -> dict[str, Any]:
    return json.loads(body)
