"""Telling somebody that a run failed: one POST of a small JSON document to an address that only the environment knows.

The document names what failed and where to look, and carries no message: messages hold paths and what services said. It is
sent by urllib, because httpx2 logs every address that it asks, and this one may hold a secret.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from typing import Any

from geoloc_dagster import __version__


@dataclass(frozen=True, slots=True)
class Alert:
    """What is said of a failed run.

    Attributes:
        region: of the run.
        job: its name in Dagster.
        asset: that failed; None where the run failed before any.
        partition: of the run, where it had one.
        error_class: name of the exception.
        code: e.g. GEO-308, of an error with a known cause.
        failure_class: e.g. network, likewise.
        run_id: in Dagster.
        url: of the run in the UI.
        failed_at: ISO 8601, UTC.
    """

    region: str
    job: str
    asset: str | None
    partition: str | None
    error_class: str
    code: str | None
    failure_class: str | None
    run_id: str
    url: str
    failed_at: str

    def to_json(self) -> bytes:
        """The document; `text` is what chat services show."""
        where = f" [{self.partition}]" if self.partition else ""
        code = f"{self.code} " if self.code else ""
        text = f"{self.region}: {self.asset or self.job}{where} failed: {code}{self.error_class}, {self.url}"
        return json.dumps({"text": text, "kind": "run_failure", **asdict(self)}, sort_keys=True).encode()


def post_alert(address: str, alert: Alert, *, timeout_s: float) -> str | None:
    """Send an alert once, within a total deadline; redirects are not followed.

    Returns:
        None where it was taken (HTTP 2xx), else why not; the address, which may hold a secret, is never part of it.
    """
    if not address.startswith(("http://", "https://")):
        return "the address of the webhook begins with neither http:// nor https://"
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(_post(address, alert.to_json(), timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s)  # a socket's own timeout starts again with every byte
    return said[0] if said else f"the webhook did not answer within {timeout_s:g} s"


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Nothing is sent on to where a webhook points."""


def _post(address: str, content: bytes, timeout_s: float) -> str | None:
    headers = {"Content-Type": "application/json", "User-Agent": f"geoloc_dagster/{__version__}"}
    try:
        request = urllib.request.Request(address, data=content, headers=headers, method="POST")
        with urllib.request.build_opener(_Stay).open(request, timeout=timeout_s) as answer:
            return None if 200 <= answer.status < 300 else f"the webhook answered HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        return f"the webhook answered HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:  # a broken address or network, or no HTTP at all
        reason = getattr(error, "reason", error)
        return f"the webhook cannot be reached ({type(reason).__name__})"
