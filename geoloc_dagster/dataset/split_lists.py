"""Published lists of train and test: text files that name places, one a line, with or without folders before the name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from geoloc_dagster.config.settings import Settings
from geoloc_dagster.errors import CollectionSourceError, ConfigError

_log = logging.getLogger(__name__)


def read_list(path: Path) -> list[str]:
    """The names of a list, each once; folders before a name and empty lines are of no account.

    Raises:
        CollectionSourceError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CollectionSourceError(f"cannot read the list {path}: {error}", "Name a text file, one place a line.") from error
    return list(dict.fromkeys(line.strip().rstrip("/").rsplit("/", 1)[-1] for line in lines if line.strip()))


def read_split_lists(settings: Settings) -> dict[str, str]:
    """Place -> split, as the lists of `splits.lists` say; empty without any.

    Raises:
        CollectionSourceError: a list cannot be read.
        ConfigError: a place is in the lists of two splits; names the first.
    """
    split_of: dict[str, str] = {}
    for split, paths in settings.splits.lists.items():
        for name in (name for path in paths for name in read_list(settings.resolve(path))):
            if split_of.setdefault(name, split) != split:
                both = " and of ".join(sorted({split_of[name], split}))
                raise ConfigError(f"splits.lists: {name} is in the lists of {both}")
    return split_of


def split_of_listed(places: Sequence[str], split_of: Mapping[str, str]) -> list[str]:
    """The split of each place. What no list names is test where only train is listed, train where only test is, else none."""
    listed = set(split_of.values())
    other = {frozenset({"train"}): "test", frozenset({"test"}): "train", frozenset({"dev", "test"}): "train"}
    missing = sorted(split_of.keys() - set(places))
    if missing:
        _log.warning("splits.lists name %d places that are not there, the first is %s", len(missing), missing[0])
    return [split_of.get(place, other.get(frozenset(listed), "none")) for place in places]
