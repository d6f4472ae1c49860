"""Which folders are working copies of a data root in object storage; cheap, since every write below any folder asks."""

from __future__ import annotations

import functools
import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from geoloc_dagster.object_storage.working_copy import WorkingCopy

HIDDEN: Final = ".object_store"
"""Folder of a working copy that holds what is only this machine's: where the objects are, and what was seen of them."""

KEY_VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_PROFILE",
)
"""Of the environment: what says which keys objects are asked for with."""


def working_copy_of(path: Path) -> WorkingCopy | None:
    """The working copy that a path lies in; None below a local data root and everywhere else."""
    return working_copy_at(path.parent)


@functools.lru_cache(maxsize=65_536)
def working_copy_at(root: Path) -> WorkingCopy | None:
    """The working copy whose root a folder is, or lies in."""
    mark = os.path.join(root, HIDDEN, "store.json")  # noqa: PTH118 - a Path would be made for every folder that is asked about
    if os.path.isfile(mark):  # noqa: PTH113
        return _opened(root)
    return working_copy_at(root.parent) if root.parent != root else None


def attach(root: Path, *, bucket: str, prefix: str, endpoint: str | None, region: str) -> None:
    """Make a folder the working copy of a data root; every process that is given a path below it knows from then on."""
    place = {"bucket": bucket, "prefix": prefix, "endpoint": endpoint, "region": region}
    mark = root / HIDDEN / "store.json"
    content = json.dumps(place, indent=2, sort_keys=True) + "\n"
    if not mark.is_file() or mark.read_text() != content:
        mark.parent.mkdir(parents=True, exist_ok=True)
        temporary = mark.with_name(f".{mark.name}.{uuid.uuid4().hex[:8]}.part")
        temporary.write_text(content)
        temporary.replace(mark)
        working_copy_at.cache_clear()
        _opened.cache_clear()


@functools.lru_cache(maxsize=16)
def _opened(root: Path) -> WorkingCopy:
    from geoloc_dagster.object_storage.store import ObjectStore
    from geoloc_dagster.object_storage.working_copy import WorkingCopy

    place = json.loads((root / HIDDEN / "store.json").read_text())
    return WorkingCopy(root, ObjectStore(**place))
