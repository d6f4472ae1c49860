"""The protocol on the published validation pictures: the figures that every model is compared with."""

from __future__ import annotations

import csv
import io
import tarfile
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from geoloc_dagster.dataset.schema import CATALOG
from geoloc_dagster.evaluation.baselines import thumbnail
from geoloc_dagster.evaluation.protocol import select_queries, split_rows
from geoloc_dagster.evaluation.retrieval import evaluate
from geoloc_dagster_tests.evaluation.builders import row

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def validation(shared_data):
    """Catalog rows straight from the file names, and a thumbnail descriptor of every picture."""
    with (shared_data / "stockholm" / "buffer_csvs" / "new_order_buffer_35.csv").open(encoding="utf-8") as stream:
        positions = {
            line["new_order_idx"]: (float(line["Latitude"]), float(line["Longitude"])) for line in csv.DictReader(stream)
        }
    rows, vectors = [], {}
    [archive] = (shared_data / "stockholm" / "images").glob("*alidation*.tar")
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.name.endswith(".jpg"):
                continue
            name = member.name.rsplit("/", 1)[-1]
            location, rotation, _, month, _ = name.split("_", 4)
            lat_deg, lng_deg = positions[location]
            captured_on = datetime.strptime(month, "%B %Y").date()  # noqa: DTZ007 - a month has no time zone
            rows.append(row(name, location, captured_on, view=f"r{rotation}", lat_deg=lat_deg, lng_deg=lng_deg))
            stream = tar.extractfile(member)
            assert stream is not None
            with Image.open(io.BytesIO(stream.read())) as image:
                vectors[name] = thumbnail(image)
    table = pa.Table.from_pylist(rows, CATALOG)
    chosen = select_queries(table.to_pandas(), np.ones(len(rows), bool))
    table = table.set_column(table.schema.get_field_index("is_query"), CATALOG.field("is_query"), pa.array(chosen))
    return split_rows(table, "test"), vectors


def test_the_published_protocol_and_the_bar_that_thumbnails_set(validation):
    rows, vectors = validation
    report = evaluate(np.stack([vectors[name] for name in rows["capture_id"].to_pylist()]), rows)
    assert (report.n_queries, report.n_gallery, report.n_places) == (443, 2474, 113)
    assert report.same_place["recall@1"].value == pytest.approx(0.370, abs=0.01)
    assert report.same_place["recall@10"].value == pytest.approx(0.576, abs=0.01)
    assert report.same_place["recall@1"].high - report.same_place["recall@1"].low > 0.08  # 113 places are not many
    assert sum(group.n_queries for group in report.by_year.values()) == 443


def test_shuffled_pictures_fall_to_chance(validation):
    rows, vectors = validation
    names = rows["capture_id"].to_pylist()
    shuffled = np.random.default_rng(0).permutation(np.stack([vectors[name] for name in names]))
    assert evaluate(shuffled, rows, bootstrap=10).same_place["recall@1"].value < 0.03
