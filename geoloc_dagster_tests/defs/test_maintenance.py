"""The weekly job: which runs may go, when it waits, and that the command line says first what it would do."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from geoloc_dagster import cli
from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.headless import open_instance
from geoloc_dagster.defs.maintenance import prune_runs
from geoloc_dagster.defs.region import Region
from geoloc_dagster.errors import GateError
from geoloc_dagster_tests.defs.conftest import BATCHES, Graph
from geoloc_dagster_tests.end_to_end.city import write_city

FIRST, SECOND, _ = BATCHES
LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=200)


@pytest.fixture
def crops(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """`crops` works without data, but for the batches in this set."""
    import geoloc_dagster.dataset.crops as module

    failing: set[str] = set()

    def write_crops(captures: object, crops: object, batch: str, *args: object, **kwargs: object) -> object:
        if batch in failing:
            raise GateError("broken")
        return module.CropResult(rows=1, decodable_share=1.0, flags={}, table_version=1, changed=True)

    monkeypatch.setattr(module, "write_crops", write_crops)
    monkeypatch.setattr("geoloc_dagster.viz.overview.batch_sheet", lambda *args, **kwargs: None)
    return failing


def run(graph: Graph, batch: str, region: str | None = "aland") -> str:
    """Make the crops of a batch; the run's id."""
    result = graph.defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=graph.instance,
        asset_selection=[graph.region.key("crops")],
        partition_key=batch,
        raise_on_error=False,
        tags={} if region is None else {"geoloc/region": region},
    )
    return result.run_id


def prune(graph: Graph, *, before: dt.datetime = LATER, apply: bool = True) -> tuple[set[str], str]:
    """The runs that are left, and what was said."""
    checks = sorted(graph.defs.resolve_asset_graph().asset_check_keys, key=str)
    done = prune_runs(graph.region, graph.instance, checks, before=before, apply=apply)
    return {one.run_id for one in graph.instance.get_runs()}, "; ".join(one.what for one in done)


def test_only_runs_that_something_newer_has_replaced_may_go(graph: Graph, crops: set[str]) -> None:
    first, other, again = run(graph, FIRST), run(graph, SECOND), run(graph, FIRST)
    assert prune(graph, apply=False) == ({first, other, again}, f"1 runs that ended before {LATER.date()}, with their events")
    assert prune(graph) == ({other, again}, f"1 runs that ended before {LATER.date()}, with their events")
    assert graph.instance.get_materialized_partitions(graph.region.key("crops")) == {FIRST, SECOND}
    assert graph.instance.all_logs(first) == []
    assert prune(graph) == ({other, again}, "")


def test_young_runs_and_those_of_another_region_stay(graph: Graph, crops: set[str]) -> None:
    runs = {run(graph, FIRST), run(graph, FIRST)}
    assert prune(graph, before=dt.datetime.now(dt.UTC) - dt.timedelta(days=1)) == (runs, "")
    runs |= {run(graph, FIRST, region="oslo")}
    left, _ = prune(graph)
    assert left & runs == left
    assert len(left) == 1  # of ours both were replaced by the one of the other region


def test_a_run_that_somebody_asked_for_in_the_ui_is_known_by_its_assets(graph: Graph, crops: set[str]) -> None:
    run(graph, FIRST, region=None)
    newest = run(graph, FIRST, region=None)
    assert prune(graph)[0] == {newest}


def test_a_failure_that_still_stands_is_kept_so_that_nothing_tries_it_again(graph: Graph, crops: set[str]) -> None:
    graph.done("buffer_csvs")
    graph.done("panoramas", FIRST)
    crops.add(FIRST)
    assert graph.tick()["crops"] == {FIRST}
    failed = run(graph, FIRST)
    assert prune(graph)[0] == {failed}
    assert "crops" not in graph.tick()
    crops.clear()
    mended = run(graph, FIRST)
    assert prune(graph)[0] == {mended}


def test_the_schedule_waits_while_something_is_running_and_asks_once_a_week(
    make_region: Callable[..., Region], tmp_path: Path
) -> None:
    graph = Graph(make_region(), dg.DagsterInstance.local_temp(str(tmp_path)))

    def weekly() -> dg.RunRequest | dg.SkipReason:
        context = dg.build_schedule_context(
            instance=graph.instance, scheduled_execution_time=dt.datetime(2026, 1, 4, 4, tzinfo=dt.UTC)
        )
        return graph.defs.resolve_schedule_def("aland_weekly_maintenance")(context)

    request = weekly()
    assert (request.run_key, request.tags["geoloc/region"]) == ("maintenance-2026-01-04", "aland")
    graph.instance.add_run(dg.DagsterRun("training", status=dg.DagsterRunStatus.STARTED, tags={"geoloc/region": "aland"}))
    assert weekly().skip_message == "1 runs of aland are at work; next week"


def test_the_job_tidies_and_says_how_much(graph: Graph) -> None:
    leftover = graph.region.layout.root / "reports" / ".summary.json.0123abcd.part"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"x" * 321)
    os.utime(leftover, (0, 0))
    result = graph.defs.resolve_job_def("aland_maintenance").execute_in_process(instance=graph.instance)
    assert result.success
    assert not leftover.exists()
    (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    assert output.step_output_data.metadata["bytes_freed"].value == 321


@pytest.mark.slow
def test_the_command_changes_nothing_until_it_is_told_to(tmp_path: Path) -> None:
    config = write_city(tmp_path, places=1)
    layout = Layout(load_settings(config).data_root)
    leftover = layout.root / ".x.json.0123abcd.part"
    leftover.parent.mkdir()
    leftover.write_bytes(b"x" * 1_234)
    os.utime(leftover, (0, 0))
    runner = CliRunner()
    said = runner.invoke(cli.app, ["maintain", "--config", str(config)])
    assert said.exit_code == 0, said.output
    assert said.output.splitlines()[-2:] == [
        "leftover .x.json.0123abcd.part: 1,234 bytes",
        "1,234 bytes could be freed, about; geoloc maintain --apply does it",
    ]
    assert leftover.exists()
    said = runner.invoke(cli.app, ["maintain", "--apply", "--config", str(config)])
    assert said.output.splitlines()[-1] == "1,234 bytes freed"
    assert not leftover.exists()
    assert runner.invoke(cli.app, ["maintain", "--config", str(config)]).output.startswith("0 bytes could be freed")
    with open_instance(layout) as instance:
        assert instance.get_runs_count() == 0
