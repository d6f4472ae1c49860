"""Small collections in the Stockholm naming, made from a seed."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from geoloc_dagster.imagery.provider import Location, Terms

TERMS = Terms("CC-BY-4.0", "The makers of this test")
MONTHS = ("May 2011", "April 2016", "September 2022")


def street(seed: int, width: int = 32, height: int = 32) -> Image.Image:
    """A picture of a few large, smooth shapes: like a street, unlike noise, it survives scaling and compression."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg(seed: int, size: int = 32, **options) -> bytes:
    return encoded(street(seed, size, size), **options)


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A complete black-and-white PNG of about 50 kB that takes 1.2 GB as RGB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress(bytes((1 + width // 8) * height))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def file_name(location: str, rotation: int, n: int, month: str, scraped_at: str = "2024-01-03 20:40:28.529560") -> str:
    return f"{location}_{rotation}_{n}_{month}_{scraped_at}.jpg"


def files_of(locations: int, dates: int = 3, size: int = 32) -> dict[str, bytes]:
    """Pictures of `locations` places, `dates` dates and four rotations, by file name."""
    names = [(location, rotation, n) for location in range(locations) for n in range(dates) for rotation in range(4)]
    return {
        f"{location // 8:03d}/{file_name(str(location), rotation, n, MONTHS[n])}": jpeg(seed, size)
        for seed, (location, rotation, n) in enumerate(names)
    }


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in extra:
            archive.addfile(entry)
    return path


def places(count: int, first: int = 0) -> list[Location]:
    return [Location(str(number), 59.3 + number / 1000, 18.0) for number in range(first, first + count)]
