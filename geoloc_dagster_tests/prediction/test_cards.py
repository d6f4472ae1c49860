"""Cards say what the tables hold, what the evaluations found, and what was taken down; a release carries those of its models."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from geoloc_dagster import storage
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.forget import Request, forget
from geoloc_dagster.errors import IntegrityError, NoReleaseError
from geoloc_dagster.prediction.cards import newest_card
from geoloc_dagster.prediction.champion import promote
from geoloc_dagster.prediction.data_card import make_data_card
from geoloc_dagster.prediction.model_card import make_model_card
from geoloc_dagster.prediction.promotion import promote_best
from geoloc_dagster.tables import append_rows, open_table, table_version
from geoloc_dagster_tests.dataset.exported import fill
from geoloc_dagster_tests.prediction.world import FIRST, NOW, SECOND, load, publish, released, trained, write_model
from geoloc_dagster_tests.retrieval.city import City, flip_byte


def settings_of(layout: Layout, **capture: object) -> Settings:
    place = {"name": "testville", "boundary": "region.geojson", "start_point": (59.0, 18.0)}
    return Settings(region=place, data_root=layout.root, capture=capture)


@pytest.fixture
def layout(city: City) -> Layout:
    """A released region with twenty captures under two licences beside its crops."""
    layout = released(city)
    fill(layout, 20, licences=("CC-BY-SA-4.0", "proprietary"))
    return layout


def test_the_data_card_counts_what_the_tables_hold(layout: Layout, city: City) -> None:
    card = make_data_card(settings_of(layout, permission="contract 12/2026"), layout)
    facts = card.facts
    assert facts["captures"]["by_licence"] == {"CC-BY-SA-4.0": 10, "proprietary": 10}
    assert facts["captures"]["by_source"] == {"panoramax: panoramax": 20}
    assert facts["captures"]["attributions"] == [
        ["Photos by @ann\tand others", licence, 10] for licence in ("CC-BY-SA-4.0", "proprietary")
    ]
    usable = int(np.sum(city.catalog["usable"].to_numpy()))
    assert facts["catalog"]["usable"] == usable == sum(facts["catalog"]["by_year"].values())
    assert set(facts["catalog"]["by_year"]) == {"2015", "2019", "2022"}
    assert facts["versions"]["crops"] == table_version(layout.crops)
    assert "| CC-BY-SA-4.0 | 10 |" in card.text
    assert "10 captures are proprietary and may not be passed on" in card.text
    assert "permitted by: contract 12/2026" in card.text
    assert "Nothing was asked to be taken down." in card.text


def test_what_is_taken_down_is_counted_and_nobody_is_named(layout: Layout) -> None:
    forget(layout, Request("creator", "ann"), now=NOW)
    card = make_data_card(settings_of(layout), layout)
    assert card.facts["taken_down"] == {"captures": 20, "requests_creator": 1}
    assert card.facts["captures"]["rows"] == 0
    assert "20 captures, on these requests: 1 by creator." in card.text
    assert "ann" not in card.text.replace("Nobody", "").split("## What was taken down")[1]


def test_the_model_card_says_what_it_learned_from_and_how_well_it_does(layout: Layout) -> None:
    card = make_model_card(settings_of(layout), layout)
    model = card.facts["models"]["retrieval"]
    assert (model["model_version"], model["trained_on_rows"]) == (FIRST, 30)
    assert "trained on 30 rows" in card.text
    assert "| same place, recall@1 | 70.0 |" in card.text
    assert f"{FIRST} is the first model: R@1 70.0% on 400 queries" in card.text
    assert "loss: {multi_similarity: {}}" in card.text
    assert "not calibrated" in card.text
    assert "taken down since" not in card.text


def test_the_model_card_shows_intervals_and_the_weakest_district(layout: Layout) -> None:
    path = layout.evaluations / "retrieval" / FIRST
    share = {"value": 0.7, "low": 0.65, "high": 0.75}
    weak, small = {"value": 0.4, "low": 0.3, "high": 0.5}, {"value": 0.0, "low": 0.0, "high": 0.0}
    groups = {name: {"n_places": n, "recall@1": one}
              for name, n, one in (("old town", 40, share), ("harbour", 30, weak), ("islet", 2, small))}  # fmt: skip
    report = storage.read_json(path / "report.json") | {"split": "dev", "n_places": 100, "by_district": groups}
    report["same_place"] |= {"recall@1": share, "recall@10": share, "recall@5": share}
    with storage.atomic_folder(path) as folder:
        storage.write_json(folder / "report.json", report)
        storage.write_manifest(folder)
    text = make_model_card(settings_of(layout), layout).text
    assert text.index("recall@1 |") < text.index("recall@5 |") < text.index("recall@10 |") < text.index("```yaml")
    assert "### On `dev`: 400 queries at 100 places" in text
    assert "| same place, recall@1 | 70.0 (65.0–75.0) |" in text
    assert "| harbour | 30 | 40.0 (30.0–50.0) |" in text
    assert "retrieval: weakest in district harbour (40.0 (30.0–50.0) %)." in text
    assert "islet" not in text


def test_a_model_that_learned_from_what_is_gone_says_so(layout: Layout) -> None:
    forget(layout, Request("creator", "ann"), now=dt.datetime(2026, 11, 2, tzinfo=dt.UTC))
    assert f"20 captures were taken down since `{FIRST}` was trained" in make_model_card(settings_of(layout), layout).text
    write_model(layout, FIRST, day=3)  # trained again since
    promote(layout, FIRST, {}, NOW, "again")
    assert "taken down since" not in make_model_card(settings_of(layout), layout).text


def test_the_same_state_gives_the_same_card(layout: Layout) -> None:
    settings = settings_of(layout)
    assert make_data_card(settings, layout).folder == make_data_card(settings, layout).folder
    assert make_model_card(settings, layout).folder == make_model_card(settings, layout).folder
    assert newest_card(layout, "model_card") == make_model_card(settings, layout)


def test_a_release_carries_the_cards_and_checks_them(layout: Layout) -> None:
    before = publish(layout).release_id
    settings = settings_of(layout)
    data, model = make_data_card(settings, layout), make_model_card(settings, layout)
    published = publish(layout)
    assert published.release_id != before
    parts = storage.read_json(published.folder / storage.MANIFEST)["parts"]
    assert layout.root / parts["data_card"]["folder"] == data.folder
    assert layout.root / parts["model_card"]["folder"] == model.folder
    assert load(layout).release_id == published.release_id
    flip_byte(data.folder / "CARD.md", np.random.default_rng(0))
    with pytest.raises(IntegrityError, match=r"CARD\.md has changed"):
        load(layout)


def test_a_model_card_of_another_champion_is_left_out(layout: Layout) -> None:
    trained(layout, SECOND, 0.9, day=2)
    promote_best(layout, ["retrieval"], now=NOW)
    assert make_model_card(settings_of(layout), layout).facts["models"]["retrieval"]["model_version"] == SECOND
    promote(layout, FIRST, {}, NOW, "back to what the index is of")
    assert "model_card" not in storage.read_json(publish(layout).folder / storage.MANIFEST)["parts"]


def test_before_a_promotion_there_is_no_model_card(tmp_path: Path) -> None:
    with pytest.raises(NoReleaseError, match="no model has been promoted"):
        make_model_card(settings_of(Layout(tmp_path)), Layout(tmp_path))
    with pytest.raises(IntegrityError, match=r"catalog\.parquet is missing"):
        make_data_card(settings_of(Layout(tmp_path)), Layout(tmp_path))


def test_a_cell_of_a_table_cannot_break_it(layout: Layout) -> None:
    rows = open_table(layout.panoramas).to_table(limit=1).to_pylist()
    rows[0] |= {"capture_id": "odd", "attribution": "a | b"}
    append_rows(layout.panoramas, pa.Table.from_pylist(rows, schema=open_table(layout.panoramas).schema))
    assert "| a \\| b |" in make_data_card(settings_of(layout), layout).text
