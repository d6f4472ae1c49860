"""Published lists of train and test divide places as they say, and what is wrong with them is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from geoloc_dagster.config.dataset import SplitSettings
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.config.settings import Settings
from geoloc_dagster.dataset.split_lists import read_list, read_split_lists, split_of_listed
from geoloc_dagster.dataset.splits import assign_splits
from geoloc_dagster.errors import CollectionSourceError, ConfigError, NotEnoughDataError
from geoloc_dagster_tests.end_to_end.regions import write_region

PLACES = pd.DataFrame(
    {
        "location_id": [f"{number}+51.{number},11.0" for number in range(6)],
        "lat_deg": [51 + 0.1 * number for number in range(6)],
        "lng_deg": [11.0] * 6,
        "series": "a",
        "source": "b",
    }
)
NAMES = PLACES["location_id"].tolist()


def region(folder: Path, train: list[str], test: list[str]) -> Settings:
    (folder / "train.txt").write_text("\n".join([*train, ""]))
    (folder / "test.txt").write_text("\r\n".join(f"data/usa/{name}/" for name in test))
    splits = {"lists": {name: [f"{name}.txt"] for name, given in (("train", train), ("test", test)) if given}}
    config = write_region(folder, splits={"by": "lists", "dev_share": 0.0, **splits})
    return load_settings(config, environ={})


def divided(settings: Settings) -> dict[str, str]:
    return dict(assign_splits(PLACES, settings.splits, "EPSG:32632", read_split_lists(settings)))


def test_places_go_where_the_lists_say_and_others_nowhere(tmp_path: Path):
    settings = region(tmp_path, NAMES[:3], NAMES[3:5])
    expected = dict.fromkeys(NAMES[:3], "train") | dict.fromkeys(NAMES[3:5], "test") | {NAMES[5]: "none"}
    assert divided(settings) == expected


def test_one_list_leaves_the_rest_to_the_other_split(tmp_path: Path):
    assert set(split_of_listed(NAMES, dict.fromkeys(NAMES[:3], "train"))[3:]) == {"test"}
    settings = region(tmp_path, [], NAMES[:2])
    assert divided(settings) == dict.fromkeys(NAMES[:2], "test") | dict.fromkeys(NAMES[2:], "train")


def test_what_is_wrong_with_lists_is_named(tmp_path: Path):
    settings = region(tmp_path, NAMES[:3], NAMES[2:4])
    with pytest.raises(ConfigError, match=r"2\+51\.2,11\.0 is in the lists of test and of train"):
        read_split_lists(settings)
    with pytest.raises(NotEnoughDataError, match="name no place"):
        divided(region(tmp_path, ["1+1,1"], ["2+2,2"]))
    (tmp_path / "train.txt").unlink()
    with pytest.raises(CollectionSourceError, match=r"cannot read the list .*train\.txt"):
        read_split_lists(region_without(tmp_path))
    for wrong in ({"by": "lists"}, {"lists": {"train": ["train.txt"]}}):
        with pytest.raises(ValidationError, match="belong together"):
            SplitSettings.model_validate(wrong)


def region_without(folder: Path) -> Settings:
    config = write_region(folder, splits={"by": "lists", "lists": {"train": ["train.txt"]}})
    return load_settings(config, environ={})


def test_a_list_may_have_folders_repeats_and_empty_lines(tmp_path: Path):
    (tmp_path / "list.txt").write_text("usa/a\n\n b \nusa/a/\nc")
    assert read_list(tmp_path / "list.txt") == ["a", "b", "c"]
