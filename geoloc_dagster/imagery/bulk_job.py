"""What the process that hands out photos and those that fetch them say to each other: one JSON object a line, over pipes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from geoloc_dagster.imagery.addresses import Addresses
from geoloc_dagster.imagery.buckets import HostBuckets
from geoloc_dagster.imagery.client import Etiquette, user_agent
from geoloc_dagster.imagery.egress import Egress
from geoloc_dagster.imagery.hosts import PictureHosts, quick
from geoloc_dagster.imagery.ingest import Ingest, Side
from geoloc_dagster.imagery.ledger import Ledger
from geoloc_dagster.imagery.photo_files import PhotoFiles
from geoloc_dagster.imagery.photo_list import PhotoList, PhotosOf
from geoloc_dagster.imagery.photo_table import Photo
from geoloc_dagster.imagery.provider import Terms
from geoloc_dagster.imagery.purse import IMAGE_CHARGE, Budget, Purse

_PAID_AT_ONCE = 64
_PHOTO_FIELDS = tuple(field.name for field in fields(Photo))


class BudgetJob(BaseModel):
    """One budget of a day."""

    what: str
    limit: int
    per_charge: dict[str, int]
    said: str


class Job(BaseModel):
    """Everything that a process needs to fetch photos; plain values, as it goes through a pipe.

    Attributes:
        sink: rows of a captures table, or files of a folder.
        target: of these.
        today: the day of the budgets when the run began, UTC, and `began_at` the real one then: tests have their own calendar.
        rate: requests a second to one host, of all processes together.
        concurrency: in flight to one host at once, of each process.
        connections: to all hosts at once, of each process.
        files: folders and tar files of the region's own photos.
    """

    model_config = ConfigDict(frozen=True)

    sink: Literal["table", "folder"]
    target: Path
    batch: str = ""
    run_id: str = ""
    now: dt.datetime
    began_at: dt.datetime
    licence: str = "NOASSERTION"
    attribution: str = "unknown"
    permission: str | None = None
    rate: float = 10.0
    concurrency: int = 8
    connections: int = 64
    deadline_s: float = 15.0
    max_bytes: int = 20 << 20
    attempts: int = 5
    ledger: Path | None = None
    budgets: tuple[BudgetJob, ...] = ()
    buckets: Path
    evidence: Path | None = None
    proxy: str | None = None
    credentials: tuple[str, str] | None = None
    min_side_px: int = 0
    resize: Side | None = None
    size_px: int = 0
    encoding: Literal["jpeg", "webp", "png"] | None = None
    quality: int = 95
    fov_deg: float = 90.0
    size_suffix: str = ""
    files: tuple[Path, ...] = ()
    commit_rows: int = 256
    blur: tuple[Path, Literal["relative", "pixels"]] | None = None

    @property
    def terms(self) -> Terms:
        """Of photos that do not say their own."""
        return Terms(
            self.licence,
            self.attribution,
            may_store=self.licence.lower() != "proprietary",
            may_train=self.licence.lower() != "proprietary",
            permission=self.permission,
        )

    @property
    def ingest(self) -> Ingest:
        """How pictures are kept."""
        return Ingest(self.min_side_px, self.resize, self.size_px, self.encoding, self.quality)

    def today(self) -> dt.date:
        """The day of the budgets now."""
        return (self.now + (dt.datetime.now(dt.UTC) - self.began_at)).date()

    def provider(self, photos_of: PhotosOf = lambda ids: {}) -> PhotoList:
        """The provider that fetches, with everything that the etiquette wants."""
        purse = None
        if self.ledger is not None:
            budgets = [Budget(one.what, one.limit, one.per_charge, one.said) for one in self.budgets]
            purse = Purse(Ledger(self.ledger), "photo_list", budgets, self.today, _PAID_AT_ONCE)
        etiquette = Etiquette(
            concurrency=self.concurrency, deadline_s=self.deadline_s, max_bytes=self.max_bytes, attempts=self.attempts
        )
        addresses = Addresses()
        hosts = PictureHosts(
            "photo_list",
            quick(etiquette, self.rate),
            self._channel(addresses),
            addresses,
            buckets=HostBuckets(self.buckets),
            purse=purse,
            charge=IMAGE_CHARGE,
            evidence=self.evidence,
        )
        return PhotoList(
            photos_of,
            self.terms,
            hosts,
            self.ingest,
            fov_deg=self.fov_deg,
            size_suffix=self.size_suffix,
            files=lambda: PhotoFiles(self.files),
            max_bytes=self.max_bytes,
        )

    def _channel(self, addresses: Addresses) -> Any:
        """aiohttp, but for the proxies that it does not know."""
        from geoloc_dagster.imagery.bulk_channel import BulkChannel
        from geoloc_dagster.imagery.channel import HttpxChannel

        if self.proxy is not None and not self.proxy.startswith("http://"):
            egress = Egress.parse(self.proxy)
            return HttpxChannel(user_agent(), Egress(egress.scheme, egress.host, egress.port, self.credentials).proxy())
        return BulkChannel(
            user_agent(),
            concurrency=self.connections,
            may_connect=addresses.may_connect,
            proxy=self.proxy,
            credentials=self.credentials,
        )


def photo_to_json(photo: Photo) -> dict[str, Any]:
    """A photo, without what is not known."""
    said: dict[str, Any] = {name: value for name in _PHOTO_FIELDS if (value := getattr(photo, name)) is not None}
    if photo.captured_on is not None:
        said["captured_on"] = photo.captured_on.isoformat()
    return said


def photo_from_json(said: Mapping[str, Any]) -> Photo:
    """The other way."""
    values = dict(said)
    if "captured_on" in values:
        values["captured_on"] = dt.date.fromisoformat(values["captured_on"])
    return Photo(**values)
