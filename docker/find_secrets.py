#!/usr/bin/env python3
"""Look for secrets in an image, layer by layer, or in files and folders; prints where they are, never what they are.

    docker save geoloc/code:0.1.0 | python docker/find_secrets.py --values docker/secrets -
    python docker/find_secrets.py geoloc_dagster docker pyproject.toml

An image keeps what a later layer deletes, so every layer is read, and with it the configuration (environment, labels, history).
Archives within archives are opened, up to eight deep. `--values` names files, or folders of files, whose words of sixteen or more
characters are looked for as they are, percent-encoded and in base64; beside them, what keys of the usual kinds look like.
Exit code 0: nothing found; 1: something was; 2: something could not be read, and so not searched. Needs Python alone.
"""

from __future__ import annotations

import argparse
import base64
import bz2
import gzip
import io
import lzma
import re
import sys
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

DEPTH, MEMBER_BYTES, CHUNK, OVERLAP = 8, 4 * 2**30, 2**23, 2**12
SHORTEST = 16
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError)
RULES = {
    "a private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{30}",
    "a key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a key of Google": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "a token of GitHub": rb"\bgh[pousr]_[0-9A-Za-z]{36,}\b|\bgithub_pat_[0-9A-Za-z_]{60,}\b",
    "a token of GitLab": rb"\bglpat-[0-9A-Za-z_-]{20,}\b",
    "a token of Mapillary": rb"\bMLY\|\d{10,}\|[0-9a-f]{32}\b",
    "a token of Hugging Face": rb"\bhf_[0-9A-Za-z]{34,}\b",
    "a token of PyPI": rb"\bpypi-AgEIcHlwaS5vcmc[0-9A-Za-z_-]{50,}",
    "a webhook of Slack": rb"https://hooks\.slack\.com/services/T[0-9A-Z]+/B[0-9A-Z]+/[0-9A-Za-z]{16,}",
    "a webhook of Discord": rb"https://discord(?:app)?\.com/api/webhooks/\d{10,}/[0-9A-Za-z_-]{40,}",
    "a password in an address": (
        rb"\b[a-z][a-z0-9+]{2,20}://[^\s:/@\"'<>{}$%]{1,40}:"
        rb"[^\s:/@\"'<>{}$%]{8,60}@(?![\w.-]*\bexample\b)[\w.-]+\.\w+"
    ),
    "a password by its name": (
        rb"(?i)\b(?:[a-z_]*(?:password|passwd|secret|api_?key|token))"
        rb"\s*[=:]\s*[\"']?(?=[^\s\"']*\d)[0-9A-Za-z+/_-]{24,}"
    ),
}


