"""Which engine a machine chooses, how it cuts, and what is said where it cannot work."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from geoloc_dagster.errors import ConfigError, EngineError, EngineMissingError
from geoloc_dagster.scale import ray_engine
from geoloc_dagster.scale.engine import LOCAL, UNIT, chosen_engine, counted


def test_without_a_word_this_process_does_everything() -> None:
    assert chosen_engine({}) is LOCAL
    assert chosen_engine({"GEOLOC_ENGINE": "local"}) is LOCAL
    assert chosen_engine({"GEOLOC_ENGINE": ""}) is LOCAL


def test_an_engine_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="GEOLOC_ENGINE is 'dask', and engines are local and ray"):
        chosen_engine({"GEOLOC_ENGINE": "dask"})


def test_ray_that_is_not_installed_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineMissingError, match=r"GEO-606 Ray is asked for.*geoloc-dagster\[ray\]"):
        chosen_engine({"GEOLOC_ENGINE": "ray"})
    with pytest.raises(EngineMissingError):
        ray_engine.require_jobs("http://127.0.0.1:8265")


def test_a_cluster_that_does_not_answer_is_said_at_once() -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(EngineError, match=f"GEO-607 the Ray cluster at {address} does not answer"):
            chosen_engine({"GEOLOC_ENGINE": "ray", "RAY_ADDRESS": address})
    with pytest.raises(EngineError, match=r"the Jobs API of Ray at .* cannot be used"):
        ray_engine.require_jobs(f"http://127.0.0.1:{port}")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("address", ["head", "http://127.0.0.1:8265", "127.0.0.1:", ":6379", "local"])
def test_an_address_that_is_none_of_a_cluster_is_refused(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(EngineError, match="RAY_ADDRESS is "):
        chosen_engine({"GEOLOC_ENGINE": "ray", "RAY_ADDRESS": address})


@pytest.mark.parametrize("cpus", [1, 2, 7, 64])
@pytest.mark.parametrize("rows", [0, 1, 511, 513, 1_100, 9_999])
def test_pieces_cover_every_row_once_and_begin_where_pictures_are_embedded_together(rows: int, cpus: int) -> None:
    parts = ray_engine.cut(rows, cpus)
    assert [row for part in parts for row in part] == list(range(rows))
    assert all(part.start % UNIT == 0 for part in parts)
    assert len(parts) <= 2 * cpus
    assert all(len(part) >= 2 * UNIT for part in parts[:-1])
    assert LOCAL.cut(rows) == ([range(rows)] if rows else [])


def test_progress_counts_rows() -> None:
    seen: list[tuple[int, int]] = []
    tick = counted(lambda *state: seen.append(state), 10)
    tick(4)
    tick(6)
    assert seen == [(4, 10), (10, 10)]
    counted(None, 10)(4)
