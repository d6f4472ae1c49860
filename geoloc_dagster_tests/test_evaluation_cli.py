"""`geoloc compare` as a person types it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geoloc_dagster import cli, starter
from geoloc_dagster_tests.evaluation.test_compare_recipes import region

__all__ = ["region"]


@pytest.fixture
def compare(region, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple]:
    """`geoloc compare …` in a region with recipes `new`, `old` and `lone`: exit code, output, errors."""
    starter.write_region(tmp_path / "town", "town")
    config = tmp_path / "town" / "geoloc.yaml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("recipes:")]
    config.write_text("\n".join([*lines, "recipes: [new, old, lone]"]) + "\n")

    monkeypatch.setenv("COLUMNS", "150")

    def run(*arguments: str) -> tuple[object, str, str]:
        where = ["--config", str(config), "--data-root", str(region.root)]
        monkeypatch.setattr(sys, "argv", ["geoloc", "compare", *arguments, *where])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    return run


def test_the_table_says_which_is_better_and_where(compare):
    code, out, _ = compare("new", "old", "--bootstrap", "200")
    assert not code
    assert "new against old on test" in " ".join(out.split())
    assert "better" in out
    assert "district South" in " ".join(out.split())


def test_json_holds_every_measure(compare):
    code, out, _ = compare("old", "new", "--bootstrap", "100", "--json")
    assert not code
    said = json.loads(out)
    assert (said["a"], said["b"], said["n_common"]) == ("old", "new", 60)
    assert {gain["verdict"] for gain in said["gains"] if gain["part"] == "all" and gain["measure"] == "R@1"} == {"worse"}


def test_a_recipe_that_the_region_does_not_have_and_a_split_that_is_not_there_are_one_line(compare):
    code, _, err = compare("new", "newer")
    assert code == 2
    assert "recipe 'newer' is not one of this region's: new, old, lone" in err
    code, _, err = compare("old", "lone")
    assert code == 2
    assert "not both evaluated" in err
    assert len(err.strip().splitlines()) == 1
