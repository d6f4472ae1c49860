"""The ids of photos: what collections publish, made safe for file names and queries."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SUFFIX = re.compile(r"\.(jpe?g|png|webp|gif|tiff?)$", re.IGNORECASE)


def safe_id(published: str) -> str | None:
    """`22/6a/12345.jpg` as `22_6a_12345`, `…_78841376@N00.jpg` as `…_78841376-N00`; None for what is still no safe name."""
    text = _SUFFIX.sub("", published.strip()).replace("/", "_").replace("@", "-")
    return text if _ID.fullmatch(text) else None


def id_of_url(url: str) -> str:
    """The id of a photo of which only the URL is known."""
    return "u" + hashlib.blake2b(url.encode(), digest_size=12).hexdigest()


def id_of_name(name: str) -> str:
    """The id of a photo in a file: of its name alone, so the same wherever the folder lies; another name is another photo."""
    published = safe_id(name)
    if published is not None:
        return published
    spelt = unicodedata.normalize("NFC", name)  # some systems take ö apart
    return "f" + hashlib.blake2b(spelt.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
