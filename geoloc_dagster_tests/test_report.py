"""The page that says what a run made, from a data root in each state that one can be in."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from geoloc_dagster import starter
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.learning.recipe import load_recipe
from geoloc_dagster.report import run_report

FIGURE = {f"recall@{k}": {"value": value, "low": value - 0.05, "high": value + 0.05} for k, value in ((10, 0.97), (1, 0.912))}
REPORT = {
    "name": "retrieval <b>",
    "split": "test",
    "n_queries": 1_234,
    "n_gallery": 5_678,
    "n_places": 321,
    "same_place": FIGURE,
    "baselines": {"thumbnail": {"same_place": FIGURE}},
}


class Text(HTMLParser):
    """What a reader sees, and whether every tag is closed again."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.open = list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture
def demo(tmp_path: Path) -> Settings:
    return load_settings(starter.write_demo(tmp_path / "demo"), environ={})


def test_the_packaged_demo_is_a_region_that_can_be_loaded_and_is_written_once(demo: Settings, tmp_path: Path):
    assert (demo.coverage.provider, demo.capture.provider) == ("emulator", "emulator")
    assert load_recipe("retrieval", demo.folder).budget.epochs > 0
    changed = tmp_path / "demo" / "geoloc.yaml"
    changed.write_text(changed.read_text().replace("seed: 7", "seed: 8"))
    assert load_settings(starter.write_demo(tmp_path / "demo"), environ={}).emulator.seed == 8  # what somebody changed is kept


def test_an_empty_data_root_has_a_page_that_says_so(demo: Settings):
    page = Text(run_report(demo, Layout(demo.data_root), {"seconds": 30, "assets": {}}))
    assert page.open == []
    assert "No model has been evaluated yet. The last run took 0.5 minutes." in page.text
    assert "Pictures" not in page.text
    assert "geoloc dev" in page.text
    assert "geoloc predict" not in page.text


def test_figures_stand_in_the_order_of_their_cuts_and_names_are_escaped(demo: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("geoloc_dagster.report._reports", lambda settings, layout: [(demo.folder, REPORT)])
    monkeypatch.setattr("geoloc_dagster.report._pictures", lambda settings, layout, reports: "")
    assets = {"crops": {"partitions": 3, "rows": 1_500, "seconds": 12.3}, "catalog": {"partitions": 0, "rows": 9, "seconds": 1.0}}
    raw = run_report(demo, Layout(demo.data_root), {"seconds": 360, "assets": assets})
    page = Text(raw)
    assert page.open == []
    assert "91.2% of cases at the first guess" in page.text
    assert "1,234 queries at 321 places" in page.text
    assert page.text.index("R@1") < page.text.index("R@10")
    assert "retrieval <b>" in page.text
    assert "<b>retrieval" not in raw
    assert "crops" in page.text
    assert "1,500" in page.text
