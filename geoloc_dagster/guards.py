"""What is looked at before a file that may come from elsewhere is opened: where it points, how large it is, what it claims.

A checksum says that a file is the one that its maker wrote, and nothing of its maker. These are for the maker.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from geoloc_dagster.errors import UnsafeFileError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

DISTRUST = "Do not use it; get it again from a source that you trust."
_YAML_CHARACTERS = 1_000_000
_ROWS, _ROWS_PER_BYTE = 1_000_000, 64
_BYTES, _BYTES_PER_BYTE = 256 * 2**20, 256


def inside(folder: Path, name: Any, *, may_link: bool = False) -> Path:
    """The path of something that a file names in a folder.

    Args:
        folder: that it has to lie in.
        name: as the file says it.
        may_link: links on the way may lead elsewhere, as those of somebody who keeps a part of the data root on another disk.

    Raises:
        UnsafeFileError: it lies elsewhere.
    """
    pure = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    strange = not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in str(name) or "\0" in str(name)
    if strange or not (may_link or (folder / pure).resolve().is_relative_to(folder.resolve())):
        raise UnsafeFileError(f"{folder} names {str(name)[:80]!r}, which does not lie in it", DISTRUST)
    return folder / pure


def refuse_larger(path: Path, most_bytes: int) -> None:
    """Raise UnsafeFileError for a file that is larger than one of its kind ever is; a missing one is somebody else's problem."""
    if path.is_file() and path.stat().st_size > most_bytes:
        raise UnsafeFileError(f"{path} has {path.stat().st_size:,} bytes; at most {most_bytes:,} are read", DISTRUST)


def parse_yaml(text: str) -> Any:
    """The plain values of a YAML text.

    Raises:
        yaml.YAMLError: it is none, longer than a megabyte, nested too deeply, or has aliases, of which a few can stand for
            billions of values.
    """
    import yaml

    if len(text) > _YAML_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters, at most {_YAML_CHARACTERS:,} are read")
    try:
        yaml.compose(
            text, Loader=yaml.SafeLoader
        )  # ends at the depth that Python knows; events alone would take minutes to get there
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise yaml.YAMLError("aliases (`*name`) are not read")
        return yaml.safe_load(text)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except ValueError as error:  # a date or a number that Python has none of
        raise yaml.YAMLError(str(error)) from error


def refuse_claims(file: pq.ParquetFile, path: Path) -> None:
    """Raise UnsafeFileError where Parquet says that it holds more than a file of its size can, before anything is allocated.

    It bounds rows and the size of pages. One long text that a dictionary repeats in every row still takes its length each time.
    """
    size = path.stat().st_size
    rows = file.metadata.num_rows
    pages = sum(file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups))
    if not 0 <= rows <= _ROWS + _ROWS_PER_BYTE * size or not 0 <= pages <= _BYTES + _BYTES_PER_BYTE * size:
        raise UnsafeFileError(f"{path} has {size:,} bytes and claims {rows:,} rows and {pages:,} bytes of content", DISTRUST)
