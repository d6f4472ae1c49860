"""Licences as lists write them, as SPDX ids."""

from __future__ import annotations

import re

_CC_URL = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<kind>by[a-z-]*)/(?P<version>\d\.\d)|publicdomain/(?P<domain>zero|mark))"
)
_CC_TEXT = re.compile(r"(?:cc|creative commons)[ -]*(?P<kind>by(?:[ -](?:nc|nd|sa))*)[ -]*(?P<version>\d\.\d)", re.IGNORECASE)
_RESERVED = ("proprietary", "all rights reserved", "arr", "©", "copyright")


def spdx_of(text: str) -> str:
    """`CC-BY-NC-2.0` for its address or its name; `proprietary` for reserved rights; anything else as it is, cut to 100."""
    text = text.strip()
    found = _CC_URL.search(text.lower())
    if found is not None:
        if found["domain"]:
            return "CC0-1.0" if found["domain"] == "zero" else "CC-PDM-1.0"
        return f"CC-{found['kind'].upper()}-{found['version']}"
    named = _CC_TEXT.fullmatch(text)
    if named is not None:
        kind = re.sub(r"[ -]+", "-", named["kind"]).upper()
        return f"CC-{kind}-{named['version']}"
    return "proprietary" if text.lower().startswith(_RESERVED) else text[:100]


def is_reserved(licence: str) -> bool:
    """Whether it allows nobody to keep the picture."""
    return licence == "proprietary"
