"""What each fault does to an answer, and how answers, good and bad, go out on the wire."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate

from starlette.types import Receive, Send

from geoloc_dagster.emulator.answers import Answer, grey_jpeg, jpeg_answer, status_answer, text_answer
from geoloc_dagster.emulator.faults import PAGE_MISHAPS, PICTURES, Endpoint, FaultRule

_CHUNK = 64 << 10
_NO_MISHAP = b'"mishap":""'
_PLAIN_PAGE = "<!doctype html><html><head><title>Service notice</title></head><body><p>Please come back later.</p></body></html>"
_CAPTCHA_PAGE = """<!doctype html><html><head><title>Sorry</title></head><body>
<h1>Unusual traffic</h1><p>This network sends unusual traffic. Show that you are not a robot.</p>
<form action="/sorry/index" method="post"><div class="g-recaptcha" id="captcha"></div></form></body></html>"""


def instead(rule: FaultRule, endpoint: Endpoint) -> Answer | None:
    """The answer of a fault that needs none of the service's; None for the faults that spoil a good one."""
    answer = _instead(rule, endpoint)
    return None if answer is None else replace(answer, outcome=rule.fault)


def _instead(rule: FaultRule, endpoint: Endpoint) -> Answer | None:
    media_type = "image/jpeg" if endpoint in PICTURES else "application/json; charset=utf-8"
    match rule.fault:
        case "refused_status_500":
            return text_answer(500, "internal error", rule.fault)
        case "refused_status_503":
            answer = text_answer(503, "service unavailable", rule.fault)
            return answer if rule.seconds is None else answer.with_retry_after(_retry_after(rule))
        case "refused_status_403" | "refused_status_410":
            return text_answer(int(rule.fault[-3:]), "the address has expired", rule.fault)
        case "retry_after":
            return text_answer(429, "too many requests", rule.fault).with_retry_after(_retry_after(rule))
        case "bot_page":
            return Answer(rule.fault, 302, "text/html; charset=utf-8", b"", (("location", "/sorry/index?continue=%2Fmaps%2F"),))
        case "html":
            page = _CAPTCHA_PAGE if rule.captcha else _PLAIN_PAGE
            return Answer(rule.fault, 200, "text/html; charset=utf-8", page.encode())
        case "empty":
            return Answer(rule.fault, 200, media_type, b"")
        case "not_json":
            return Answer(rule.fault, 200, media_type, b'{"status": "OK", "pano_id": ')
        case "huge":
            return Answer(rule.fault, 200, media_type, b"\xff\xd8\xff\xe0" if endpoint in PICTURES else b'{"status":"OK",')
        case "over_query_limit":
            return status_answer(endpoint, "OVER_QUERY_LIMIT", "the quota is spent")
        case "request_denied":
            return status_answer(endpoint, "REQUEST_DENIED", "the key is not valid")
        case "unknown_error":
            return status_answer(endpoint, "UNKNOWN_ERROR", "something went wrong; it may work another time")
        case _:
            return None


def spoil(rule: FaultRule, answer: Answer, size_px: tuple[int, int]) -> Answer:
    """What a fault makes of an answer; the same one where it cannot harm it.

    Args:
        rule: the fault.
        answer: the service's.
        size_px: of the picture that was asked for.
    """
    good_picture = answer.media_type == "image/jpeg"
    if rule.fault in PAGE_MISHAPS:  # the page finds its orders where nothing is otherwise
        told = answer.body.replace(_NO_MISHAP, b'"mishap":"%s"' % rule.fault.encode())
        return answer if told == answer.body else replace(answer, outcome=rule.fault, body=told)
    match rule.fault:
        case "truncated_jpeg":
            return replace(answer, outcome=rule.fault, body=answer.body[: len(answer.body) // 2]) if good_picture else answer
        case "grey":
            return jpeg_answer(grey_jpeg(*size_px), rule.fault)
        case "missing_date":
            content = json.loads(answer.body)
            if content.pop("date", None) is None:
                return answer
            return replace(answer, outcome=rule.fault, body=json.dumps(content, ensure_ascii=False).encode())
        case _:
            return replace(answer, outcome=rule.fault)


def _retry_after(rule: FaultRule) -> str:
    seconds = 1.0 if rule.seconds is None else rule.seconds
    return str(math.ceil(seconds)) if rule.form == "seconds" else formatdate(math.ceil(time.time() + seconds), usegmt=True)


@dataclass(frozen=True, slots=True)
class Wire:
    """One exchange: the two ends that ASGI gives, and the two ways to cut the connection under it."""

    receive: Receive
    send: Send
    close: Callable[[], None]
    reset: Callable[[], None]

    async def deliver(self, answer: Answer, rule: FaultRule | None) -> None:
        """Send an answer; returns when it is sent, or the client is gone."""
        match rule.fault if rule is not None and answer.outcome == rule.fault else None:
            case "slow":
                if not await self._gone_within(_seconds(rule, 5)):
                    await self._whole(answer)
            case "drip":
                await self._drip(answer, _seconds(rule, 0.1))
            case "huge":
                await self._huge(answer, rule)
            case "reset":
                await self._cut(answer, len(answer.body), answer.body[: len(answer.body) // 2], self.reset)
            case "wrong_length":
                await self._cut(answer, len(answer.body) + 1000, answer.body, self.close)
            case _:
                await self._whole(answer)

    async def _whole(self, answer: Answer) -> None:
        await self._start(answer, len(answer.body))
        await self.send({"type": "http.response.body", "body": answer.body})

    async def _start(self, answer: Answer, length: int | None) -> None:
        headers = [(b"content-type", answer.media_type.encode())]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        headers += [(name.encode(), value.encode()) for name, value in answer.headers]
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def _drip(self, answer: Answer, pause_s: float) -> None:
        """Byte after byte, then blanks, for as long as anyone listens."""
        await self._start(answer, None)
        position = 0
        while True:
            byte = answer.body[position : position + 1] or b" "
            await self.send({"type": "http.response.body", "body": byte, "more_body": True})
            position += 1
            if await self._gone_within(pause_s):
                return

    async def _huge(self, answer: Answer, rule: FaultRule | None) -> None:
        """A promising beginning, then blanks."""
        left = 0 if rule is None else rule.body_bytes
        await self._start(answer, left if rule is not None and rule.announced else None)
        chunk = answer.body.ljust(_CHUNK)
        while left > _CHUNK:
            await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
            left -= _CHUNK
            chunk = b" " * _CHUNK
            if await self._gone_within(0):
                return
        await self.send({"type": "http.response.body", "body": chunk[:left]})

    async def _cut(self, answer: Answer, length: int, body: bytes, cut: Callable[[], None]) -> None:
        await self._start(answer, length)
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        cut()
        await self._gone()

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _gone_within(self, seconds: float) -> bool:
        """Wait, but not for a client that has hung up; whether it has."""
        try:
            async with asyncio.timeout(seconds):
                await self._gone()
        except TimeoutError:
            return False
        return True


def _seconds(rule: FaultRule | None, default: float) -> float:
    return default if rule is None or rule.seconds is None else rule.seconds
