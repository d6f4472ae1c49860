"""What an answer over HTTP says of itself: a page for people, a wish not to be used for training, a picture that is gone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from geoloc_dagster.imagery.provider import RequestFailedError

LOOKED_AT_BYTES = 64 << 10
"""Of a body, where words are looked for and evidence is kept."""
REDIRECTS = (301, 302, 303, 307, 308)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<script")
_WORDS = (b"captcha", b"unusual traffic")


def judge_picture(status: int, path: str) -> None:
    """What a host without keys says of one picture, by a status of 300 to 499; a redirect passes."""
    if status in (404, 410):
        raise RequestFailedError("gone", f"{status} ({path})", retryable=False)
    if status in (401, 402, 403, 451):
        raise RequestFailedError("disallowed", f"the host does not show it: {status} ({path})", retryable=False)
    if status not in REDIRECTS:
        raise RequestFailedError("invalid_request", f"{status} ({path})", retryable=False)


def opted_out(headers: Mapping[str, str]) -> bool:
    """Whether an answer asks not to be used for training: `X-Robots-Tag: noai`, or a reservation under the TDM protocol."""
    words = {word.strip().lower() for word in re.split(r"[,:]", headers.get("x-robots-tag", ""))}
    return bool(words & {"noai", "noimageai"}) or headers.get("tdm-reservation", "").strip() == "1"


def asks_for_proof(body: bytes) -> bool:
    """Whether a page wants to know if a person is asking."""
    return any(word in body[:LOOKED_AT_BYTES].lower() for word in _WORDS)


def is_page(body: bytes, content_type: str) -> bool:
    """Whether a body is a page for people, by its type or by its beginning."""
    start = body[:1024].lstrip().lower()
    if content_type.split(";")[0].strip().lower() == "text/html" or start.startswith(_HTML):
        return True
    return content_type.startswith("text/") and asks_for_proof(body)
