"""A cluster of two nodes gives what one process gives, and goes on where a node is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geoloc_dagster_tests.scale.cluster import can_be_isolated, isolated

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not can_be_isolated():
        pytest.skip("Ray listens beyond loopback, and this machine allows no network of its own to its user")
    folder: Path = tmp_path_factory.mktemp("ray")
    assert isolated("geoloc_dagster_tests.scale.trial", str(folder), timeout_s=600).returncode == 0
    return json.loads((folder / "seen.json").read_text())


def test_the_tables_are_the_same(seen: dict[str, Any]) -> None:
    assert len(seen["local"]["crops"]) == 1_100
    assert len(seen["local"]["embeddings"]) == 1_097
    for what in ("crops", "embeddings", "flags", "share", "receipt"):
        assert seen["ray"][what] == seen["local"][what], what


def test_the_work_was_divided_and_each_piece_wrote_its_own_file(seen: dict[str, Any]) -> None:
    assert seen["cut"] == [[0, 512], [512, 1_024], [1_024, 1_100]]
    assert seen["ray"]["files"] == 3
    assert seen["local"]["files"] == 1
    assert seen["ray"]["ticks"][-1] == seen["local"]["ticks"][-1] == [1_100, 1_100]


def test_what_is_there_already_is_not_done_again(seen: dict[str, Any]) -> None:
    assert seen["ray"]["changed"] == seen["local"]["changed"] == [False, False]


def test_an_error_of_a_piece_is_the_one_of_this_process_and_nothing_is_committed(seen: dict[str, Any]) -> None:
    local, ray = seen["refused"]["said"]
    assert ray == local
    assert local.startswith("IntegrityError GEO-503 the picture of capture c10099 has changed")
    assert seen["refused"]["tables"] == [False, False]


def test_the_pieces_of_a_node_that_is_killed_are_done_by_another(seen: dict[str, Any]) -> None:
    killed = seen["killed"]
    assert [name.split(".")[1] for name in killed["before"]] in (["0", "1"], ["1", "0"]), "one piece on each node"
    assert killed["answer"] == ["0", "0"]
    assert killed["ticks"] == 2
