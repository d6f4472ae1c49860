"""Photos in folders and uncompressed tar files, by their names below them; nothing outside is read.

A photo's URL is `file:` and its name, without the folder: so it is the same on every machine, and in every row.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from geoloc_dagster.errors import CollectionSourceError
from geoloc_dagster.imagery.archive import Member, is_picture, list_source, read_member

SCHEME = "file:"
_OTHER_FORMATS = frozenset({".heic", ".heif", ".avif", ".tif", ".tiff", ".gif", ".bmp", ".dng"})


class PhotoFiles:
    """The photos of some folders and tar files.

    Args:
        sources: where a name is in several of them, the first has it.

    Raises:
        CollectionSourceError: one is missing or cannot be read, or an archive is compressed or cut short.
        UnsafeArchiveError: an archive has members that point outside it, links or devices.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        self._folders = [path for path in sources if path.is_dir()]
        self._members: dict[str, Member] = {}
        self._archives = [path for path in sources if not path.is_dir()]
        for path in self._archives:
            for member in list_source(path).members:
                self._members.setdefault(member.name, member)

    def names(self) -> Iterator[tuple[str, str | None]]:
        """The photos in the order of their names, each with why it cannot be read, where that is so."""
        found: dict[str, str | None] = dict.fromkeys(self._members)
        for folder in self._folders:
            for name, problem in _walk(folder):
                found.setdefault(name, problem)
        yield from sorted(found.items())

    def read(self, name: str, max_bytes: int) -> bytes:
        """The first `max_bytes` of a photo.

        Raises:
            OSError: there is none of that name, or it is a link, no plain file, or outside.
        """
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name:
            raise OSError(f"{name!r} is no name of a photo")
        for folder in self._folders:
            path = folder.joinpath(*parts)
            if path.is_symlink() or path.exists():
                return _read(folder, path, max_bytes)
        member = self._members.get(name)
        if member is None:
            raise OSError(f"there is no {name}")
        return read_member(member, max_bytes)[:max_bytes]


def is_files(path: Path) -> bool:
    """Whether a path of the configuration is a folder or a tar file, and not a list."""
    return path.is_dir() or path.suffix.lower() == ".tar"


def url_of(name: str) -> str:
    """The URL of a photo of that name."""
    return SCHEME + quote(name, errors="surrogateescape")


def name_of(url: str) -> str | None:
    """The name in such a URL; None where it is another one."""
    return unquote(url.removeprefix(SCHEME), errors="surrogateescape") if url.startswith(SCHEME) else None


def _walk(folder: Path) -> Iterator[tuple[str, str | None]]:
    for below, _, names in os.walk(folder, onerror=_refuse):  # linked folders are not gone into
        for file_name in names:
            path = Path(below) / file_name
            name = path.relative_to(folder).as_posix()
            if path.suffix.lower() in _OTHER_FORMATS and not file_name.startswith("."):
                yield name, f"{path.suffix.lower()} is not read; JPEG, PNG and WebP are"
            elif is_picture(name):
                status = path.lstat()
                if stat.S_ISLNK(status.st_mode):
                    yield name, "it is a link"
                else:
                    yield name, None if stat.S_ISREG(status.st_mode) else "it is no plain file"


def _refuse(error: OSError) -> None:
    raise CollectionSourceError(f"cannot read {error.filename}: {error.strerror or error}") from error


def _read(folder: Path, path: Path, max_bytes: int) -> bytes:
    """Without following a link, whether it is the file or a folder on the way, and without waiting for a pipe to speak."""
    if path.parent.resolve() != folder.resolve() / path.parent.relative_to(folder):
        raise OSError(f"{path} is behind a link")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no plain file")
        return stream.read(max_bytes)
