"""Indexes of picture files in folders and tar archives: who is where, without extracting or executing anything.

A tar is read once from header to header. All members are checked before any is read: one that points outside the archive,
a link or a device condemns the whole archive. Pictures are then read by their offset in the archive, never written to disk.
"""

from __future__ import annotations

import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geoloc_dagster.errors import CollectionSourceError, UnsafeArchiveError
from geoloc_dagster.storage import refuse_pickles

Fingerprint = tuple[tuple[str, int, int], ...]
_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True, slots=True)
class Member:
    """One picture: its name below the source, the file that holds its bytes as it was listed, where they start, how many."""

    name: str
    file: Path
    file_stamp: tuple[int, int]  # modification time in ns and size of `file`
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The picture files of one source in the order of their names, how many other files there were, and how it looked."""

    members: tuple[Member, ...]
    other_files: int
    fingerprint: Fingerprint


def is_current(fingerprint: Fingerprint) -> bool:
    """Whether every file and folder that a listing was made from still has its modification time and size."""
    try:
        return all(_stamp(Path(path)) == (path, modified, size) for path, modified, size in fingerprint)
    except OSError:
        return False


def list_source(path: Path) -> Listing:
    """List the picture files of a folder or an uncompressed tar file.

    Raises:
        CollectionSourceError: it is missing, not readable, compressed, truncated or neither folder nor tar.
        UnsafeArchiveError: the tar has members that point outside it, links or devices.
        UnsafeFileError: it is a pickle.
    """
    refuse_pickles(path)
    try:
        if path.is_dir():
            return _list_folder(path)
        if path.is_file():
            return _list_tar(path)
    except OSError as error:
        raise CollectionSourceError(f"cannot read {path}: {error.strerror or error}") from error
    raise CollectionSourceError(f"{path} does not exist or is neither a folder nor a file")


def read_member(member: Member, max_bytes: int) -> bytes:
    """Read the bytes of one member, at most `max_bytes` + 1 of them; raises OSError where it cannot be read as listed."""
    # Without O_NONBLOCK, opening a pipe that took the place of the file would wait forever.
    descriptor = os.open(member.file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (status.st_mtime_ns, status.st_size) != member.file_stamp:
            raise OSError(f"{member.file} has changed since it was listed")
        wanted = min(member.size, max_bytes + 1)
        content = os.pread(descriptor, wanted, member.offset)
        if len(content) < wanted:
            raise OSError(f"{member.file} ends within {member.name}")
        return content
    finally:
        os.close(descriptor)


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    # A folder's size says nothing; its modification time changes with its entries.
    return str(path), status.st_mtime_ns, 0 if stat.S_ISDIR(status.st_mode) else status.st_size


def is_picture(name: str) -> bool:
    """Whether a file is one by its suffix; hidden ones are none."""
    pure = PurePosixPath(name)
    return pure.suffix.lower() in _PICTURES and not any(part.startswith((".", "__MACOSX")) for part in pure.parts)


def _list_folder(path: Path) -> Listing:
    members: list[Member] = []
    folders: list[Path] = []
    others = 0
    for folder, _, names in os.walk(path, onerror=_raise):
        folders.append(Path(folder))
        for name in names:
            file = Path(folder) / name
            relative = file.relative_to(path).as_posix()
            status = file.stat() if is_picture(relative) else None
            if status is not None and stat.S_ISREG(status.st_mode):
                members.append(Member(relative, file, (status.st_mtime_ns, status.st_size), 0, status.st_size))
            else:
                others += 1
    members.sort(key=lambda member: member.name)
    return Listing(tuple(members), others, tuple(_stamp(folder) for folder in sorted(folders)))


def _raise(error: OSError) -> None:
    raise error


def _list_tar(path: Path) -> Listing:
    before = _stamp(path)
    try:
        with tarfile.open(path, mode="r:") as archive:
            entries = archive.getmembers()
    except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise CollectionSourceError(
            f"{path} is not a complete, uncompressed tar file: {error}", "Unpack it, or make an uncompressed tar of it."
        ) from error
    for entry in entries:
        _refuse_unsafe(path, entry)
    files = [entry for entry in entries if entry.isreg()]
    pictures = [Member(entry.name, path, before[1:], entry.offset_data, entry.size) for entry in files if is_picture(entry.name)]
    if any(member.offset < 0 or member.offset + member.size > before[2] for member in pictures):
        raise CollectionSourceError(f"{path} is cut short: members reach past its end", "Copy the archive again.")
    pictures.sort(key=lambda member: member.name)
    return Listing(tuple(pictures), len(files) - len(pictures), (before,))


def _refuse_unsafe(path: Path, entry: tarfile.TarInfo) -> None:
    name = PurePosixPath(entry.name)
    if name.is_absolute() or ".." in name.parts or "\\" in entry.name or "\0" in entry.name:
        raise UnsafeArchiveError(f"{path} has a member that points outside it: {entry.name!r}")
    if entry.issym() or entry.islnk():
        raise UnsafeArchiveError(f"{path} has a link: {entry.name!r} -> {entry.linkname!r}")
    if not (entry.isdir() or entry.isreg()) or entry.issparse():
        raise UnsafeArchiveError(f"{path} has a member that is no plain file: {entry.name!r}")
