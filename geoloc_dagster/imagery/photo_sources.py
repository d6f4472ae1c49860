"""Photos of lists, of folders and of tar files, as one table.

A photo of a folder is where a list says, if a list without URLs names it by its file, and else where its EXIF says. Files that a
list names are not opened, and files that are in no list and have no position are named as problems.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from geoloc_dagster.imagery.exif import NoExifError, read_exif
from geoloc_dagster.imagery.photo_files import PhotoFiles, is_files, name_of, url_of
from geoloc_dagster.imagery.photo_ids import id_of_name, safe_id
from geoloc_dagster.imagery.photo_table import Photo, PhotoTable, read_photo_lists
from geoloc_dagster.storage import write_bytes

LIST_COLUMNS = ("IMG_ID", "AUTHOR", "LAT", "LON", "date", "heading")
_HEAD_BYTES = 256 << 10  # the EXIF of a JPEG is in its first 64 KiB, or nearly
_MOST_BYTES = 64 << 20
_AMBIGUOUS = ""


def read_photos(sources: Sequence[Path], **options: Any) -> PhotoTable:
    """Read lists, folders and tar files of photos: first the lists in their order, then what is in no list, by name.

    Args:
        sources: of either kind.
        options: of `read_photo_lists`.

    Raises:
        PhotoListError, CollectionSourceError, UnsafeArchiveError: one of them cannot be read.
    """
    lists = [path for path in sources if not is_files(path)]
    if len(lists) == len(sources):
        return read_photo_lists(lists, **options)
    files = PhotoFiles([path for path in sources if is_files(path)])
    names = dict(files.names())
    matcher = _Matcher([name for name, problem in names.items() if problem is None])
    table = read_photo_lists(lists, local_url=matcher.local_url, **options)
    taken = {photo.photo_id: photo.url for photo in table.photos}
    for name, problem in names.items():
        if name in matcher.named:
            continue
        try:
            photo = _photo(files, name, problem)
            if photo.photo_id in taken:
                raise NoExifError(f"its id {photo.photo_id} is that of another photo")
        except NoExifError as error:
            table.refuse(shown(name), 0, str(error))
            continue
        taken[photo.photo_id] = photo.url
        table.photos.append(photo)
    return table


def shown(name: str) -> str:
    """The name of a file as it can be written down, whatever its bytes."""
    return name.encode("utf-8", "replace").decode()


class _Matcher:
    """Finds the file of a published id: by its whole path, else by its name alone where only one file is named so.

    Args:
        names: of all files that can be read.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.named: set[str] = set()
        self._by_path: dict[str, str] = {}
        self._by_name: dict[str, str] = {}
        for name in names:
            self._add(self._by_path, name, name)
            self._add(self._by_name, PurePosixPath(name).name, name)

    def local_url(self, published: str) -> str | None:
        """The URL of the file of this id; it counts as named from now on."""
        for known, text in (
            (self._by_path, published),
            (self._by_name, published),
            (self._by_name, PurePosixPath(published).name),
        ):
            name = known.get(safe_id(text) or text, _AMBIGUOUS)
            if name != _AMBIGUOUS:
                self.named.add(name)
                return url_of(name)
        return None

    @staticmethod
    def _add(known: dict[str, str], text: str, name: str) -> None:
        key = safe_id(text) or text
        known[key] = name if key not in known else _AMBIGUOUS


def _photo(files: PhotoFiles, name: str, problem: str | None) -> Photo:
    if problem is not None:
        raise NoExifError(problem)
    head_is_enough = name.lower().endswith((".jpg", ".jpeg"))
    try:
        said = read_exif(files.read(name, _HEAD_BYTES if head_is_enough else _MOST_BYTES))
    except OSError as error:
        raise NoExifError(f"it cannot be read: {error.strerror or error}") from None
    return Photo(
        id_of_name(name),
        url_of(name),
        said.lat_deg,
        said.lng_deg,
        said.captured_on,
        "unknown" if said.captured_on is None else "day",
        said.creator,
        heading_deg=said.heading_deg,
    )


def write_list(table: PhotoTable, path: Path) -> Path:
    """Write the photos of folders and tar files as a CSV in the published columns, which lists of photos may have as well.

    Args:
        table: photos with positions; `IMG_ID` is the name below the folder, which finds the file again.
        path: where to.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LIST_COLUMNS)
    for photo in table.photos:
        said = (photo.creator, photo.lat_deg, photo.lng_deg, photo.captured_on, photo.heading_deg)
        writer.writerow([shown(name_of(photo.url) or photo.photo_id), *("" if value is None else value for value in said)])
    return write_bytes(path, text.getvalue().encode())
