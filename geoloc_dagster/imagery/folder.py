"""The `folder` provider: an existing collection of pictures in the Stockholm naming, in folders or tar files.

Names are `{location}_{rotation 0-3}_{n}_{Month YYYY}_{scraped at}.jpg`: the n-th date that the time machine offered for one
of four views a quarter turn apart; the heading of the first is unknown. The name of the folder or archive, without its
suffix, is the `source` of its rows. Where one view was scraped twice, both pictures are kept as captures of their own.

A source may also be a published sample of a country: `{cell}+{lat},{lng}/{heading}_{YYYY-MM}.jpg`, with absolute headings.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from geoloc_dagster.errors import CollectionSourceError
from geoloc_dagster.imagery.archive import Fingerprint, Listing, Member, is_current, list_source, read_member
from geoloc_dagster.imagery.provider import Capture, Failure, Location, Negative, Panorama, Terms, View
from geoloc_dagster.imagery.sampled_folder import SampledName, is_sampled, named_members

_log = logging.getLogger(__name__)
_NAME = re.compile(
    r"(?P<location>[A-Za-z0-9_-]{1,64})_(?P<rotation>[0-3])_(?P<n>[0-9]{1,4})_(?P<month>[A-Z][a-z]{2,8}) (?P<year>[0-9]{4})"
    r"_(?P<scraped_at>[^_/]{1,40})\.(?:jpg|jpeg|png|webp)",
    re.IGNORECASE,
)
_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)


@dataclass(frozen=True, slots=True)
class PictureName:
    """What the name of a picture says."""

    location_id: str
    rotation: int
    n: int
    captured_on: dt.date
    scraped_at: str

    @classmethod
    def parse(cls, name: str) -> PictureName | None:
        """Read `774_2_2_July 2017_2024-01-03 20:40:28.529560.jpg`; None for any other pattern.

        The date is the first of its month: the collection knows no days.
        """
        match = _NAME.fullmatch(name)
        if match is None or match["month"].lower() not in _MONTHS or int(match["year"]) < 1900:
            return None
        captured_on = dt.date(int(match["year"]), _MONTHS.index(match["month"].lower()) + 1, 1)
        return cls(match["location"], int(match["rotation"]), int(match["n"]), captured_on, match["scraped_at"])


@dataclass(frozen=True, slots=True)
class _Group:
    """The pictures of one location, date, number and scrape: one panorama, by rotation, or by heading of a sample."""

    source: str
    captured_on: dt.date
    variant: str
    by_rotation: dict[int, Member] = field(default_factory=dict[int, Member])
    by_heading: dict[float, Member] = field(default_factory=dict[float, Member])

    def member(self, view: View) -> Member | None:
        """The picture of a view."""
        if view.heading_deg is not None:
            return self.by_heading.get(view.heading_deg)
        return self.by_rotation.get(-1 if view.rotation is None else view.rotation)


@dataclass(frozen=True, slots=True)
class _Index:
    fingerprint: Fingerprint
    groups: dict[str, list[_Group]]  # by location id


class FolderProvider:
    """Pictures of an existing collection; reads nothing but the files that it was given.

    Args:
        sources: folders and uncompressed tar files.
        terms: under which terms the collection may be kept.
        fov_deg: horizontal field of view of the pictures, degrees; the collection does not say.
        max_bytes: a larger picture is not read but reported as a failure.
    """

    def __init__(self, sources: Sequence[Path], terms: Terms, *, fov_deg: float = 90.0, max_bytes: int = 64 << 20) -> None:
        names = [_source_name(path) for path in sources]
        if not sources:
            raise CollectionSourceError("no folder or archive of pictures is named")
        if len(set(names)) < len(names):
            raise CollectionSourceError(f"two sources have the same name: {sorted(names)}", "Rename one of them.")
        self._sources = dict(zip(names, sources, strict=True))
        self._terms = terms
        self._fov_deg = fov_deg
        self._max_bytes = max_bytes
        self._indexes: dict[str, _Index] = {}

    @property
    def name(self) -> str:
        """`folder`."""
        return "folder"

    @property
    def terms(self) -> Terms:
        """The terms that the collection was given with."""
        return self._terms

    def location_ids(self) -> set[str]:
        """Every location that the sources hold pictures of."""
        return {location_id for index in self._current_indexes() for location_id in index.groups}

    def session(self) -> AbstractAsyncContextManager[None]:
        """Nothing has to be opened: every read opens its own file."""
        return nullcontext()

    async def find(self, locations: Sequence[Location]) -> AsyncIterator[Panorama | Negative]:
        """The newest panorama of each location; `Negative` where the sources hold no picture of it.

        Raises:
            CollectionSourceError: a source is missing, cannot be read or is not laid out as expected.
            UnsafeArchiveError: an archive has members that point outside it, links or devices.
            UnsafeFileError: a source is a pickle.
        """
        indexes = self._current_indexes()
        for location in locations:
            panoramas = self._panoramas(indexes, location)
            yield panoramas[0] if panoramas else Negative(location, "no pictures in the collection")

    async def history(self, panorama: Panorama) -> list[Panorama]:
        """Every panorama of that location, newest first, then by source and number."""
        return self._panoramas(self._current_indexes(), panorama.location)

    async def capture(self, panorama: Panorama, views: Sequence[View]) -> AsyncIterator[Capture | Failure]:
        """The bytes of each view, or the failure that explains why there are none; other views go on."""
        group = self._group(panorama)
        for view in views:
            member = group.member(view)
            if member is None:
                yield Failure("unreadable", f"{panorama.source} has no such view", panorama, view, retryable=True)
            else:
                yield self._read(panorama, view, member)

    def _read(self, panorama: Panorama, view: View, member: Member) -> Capture | Failure:
        try:
            content = read_member(member, self._max_bytes)
        except OSError as error:
            return Failure("unreadable", f"{member.name}: {error.strerror or error}", panorama, view, retryable=True)
        if len(content) > self._max_bytes:
            return Failure("too_large", f"{member.name} has more than {self._max_bytes} bytes", panorama, view)
        return Capture(panorama, view, content, source_url=f"{panorama.source}/{member.name}")

    def _current_indexes(self) -> list[_Index]:
        for source, path in self._sources.items():
            known = self._indexes.get(source)
            if known is None or not is_current(known.fingerprint):
                self._indexes[source] = _index(source, path, list_source(path))
        return [self._indexes[source] for source in self._sources]

    def _panoramas(self, indexes: Iterable[_Index], location: Location) -> list[Panorama]:
        groups = [group for index in indexes for group in index.groups.get(location.location_id, [])]
        groups.sort(key=lambda group: group.captured_on, reverse=True)  # stable: by source and number within a date
        return [self._panorama(location, group) for group in groups]

    def _panorama(self, location: Location, group: _Group) -> Panorama:
        return Panorama(
            location=location,
            source=group.source,
            captured_on=group.captured_on,
            precision="month",
            variant=group.variant,
            pano_id=location.pano_id if group.captured_on == location.captured_on else None,
            views=(
                *(View(None, rotation, 0.0, self._fov_deg) for rotation in sorted(group.by_rotation)),
                *(View(heading_deg, None, 0.0, self._fov_deg) for heading_deg in sorted(group.by_heading)),
            ),
        )

    def _group(self, panorama: Panorama) -> _Group:
        wanted = (panorama.captured_on, panorama.variant)
        index = self._indexes.get(panorama.source)
        for group in [] if index is None else index.groups.get(panorama.location.location_id, []):
            if (group.captured_on, group.variant) == wanted:
                return group
        raise CollectionSourceError(
            f"{panorama.source} no longer holds {panorama.location.location_id} of {panorama.captured_on}",
            "Leave the collection unchanged while it is read, and run again.",
        )


def _source_name(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _index(source: str, path: Path, listing: Listing) -> _Index:
    if is_sampled(listing):
        return _Index(listing.fingerprint, _group_samples(named_members(path, listing), source))
    named = [(PictureName.parse(PurePosixPath(member.name).name), member) for member in listing.members]
    odd = [member.name for name, member in named if name is None]
    expected = "expected names like '774_2_2_July 2017_2024-01-03 20:40:28.529560.jpg'"
    if not named:
        raise CollectionSourceError(f"{path} holds {listing.other_files} files but no picture; {expected}")
    if odd:
        first = ", ".join(map(repr, odd[:3]))
        raise CollectionSourceError(f"{path}: {len(odd)} of {len(named)} pictures are named otherwise ({first}); {expected}")
    if listing.other_files:
        _log.info("%s: %d files that are no pictures were left alone", path, listing.other_files)
    return _Index(listing.fingerprint, _group_members([(name, member) for name, member in named if name is not None], source))


def _group_members(named: Iterable[tuple[PictureName, Member]], source: str) -> dict[str, list[_Group]]:
    """Group by location, number and date; the k-th scrape of one view (by time) goes to the group `n#k`."""
    repeats: defaultdict[tuple[str, int, dt.date, int], int] = defaultdict(int)
    groups: defaultdict[str, dict[tuple[dt.date, str], _Group]] = defaultdict(dict)
    order = sorted(named, key=lambda item: (item[0].location_id, item[0].n, item[0].scraped_at, item[1].name))
    for name, member in order:
        view = (name.location_id, name.n, name.captured_on, name.rotation)
        repeats[view] += 1
        variant = str(name.n) if repeats[view] == 1 else f"{name.n}#{repeats[view]}"
        key = (name.captured_on, variant)
        group = groups[name.location_id].setdefault(key, _Group(source, name.captured_on, variant))
        group.by_rotation[name.rotation] = member
    return {location_id: list(by_key.values()) for location_id, by_key in groups.items()}


def _group_samples(named: Iterable[tuple[SampledName, Member]], source: str) -> dict[str, list[_Group]]:
    """Group by location and month."""
    groups: defaultdict[str, dict[dt.date, _Group]] = defaultdict(dict)
    for name, member in named:
        group = groups[name.location_id].setdefault(name.captured_on, _Group(source, name.captured_on, "0"))
        group.by_heading[name.heading_deg] = member
    return {location_id: list(by_month.values()) for location_id, by_month in groups.items()}
