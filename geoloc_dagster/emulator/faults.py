"""Which requests of the emulated service go wrong, and how: a script that can be repeated.

Whether a rule applies to a request is a pure function of the script's seed, the rule, what is asked for, and how often it was
asked for before; so a repeated request can succeed, and a repeated run meets the same faults.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Endpoint = Literal[
    "metadata",
    "image",
    "history",
    "class_map",
    "mapillary_tile",
    "mapillary_images",
    "mapillary_search",
    "mapillary_picture",
    "panoramax_search",
    "panoramax_picture",
    "maps_page",
    "maps_panorama",
    "maps_tile",
    "maps_thumbnail",
    "maps_click",
    "maps_consent",
    "photo",
    "photo_list",
    "robots",
]
PageMishap = Literal[
    "renamed_dom",
    "no_attributes",
    "consent_language",
    "no_street_view",
    "single_date",
    "stale_frame",
    "black_frame",
    "swallowed_click",
    "tab_crash",
]
FaultName = Literal[
    "slow",
    "drip",
    "reset",
    "wrong_length",
    "truncated_jpeg",
    "missing_date",
    "refused_status_500",
    "refused_status_503",
    "retry_after",
    "html",
    "huge",
    "empty",
    "not_json",
    "over_query_limit",
    "request_denied",
    "unknown_error",
    "grey",
    "refused_status_403",
    "refused_status_410",
    "bot_page",
    PageMishap,
]
PAGE_MISHAPS: frozenset[FaultName] = frozenset(get_args(PageMishap))
"""What the page of the maps site does to its visitor, once the server has told it to."""

PICTURES: tuple[Endpoint, ...] = ("image", "mapillary_picture", "panoramax_picture", "maps_tile", "maps_thumbnail", "photo")
_MEANT_FOR: dict[FaultName, tuple[Endpoint, ...]] = {
    "truncated_jpeg": PICTURES,
    "grey": PICTURES,
    "refused_status_403": PICTURES,
    "refused_status_410": PICTURES,
    "missing_date": ("metadata",),
    "bot_page": ("maps_page",),
    "renamed_dom": ("maps_page",),
    "no_attributes": ("maps_page",),
    "consent_language": ("maps_consent",),
    "no_street_view": ("maps_panorama",),
    "single_date": ("maps_panorama",),
    "stale_frame": ("maps_panorama",),
    "black_frame": ("maps_panorama",),
    "swallowed_click": ("maps_click",),
    "tab_crash": ("maps_panorama",),
}
_ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)


class FaultRule(BaseModel):
    """One way to fail, and which requests it befalls; a request suffers the first rule that applies to it.

    Attributes:
        fault: its name.
        endpoint: the requests that count; every endpoint that the fault makes sense for where absent.
        what: only requests whose name in the log of hits matches this pattern with `*` and `?`.
        probability: of applying to one request.
        first: number of requests of the endpoint to let pass before the rule begins.
        count: number of requests of the endpoint, from `first` on, after which it ends; never where absent.
        attempts: only the first so many requests for the same thing are met; all of them where absent.
        seconds: how long `slow` waits (5), a `drip` pauses between bytes (0.1), and what `retry_after` asks for (1). A
            `refused_status_503` has a Retry-After header only where this is given.
        form: whether `retry_after` says seconds or a date.
        captcha: whether the page of `html` talks of unusual traffic and shows a captcha.
        body_bytes: the length of `huge`.
        announced: whether `huge` says its length in advance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: FaultName
    endpoint: Endpoint | None = None
    what: str | None = None
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    first: Annotated[int, Field(ge=0)] = 0
    count: Annotated[int, Field(ge=0)] | None = None
    attempts: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    form: Literal["seconds", "date"] = "seconds"
    captcha: bool = True
    body_bytes: Annotated[int, Field(ge=0)] = 200_000_000
    announced: bool = False

    @model_validator(mode="after")
    def _endpoint_fits(self) -> Self:
        if self.endpoint is not None and self.endpoint not in self.endpoints:
            raise ValueError(f"`{self.fault}` only happens to {', '.join(_MEANT_FOR[self.fault])} requests")
        return self

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where this fault can happen."""
        possible = _MEANT_FOR.get(self.fault, _ENDPOINTS)
        return (self.endpoint,) if self.endpoint in possible else possible


class FaultScript(BaseModel):
    """Rules in order of precedence, and the seed of their dice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    rules: tuple[FaultRule, ...] = ()


class FaultSchedule:
    """Runs a script: counts requests and says which fault each of them meets."""

    def __init__(self, script: FaultScript) -> None:
        self.script = script
        self._by_endpoint: Counter[Endpoint] = Counter()
        self._by_what: Counter[tuple[Endpoint, str]] = Counter()

    def next(self, endpoint: Endpoint, what: str) -> FaultRule | None:
        """The fault of the request that has just come in, if any; call it once per request."""
        if not self.script.rules:
            return None
        earlier = self._by_what[endpoint, what]
        rules = enumerate(self.script.rules)
        hit = next((rule for index, rule in rules if self._applies(index, rule, endpoint, what, earlier)), None)
        self._by_endpoint[endpoint] += 1
        self._by_what[endpoint, what] += 1
        return hit

    def _applies(self, index: int, rule: FaultRule, endpoint: Endpoint, what: str, earlier: int) -> bool:
        if endpoint not in rule.endpoints:
            return False
        if rule.what is not None and not fnmatchcase(what, rule.what):
            return False
        if rule.attempts is not None and earlier >= rule.attempts:
            return False
        running = sum(self._by_endpoint[name] for name in rule.endpoints) - rule.first
        if running < 0 or (rule.count is not None and running >= rule.count):
            return False
        return _draw(f"{self.script.seed}|{index}|{endpoint}|{what}|{earlier}") < rule.probability


def _draw(what: str) -> float:
    """A number in [0, 1) that depends on nothing but its argument."""
    return int.from_bytes(hashlib.blake2b(what.encode(), digest_size=8).digest(), "big") / 2**64