@dataclass
class Found:
    """What was found, by place and kind, and what could not be read."""

    secrets: list[tuple[str, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


class Search:
    """Looks for values and for what secrets look like.

    Args:
        values: that must be nowhere; empty for the rules alone.
        rules: kind -> pattern; the usual ones without it.
    """

    def __init__(self, values: Iterable[str] = (), rules: dict[str, bytes] | None = None) -> None:
        forms = {form for value in values for form in _forms(value)}
        kinds = dict(RULES if rules is None else rules)
        if forms:
            kinds["a value that is secret"] = b"|".join(sorted((re.escape(form) for form in forms), key=len, reverse=True))
        self._kinds = {kind: re.compile(pattern) for kind, pattern in kinds.items()}
        self.found = Found()

    def path(self, path: Path) -> None:
        """A file, or every file below a folder."""
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as stream:
                    self.stream(str(file), stream)

    def stream(self, name: str, stream: IO[bytes], depth: int = 0) -> None:
        """What a file holds, and what archives in it hold."""
        if depth > DEPTH:
            self.found.unread.append(f"{name}: archives within archives")
            return
        self._text(name, stream)
        stream.seek(0)
        head = stream.read(512)
        stream.seek(0)
        try:
            self._within(name, stream, head, depth + 1)
        except _UNREADABLE as error:
            self.found.unread.append(f"{name}: {type(error).__name__}: {error}")

    def text(self, name: str, content: bytes) -> None:
        """A text that is in memory."""
        self._text(name, io.BytesIO(content))

    def _text(self, name: str, stream: IO[bytes]) -> None:
        kept = b""
        while piece := stream.read(CHUNK):
            whole = kept + piece
            for kind, pattern in self._kinds.items():
                if pattern.search(whole) and (name, kind) not in self.found.secrets:
                    self.found.secrets.append((name, kind))
            kept = whole[-OVERLAP:]

    def _within(self, name: str, stream: IO[bytes], head: bytes, depth: int) -> None:
        if head[257:262] == b"ustar":
            self._tar(name, stream, depth)
        elif head[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(stream) as archive:
                for member in archive.infolist():
                    if not member.is_dir():
                        self._text(f"{name}: {member.filename}", io.BytesIO(member.comment))
                        self._unpacked(f"{name}: {member.filename}", archive.open(member), depth)
        elif head[:2] == b"\x1f\x8b":
            self._unpacked(f"{name} (gzip)", gzip.GzipFile(fileobj=stream), depth)
        elif head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
            self._unpacked(f"{name} (bzip2)", bz2.BZ2File(stream), depth)
        elif head[:6] == b"\xfd7zXZ\x00":
            self._unpacked(f"{name} (xz)", lzma.LZMAFile(stream), depth)  # noqa: SIM115 - `stream` is closed by whoever opened it
        elif head[:4] == b"\x28\xb5\x2f\xfd" and depth <= 2:  # a layer; elsewhere such a frame is data
            self.found.unread.append(f"{name}: zstd; `docker save` writes layers without it")

    def _unpacked(self, name: str, packed: IO[bytes], depth: int) -> None:
        content = packed.read(MEMBER_BYTES + 1)
        if len(content) > MEMBER_BYTES:
            raise ValueError(f"unpacks to more than {MEMBER_BYTES:,} bytes")
        self.stream(name, io.BytesIO(content), depth)

    def _tar(self, name: str, stream: IO[bytes], depth: int) -> None:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                place = f"{name}: {member.name}"
                self.text(place, f"{member.name}\n{member.linkname}\n{member.pax_headers}".encode())
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None:
                    self.stream(place, content, depth)


def _forms(value: str) -> Iterator[bytes]:
    """A value as it may be written down."""
    yield value.encode()
    yield urllib.parse.quote(value, safe="").encode()
    for lead in ("", "a", "ab"):  # base64 of a text depends on where in it the value begins
        coded = base64.b64encode((lead + value).encode())
        yield coded[(0, 2, 3)[len(lead)] : len(coded) // 4 * 4 - 4]


def values_of(path: Path) -> set[str]:
    """The words of sixteen characters and more in a file, or in every file below a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    words = {word for file in files for word in re.split(r"[\s:\"',{}=\[\]]+", file.read_text(errors="replace"))}
    return {word for word in words if len(word) >= SHORTEST and not word.startswith("aws_")}


def main(arguments: list[str] | None = None) -> int:
    """Search what is named and say what was found; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=Path, action="append", default=[], help="files or folders of secrets")
    parser.add_argument("paths", type=Path, nargs="+", help="an image saved by docker, files, folders; - for the standard input")
    given = parser.parse_args(arguments)
    search = Search({value for path in given.values for value in values_of(path)})
    for path in given.paths:
        if str(path) == "-":
            import shutil
            import tempfile

            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
                copy.seek(0)
                search.stream("image", copy)
        elif path.exists():
            search.path(path)
        else:
            search.found.unread.append(f"{path} is missing")
    for place, kind in search.found.secrets:
        sys.stdout.write(f"{place}: {kind}\n")
    for what in search.found.unread:
        sys.stderr.write(f"not searched: {what}\n")
    return 1 if search.found.secrets else 2 if search.found.unread else 0


if __name__ == "__main__":
    sys.exit(main())
