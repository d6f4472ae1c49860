"""One process at a time asks a service, whatever region it collects for; and what a long run says meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from geoloc_dagster.config import Layout
from geoloc_dagster.defs import build_definitions, progress
from geoloc_dagster.defs.region import Region
from geoloc_dagster.starter import prepare_home

EMULATED = {"coverage": {"provider": "emulator"}, "capture": {"provider": "emulator"}}


def pools(region: Region) -> dict[str, str]:
    graph = build_definitions(settings=region.settings).resolve_asset_graph()
    named = {key.path[-1]: graph.get(key).pools for key in graph.get_all_asset_keys()}
    return {name: next(iter(found)) for name, found in named.items() if found}


def test_all_regions_of_a_host_wait_in_one_queue_for_one_service(make_region: Callable[..., Region]):
    first, second = pools(make_region("aland", **EMULATED)), pools(make_region("gotland", **EMULATED))
    assert first["panoramas"] == first["street_view_metadata"] == second["panoramas"] == "geoloc_emulator"
    assert first["checkpoints"] != second["checkpoints"]


def test_lookups_and_pictures_of_different_services_do_not_wait_for_each_other(make_region: Callable[..., Region]):
    region = make_region(coverage={"provider": "google"}, capture={"provider": "panoramax"})
    assert (pools(region)["street_view_metadata"], pools(region)["panoramas"]) == ("geoloc_google", "geoloc_panoramax")


def test_files_are_read_without_waiting_for_anybody(make_region: Callable[..., Region]):
    assert "panoramas" not in pools(make_region())
    assert "street_view_metadata" not in pools(make_region())


def test_with_a_limit_of_one_a_region_waits_until_another_is_through(tmp_path: Path):
    pool = Region(SimpleNamespace()).service_pool("google")  # type: ignore[arg-type]
    order: list[str] = []

    @dg.asset(pool=pool)
    def aland() -> None:
        order.append("aland asks")

    with dg.DagsterInstance.from_config(str(prepare_home(Layout(tmp_path)))) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(pool, 1)  # `dagster instance concurrency set geoloc_google 1`
        assert storage.claim_concurrency_slot(pool, "a run of gotland", "gotland__panoramas").is_claimed

        def gotland() -> None:
            for _ in range(1_200):
                if storage.get_concurrency_info(pool).pending_step_count == 1:  # the other one has come, and waits
                    break
                threading.Event().wait(0.05)
            order.append("gotland is through")
            storage.free_concurrency_slots_for_run("a run of gotland")

        thread = threading.Thread(target=gotland)
        thread.start()
        assert dg.materialize([aland], instance=instance).success
        thread.join()
    assert order == ["gotland is through", "aland asks"]


def test_a_long_run_says_how_far_it_is_at_most_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    clock, heard = [0.0], list[tuple[str, str | None, int, int]]()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    progress.set_listener(lambda *event: heard.append(event))
    context = SimpleNamespace(
        asset_key=dg.AssetKey(["aland", "panoramas"]),
        has_partition_key=True,
        partition_key="100m-0000",
        log=logging.getLogger("run"),
    )
    try:
        report = progress.reporter(context)  # type: ignore[arg-type]
        with caplog.at_level(logging.INFO, "run"):
            for done in range(1, 36):
                clock[0] += 1.0
                report(done, 1_200)
    finally:
        progress.set_listener(None)
    assert [record.getMessage() for record in caplog.records] == ["10 of 1,200", "20 of 1,200", "30 of 1,200"]
    assert heard[-1] == ("panoramas", "100m-0000", 35, 1_200)
    assert len(heard) == 35
