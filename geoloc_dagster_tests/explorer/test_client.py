"""`geoloc predict --url`: photos asked of an explorer that runs, and what is said where none does."""

from __future__ import annotations

import csv
import json
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from geoloc_dagster.cli import app as command
from geoloc_dagster.errors import ExplorerUnreachableError, ImageError
from geoloc_dagster.explorer.client import ask_explorer, write_answers
from geoloc_dagster_tests.explorer.city import photo_of


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Two of places, one that is no photo, one of elsewhere."""
    contents = {"a.jpg": photo_of(40), "broken.jpg": b"no photo", "b.jpg": photo_of(77), "strange.jpg": photo_of(5_003)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def asked(client: TestClient, photos: list[Path], **query: Any) -> list[dict[str, Any]]:
    said = {"coverage": 0.9, "expert": None, "top": 3} | query
    return list(ask_explorer("http://127.0.0.1:8050", photos, transport=client._transport, **said))


def test_every_photo_has_its_answer_in_order(client: TestClient, photos: list[Path]):
    answers = asked(client, photos)
    assert [answer["photo"] for answer in answers] == [str(photo) for photo in photos]
    assert answers[0]["candidates"][0]["location_id"] == "40"
    assert answers[1]["error"]["status"] == 415
    assert answers[2]["candidates"][0]["location_id"] == "77"
    assert not answers[3]["answered"]


def test_more_photos_than_one_request_may_hold_are_sent_in_parts(client: TestClient, photos: list[Path]):
    assert len(asked(client, photos[:1] * 230)) == 230


def test_answers_are_a_csv_or_lines(client: TestClient, photos: list[Path], tmp_path: Path):
    out = tmp_path / "answers.csv"
    assert write_answers(iter(asked(client, [photos[1], *photos])), out) == (5, 2)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert "not a JPEG" in rows[0]["error"]
    assert rows[1]["district"] == "old town"
    assert float(rows[1]["within_25_m"]) > 0.5
    assert rows[4]["answered"] == "False"
    lines = tmp_path / "answers.jsonl"
    assert write_answers(iter(asked(client, photos)), lines) == (4, 1)
    assert [json.loads(line)["photo"] for line in lines.read_text().splitlines()] == [str(photo) for photo in photos]


def test_a_refusal_of_all_says_why(client: TestClient, photos: list[Path]):
    with pytest.raises(ExplorerUnreachableError, match="answered 422: coverage: one of"):
        asked(client, photos, coverage=0.7)
    with pytest.raises(ImageError, match="nothing"):
        asked(client, [photos[0].with_name("nothing.jpg")])


def test_an_answer_that_ends_early_names_the_photo_it_lacks(photos: list[Path]):
    half = httpx2.MockTransport(lambda request: httpx2.Response(200, text='{"answered": false}\n'))
    answers = ask_explorer("http://127.0.0.1:8050", photos, coverage=0.9, expert=None, top=3, transport=half)
    assert next(answers)["photo"] == str(photos[0])
    with pytest.raises(ExplorerUnreachableError, match=r"ended its answer before broken\.jpg"):
        next(answers)


def test_a_port_that_is_taken_is_named(tmp_path: Path):
    (tmp_path / "geoloc.yaml").write_text(
        "version: 1\nregion: {name: testville, boundary: region.geojson, start_point: [59.32, 18.06]}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(command, ["explorer", "--config", str(tmp_path / "geoloc.yaml"), "--port", port])
    assert result.exit_code == 2
    assert f"127.0.0.1:{port} cannot be listened on" in result.output


def test_where_no_explorer_answers_the_command_says_so(photos: list[Path]):
    result = CliRunner().invoke(command, ["predict", "--url", "http://127.0.0.1:9", str(photos[0])])
    assert isinstance(result.exception, ExplorerUnreachableError)
    assert "no explorer answers at http://127.0.0.1:9" in str(result.exception)
