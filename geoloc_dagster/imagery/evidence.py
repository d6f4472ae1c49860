"""What is kept of a page that ended a run: what it looked like, and what it was."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geoloc_dagster.storage import write_bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """A folder of kept pages.

    Attributes:
        folder: of all services.
        service: whose pages.
        today: the day that is part of the names.
    """

    folder: Path
    service: str
    today: Callable[[], dt.date]

    def keep(self, screenshot: bytes, page: bytes) -> str:
        """Keep a screenshot (PNG) and a page (HTML) under the first digits of the page's sha256; returns where the page is."""
        stem = f"{self.service}-{self.today():%Y%m%d}-{hashlib.sha256(page).hexdigest()[:12]}"
        write_bytes(self.folder / f"{stem}.png", screenshot)
        return str(write_bytes(self.folder / f"{stem}.html", page))
