"""Errors as the API says them: RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

from geoloc_dagster.errors import GeolocError, ImageError, IntegrityError, NoReleaseError

PROBLEM = "application/problem+json"


class Problem(Exception):
    """A request that cannot be answered.

    Args:
        status: of HTTP.
        detail: one sentence or two: what is wrong, and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"title": HTTPStatus(self.status).phrase, "status": self.status, "detail": self.detail}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.to_json(), self.status, self.headers, PROBLEM)


def problem_of(error: GeolocError) -> Problem:
    """What an error of ours is to the one who asked."""
    if isinstance(error, ImageError):
        return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE if error.facts.get("too_large") else 422, error.cause)
    if isinstance(error, NoReleaseError):
        return Problem(503 if "no expert" not in error.cause else 422, f"{error.cause}. {error.remedy}")
    if isinstance(error, IntegrityError):
        return Problem(503, f"{error.cause}. {error.remedy}")
    return Problem(500, f"{error.cause}. {error.remedy}")
