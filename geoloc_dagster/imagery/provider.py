"""What a provider of street-level imagery is: the one protocol that every source of pictures implements.

`find` says which panoramas there are at locations (or that there are none), `history` gives the other dates of one, and
`capture` gives the pictures of chosen views. Providers know nothing of tables, batches or resuming; `collect` does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from geoloc_dagster.errors import ConfigError, PermissionMissingError

Precision = Literal["day", "month", "unknown"]
FailureKind = Literal[
    "undecodable",
    "unreadable",
    "no_imagery",
    "gone",
    "quality",
    "too_small",
    "opted_out",
    "disallowed",
    "invalid_request",
    "too_large",
    "not_an_image",
    "truncated",
    "rate_limited",
    "server_error",
    "timeout",
    "network",
    "invalid_answer",
    "stale_frame",
    "swallowed_click",
    "tab_crash",
    "wrong_panorama",
    "black_frame",
]


FailureClass = Literal["no coverage", "gone", "quota", "refused", "network", "quality"]
_CLASSES: dict[FailureKind, FailureClass] = {
    "no_imagery": "no coverage",
    "gone": "gone",
    "rate_limited": "quota",
    "opted_out": "refused",
    "disallowed": "refused",
    "invalid_request": "refused",
    "server_error": "network",
    "timeout": "network",
    "network": "network",
    "truncated": "network",
    "invalid_answer": "network",
    "stale_frame": "network",
    "swallowed_click": "network",
    "tab_crash": "network",
    "wrong_panorama": "network",
    "black_frame": "quality",
    "too_large": "quality",
    "too_small": "quality",
    "not_an_image": "quality",
    "undecodable": "quality",
    "unreadable": "quality",
    "quality": "quality",
}


def failure_classes(by_kind: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Counts of failures by kind, sorted into the six classes that say what to do about them.

    `no coverage` and `gone` are answers; `quota` passes by itself; `refused` wants a person; `network` is asked for again;
    `quality` is about the pictures.
    """
    classes: dict[str, dict[str, int]] = {}
    for kind, count in by_kind.items():
        classes.setdefault(_CLASSES.get(kind, "network"), {})[kind] = count  # type: ignore[call-overload]
    return classes


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms pictures may be kept; repeated in every row.

    Attributes:
        licence: SPDX id, `proprietary` or `NOASSERTION`.
        attribution: whom to name beside every picture.
        may_store: whether the terms allow keeping the pictures.
        may_train: whether the terms allow training a model on them.
        permission: reference of the right to do what the terms alone do not allow.
    """

    licence: str
    attribution: str
    may_store: bool = True
    may_train: bool = True
    permission: str | None = None

    def __post_init__(self) -> None:
        if not self.licence.strip() or not self.attribution.strip():
            raise ConfigError("a collection needs a licence and an attribution; no row is stored without them")

    def require(self, provider: str) -> None:
        """Raise `PermissionMissingError` where storing or training is forbidden and no permission is on record."""
        forbidden = [what for what, allowed in (("storing", self.may_store), ("training", self.may_train)) if not allowed]
        if forbidden and not (self.permission or "").strip():
            raise PermissionMissingError(f"the terms of `{provider}` do not allow {' and '.join(forbidden)}")


@dataclass(frozen=True, slots=True)
class Location:
    """A registered place on the map, degrees WGS84.

    `pano_id` is the panorama that its lookup found, and `captured_on` the date of that panorama; pictures of other dates
    are of other panoramas and do not get its id.
    """

    location_id: str
    lat_deg: float
    lng_deg: float
    pano_id: str | None = None
    captured_on: dt.date | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera looks: an absolute heading, or one of four rotations (0-3) from an unknown start heading."""

    heading_deg: float | None
    rotation: int | None
    pitch_deg: float
    fov_deg: float

    def __post_init__(self) -> None:
        if (self.heading_deg is None) == (self.rotation is None):
            raise ValueError("a view has either a heading or a rotation")


@dataclass(frozen=True, slots=True)
class Panorama:
    """What can be seen from one location on one date.

    Attributes:
        source: the folder or archive that holds it; the provider's name for live ones.
        variant: tells panoramas of one location and date apart (image size, number within the collection).
        views: the views that exist; empty where any view can be asked for.
        lat_deg: where the camera stood, if that is known more exactly than by the location; None otherwise.
        lng_deg: likewise.
    """

    location: Location
    source: str
    captured_on: dt.date | None
    precision: Precision
    variant: str
    pano_id: str | None = None
    sequence_id: str | None = None
    views: tuple[View, ...] = ()
    lat_deg: float | None = None
    lng_deg: float | None = None


@dataclass(frozen=True, slots=True)
class Negative:
    """The provider has nothing at this location; an answer, not an error."""

    location: Location
    reason: str


@dataclass(frozen=True, slots=True)
class Capture:
    """One picture of one view: its bytes, untouched.

    Attributes:
        source_url: where it came from, without key or signature.
        creator: who took it, where the provider says so.
        licence: of this picture, where it is not the provider's (SPDX id).
        attribution: whom to name beside this picture, where it is not what the provider's terms say.
        size: (width, height) in pixels, where they are known already.
    """

    panorama: Panorama
    view: View
    image: bytes
    source_url: str | None = None
    creator: str | None = None
    licence: str | None = None
    attribution: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One view that gave no picture.

    Attributes:
        retryable: it is asked for again by the next run instead of becoming a row.
        asked: whether anybody was asked; a failure without says nothing of the picture.
    """

    kind: FailureKind
    detail: str
    panorama: Panorama
    view: View
    retryable: bool = False
    asked: bool = True


class CollectionStopped(Exception):
    """Nothing more may be asked now: the run ends well and goes on another time.

    Attributes:
        reason: the day's budget is spent, the service's quota is, or the service wants a long pause.
        detail: what exactly, for people.
    """

    def __init__(self, reason: Literal["budget", "quota", "pause"], detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RequestFailedError(Exception):
    """One request that gave nothing after all its attempts; others may still succeed.

    Attributes:
        kind: the class of the failure.
        detail: what exactly, for people; without keys.
        retryable: whether asking another time may succeed.
        asked: whether this time anybody was asked.
    """

    def __init__(self, kind: FailureKind, detail: str, *, retryable: bool, asked: bool = True) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind: FailureKind = kind
        self.detail = detail
        self.retryable = retryable
        self.asked = asked


class Provider(Protocol):
    """A source of street-level imagery."""

    @property
    def name(self) -> str:
        """The word for it in tables and configuration."""
        ...

    @property
    def terms(self) -> Terms:
        """Under which terms its pictures may be kept."""
        ...

    def session(self) -> AbstractAsyncContextManager[None]:
        """Whatever one run needs open, such as connections; everything below is called inside it."""
        ...

    def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative | RequestFailedError]:
        """The newest panorama of each location, or that there is none, or why asking failed; in the order of `locations`."""
        ...

    async def history(self, panorama: Panorama) -> list[Panorama]:
        """Every panorama of that place, `panorama` among them, newest first."""
        ...

    def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        """One answer per view, in the order of `views`."""
        ...
