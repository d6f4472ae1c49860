"""What may get how old: windows of a region that asks a service, and none where nothing changes by itself."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable

import dagster as dg
import pytest
from dagster._core.definitions import freshness_evaluator
from dagster._core.loader import LoadingContextForTest

from geoloc_dagster.defs import build_definitions
from geoloc_dagster.defs.region import Region


def policies(region: Region) -> dict[str, tuple[int, int]]:
    """Asset -> days until the warning and until the failure."""
    found: dict[str, tuple[int, int]] = {}
    for asset in build_definitions(settings=region.settings).assets or []:
        for spec in asset.specs:
            if spec.freshness_policy is not None:
                windows = spec.freshness_policy
                days = (windows.warn_window.to_timedelta(), windows.fail_window.to_timedelta())
                found[spec.key.path[-1]] = (days[0] // dt.timedelta(days=1), days[1] // dt.timedelta(days=1))
    return found


def test_a_region_that_asks_a_service_has_windows_that_follow_from_its_intervals(make_region: Callable[..., Region]) -> None:
    live = {"coverage": {"provider": "emulator", "recheck_after_days": 100}, "capture": {"provider": "emulator"}}
    region = make_region(**live, automation={"rescan_after_days": 20})
    assert policies(region) == {
        "street_view_metadata": (107, 207),
        "catalog": (27, 47),
        "faiss_index": (27, 47),
        "release": (27, 47),
    }


def test_a_region_that_reads_files_is_never_called_stale(make_region: Callable[..., Region]) -> None:
    assert policies(make_region()) == {}


def test_dagster_warns_of_an_old_release_and_then_fails_it(
    make_region: Callable[..., Region], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the daemon finds on a materialization of now, with its clock put forward."""
    region = make_region(coverage={"provider": "emulator"}, capture={"provider": "emulator"})
    node = build_definitions(settings=region.settings).resolve_asset_graph().get(region.key("release"))
    instance.report_runless_asset_event(dg.AssetMaterialization(region.key("release")))
    now, found = time.time(), list[str]()
    for days in (1, 36, 38, 66, 68):
        monkeypatch.setattr(freshness_evaluator, "get_current_timestamp", lambda days=days: now + days * 86_400)
        evaluator = freshness_evaluator.TimeWindowFreshnessPolicyEvaluator()
        found.append(asyncio.run(evaluator.evaluate_freshness(LoadingContextForTest(instance), node)).value)
    assert found == ["PASS", "PASS", "WARN", "WARN", "FAIL"]
