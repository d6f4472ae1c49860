"""Every condition, sensor and schedule, evaluated on an instance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import dagster as dg
import pytest

from geoloc_dagster.defs.region import Region, failing_once
from geoloc_dagster.errors import GateError
from geoloc_dagster_tests.defs.conftest import BATCHES, Graph

FIRST, SECOND, THIRD = BATCHES


def collected(graph: Graph, *batches: str) -> None:
    for asset in ("region_boundary", "grid_points", "street_view_metadata", "buffer_csvs"):
        graph.done(asset)
    graph.done("panoramas", *batches)


def trained(graph: Graph) -> None:
    """Everything up to the champion is there for the first two batches."""
    collected(graph, FIRST, SECOND)
    graph.tick()
    graph.done("crops", FIRST, SECOND)
    graph.done("local_features", FIRST, SECOND)
    graph.done("catalog")
    graph.done("checkpoints", "retrieval")
    graph.done("evaluations", "retrieval")
    graph.done("champion")


def released(graph: Graph) -> None:
    """Everything is there for the first two batches, and the conditions have seen it."""
    trained(graph)
    graph.tick()
    graph.done("embeddings", FIRST, SECOND)
    graph.tick()
    graph.done("faiss_index")
    for asset in ("onnx_models", "fusion", "data_card", "model_card", "release"):
        graph.done(asset)
    graph.tick()


def test_collection_is_never_asked_for_by_a_condition(graph: Graph) -> None:
    assert graph.tick() == {}
    graph.done("buffer_csvs")
    assert graph.tick() == {}


def looked_up(graph: Graph, *, complete: bool) -> None:
    for asset in ("region_boundary", "grid_points"):
        graph.done(asset)
    graph.done("street_view_metadata", passed=complete)


def test_buffers_wait_until_every_grid_point_has_been_looked_up(graph: Graph) -> None:
    looked_up(graph, complete=False)
    assert graph.tick() == {}
    looked_up(graph, complete=False)
    assert graph.tick() == {}
    looked_up(graph, complete=True)
    assert graph.tick() == {"buffer_csvs": {None}}
    graph.done("buffer_csvs")
    assert graph.tick() == {}  # collection is asked for by its schedule
    looked_up(graph, complete=True)  # a negative answer has expired, and a street is there now
    assert graph.tick() == {"buffer_csvs": {None}}


def live(make_region: Callable[..., Region], instance: dg.DagsterInstance, **service: object) -> Graph:
    """A region that asks a live service."""
    sections = {"coverage": {"provider": "emulator", "lookups_per_run": 10}, "capture": {"provider": "emulator"}}
    return Graph(make_region(**sections, service=service), instance)


def evaluate(graph: Graph, schedule: str, night: dt.datetime) -> list[dg.RunRequest] | str:
    """What a schedule asks for, or why it asks for nothing."""
    context = dg.build_schedule_context(
        instance=graph.instance, scheduled_execution_time=night, repository_def=graph.defs.get_repository_def()
    )
    answer = graph.defs.resolve_schedule_def(f"{graph.region.name}_{schedule}")(context)
    if isinstance(answer, dg.SkipReason):
        return str(answer.skip_message)
    return answer if isinstance(answer, list) else [answer]


def test_lookups_are_asked_for_every_night_until_all_answers_are_valid(
    make_region: Callable[..., Region], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = live(make_region, instance)
    night = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    assert "no grid yet" in str(evaluate(graph, "nightly_lookups", night))
    graph.region.layout.grid_points.parent.mkdir(parents=True)
    graph.region.layout.grid_points.write_bytes(b"")
    due = [25]
    monkeypatch.setattr("geoloc_dagster.imagery.lookups.points_due", lambda settings, layout, now: due[0])
    (request,) = evaluate(graph, "nightly_lookups", night)
    assert (request.run_key, request.partition_key) == ("lookups-2026-01-05", None)
    due[0] = 0
    assert "every grid point has an answer" in str(evaluate(graph, "nightly_lookups", night))


def test_a_region_that_reads_lookups_from_files_has_no_schedule_for_them(graph: Graph) -> None:
    names = {schedule.name for schedule in graph.defs.schedules or []}
    assert names == {f"{graph.region.name}_nightly_collection", f"{graph.region.name}_weekly_maintenance"}


def test_the_night_stays_within_its_budget_and_revisits_come_last(
    make_region: Callable[..., Region], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoloc_dagster.imagery.ledger import Ledger

    graph = live(make_region, instance, images_per_day=1_000)
    night = dt.datetime(2026, 1, 5, 1, tzinfo=dt.UTC)
    monkeypatch.setattr("geoloc_dagster.imagery.nightly.pending_batches", lambda layout: {FIRST: 50, SECOND: 50})
    monkeypatch.setattr("geoloc_dagster.imagery.nightly.stale_batches", lambda layout, before: {THIRD: 10})
    monkeypatch.setattr("geoloc_dagster.imagery.nightly.dates_per_location", lambda path: 2.0)

    def keys() -> list[str | None] | str:
        answer = evaluate(graph, "nightly_collection", night)
        return answer if isinstance(answer, str) else [request.partition_key for request in answer]

    assert keys() == [FIRST, SECOND, THIRD]  # 400 + 400 + 80 of 1,000
    ledger = Ledger(graph.region.layout.ledger)
    ledger.add("emulator", night.date(), "image", 700)
    assert keys() == [FIRST]  # it will not be through tonight, and goes on tomorrow
    ledger.add("emulator", night.date(), "image", 300)
    assert keys() == "today's budget of pictures is spent"


def test_collected_batches_are_cropped_and_pending_ones_are_not_waited_for(graph: Graph) -> None:
    collected(graph, FIRST, SECOND)
    assert graph.tick() == {"crops": {FIRST, SECOND}, "local_features": {FIRST, SECOND}}
    graph.done("crops", FIRST, SECOND)
    graph.done("local_features", FIRST, SECOND)
    assert graph.tick() == {"catalog": {None}, "data_card": {None}}  # although the third batch has nothing yet


def test_batches_that_were_there_before_the_first_evaluation_are_caught_up(graph: Graph) -> None:
    collected(graph, *BATCHES)
    graph.done("crops", FIRST)
    assert graph.tick()["crops"] == {SECOND, THIRD}


def test_nothing_is_asked_for_twice(graph: Graph) -> None:
    trained(graph)
    assert graph.tick() == {"embeddings": {FIRST, SECOND}, "onnx_models": {None}, "data_card": {None}}
    graph.done("embeddings", FIRST, SECOND)
    graph.done("onnx_models")
    graph.done("data_card")
    assert graph.tick() == {"faiss_index": {None}, "fusion": {None}, "model_card": {None}, "release": {None}}
    for asset in ("faiss_index", "fusion", "model_card", "release"):
        graph.done(asset)
    assert graph.tick() == {}
    assert graph.tick() == {}


def test_a_rescan_repeats_only_its_own_batch(graph: Graph) -> None:
    released(graph)
    graph.done("panoramas", SECOND)
    asked = graph.tick()
    assert asked["crops"] == {SECOND}
    assert asked.get("embeddings", set()) <= {SECOND}
    assert "checkpoints" not in asked


def test_a_new_champion_embeds_every_batch_again_and_then_moves_the_release(graph: Graph) -> None:
    released(graph)
    graph.done("evaluations", "retrieval")
    asked = graph.tick()
    assert "champion" in asked
    assert not {"fusion", "model_card", "release"} & set(asked)  # it may be another one by then
    graph.done("champion")
    asked = graph.tick()
    assert asked["embeddings"] == {FIRST, SECOND}
    assert not {"fusion", "model_card", "release"} & set(asked)  # the index is still the old champion's
    graph.done("onnx_models")
    assert "release" not in graph.tick()
    graph.done("embeddings", FIRST, SECOND)
    asked = graph.tick()
    assert {"faiss_index", "fusion", "model_card", "release"} <= set(asked)  # in one run, in their order


def test_training_is_never_asked_for_by_a_condition(graph: Graph) -> None:
    collected(graph, FIRST)
    graph.tick()
    graph.done("crops", FIRST)
    graph.tick()
    graph.done("catalog")
    assert "checkpoints" not in graph.tick()


def test_nothing_is_built_on_a_catalog_that_leaks(graph: Graph) -> None:
    trained(graph)
    graph.tick()
    graph.done("embeddings", FIRST, SECOND)
    graph.done("catalog", passed=False)
    asked = graph.tick()
    assert not {"evaluations", "faiss_index", "fusion", "release"} & set(asked)
    graph.done("catalog")
    asked = graph.tick()
    assert {"evaluations", "faiss_index"} <= set(asked)


@pytest.fixture
def failing_gate(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Batches in this set fail the gate of `crops`."""
    import geoloc_dagster.dataset.crops as module

    failing: set[str] = set()

    def write_crops(captures: object, crops: object, batch: str, *args: object, **kwargs: object) -> object:
        if batch in failing:
            raise GateError(f"only 50.0 % of batch {batch} can be decoded")
        return module.CropResult(rows=1, decodable_share=1.0, flags={}, table_version=1, changed=True)

    monkeypatch.setattr(module, "write_crops", write_crops)
    monkeypatch.setattr("geoloc_dagster.viz.overview.batch_sheet", lambda *args, **kwargs: None)
    return failing


def test_a_failed_gate_stops_neither_its_neighbours_nor_is_it_released_by_them(graph: Graph, failing_gate: set[str]) -> None:
    failing_gate.add(FIRST)
    collected(graph, FIRST, SECOND)
    assert graph.tick()["crops"] == {FIRST, SECOND}
    assert not graph.run("crops", FIRST)
    assert graph.run("crops", SECOND)
    graph.done("local_features", SECOND)
    assert graph.tick() == {"catalog": {None}, "data_card": {None}}  # the neighbour goes on
    graph.done("catalog")
    graph.done("panoramas", THIRD)
    asked = graph.tick()
    assert asked["crops"] == {THIRD}  # and neither catalog nor neighbours bring the failed batch back
    assert graph.run("crops", THIRD)
    assert "crops" not in graph.tick()
    failing_gate.clear()
    graph.done("panoramas", FIRST)  # only its own rescan does
    assert graph.tick()["crops"] == {FIRST}


def test_a_failed_gate_fails_once_and_says_what_to_do(graph: Graph, failing_gate: set[str]) -> None:
    failing_gate.add(FIRST)
    collected(graph, FIRST)
    job = graph.defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=graph.instance,
        asset_selection=[graph.region.key("crops")],
        partition_key=FIRST,
        raise_on_error=False,
    )
    failures = [event for event in result.all_events if event.is_step_failure]
    assert len(failures) == 1
    data = failures[0].step_failure_data.user_failure_data
    assert "GEO-403" in data.description
    assert "contact sheet" in data.metadata["remedy"].value


def test_a_user_error_is_not_retried_whatever_the_policy() -> None:
    attempts = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=3))
    @failing_once
    def crops() -> dg.MaterializeResult:
        attempts.append(1)
        raise GateError("only half of it can be decoded")

    assert not dg.materialize([crops], raise_on_error=False).success
    assert len(attempts) == 1


# --- sensors and schedules --------------------------------------------------------------------------------------------
def evaluate_retraining(graph: Graph) -> dg.SensorResult | dg.SkipReason:
    sensor = graph.defs.resolve_sensor_def(f"{graph.region.name}_retraining")
    return sensor(dg.build_sensor_context(instance=graph.instance, definitions=graph.defs))


def test_the_retraining_sensor_says_how_far_it_is(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no catalog yet" in str(evaluate_retraining(graph).skip_message)
    path = graph.region.layout.catalog
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    rows = 1_240
    monkeypatch.setattr("geoloc_dagster.dataset.freshness.usable_rows", lambda path, splits: rows)
    message = str(evaluate_retraining(graph).skip_message)
    assert "1,240" in message
    assert "2,000" in message
    rows = 2_000
    result = evaluate_retraining(graph)
    assert [(request.partition_key, request.tags["geoloc/region"]) for request in result.run_requests] == [
        ("retrieval", graph.region.name)
    ]


def test_retraining_counts_from_the_newest_checkpoint(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    from geoloc_dagster.storage import write_json, write_manifest

    layout = graph.region.layout
    layout.catalog.parent.mkdir(parents=True)
    layout.catalog.write_bytes(b"")
    for day, rows in ((1, 1_000), (2, 8_310)):
        folder = layout.checkpoints / "retrieval" / f"retrieval-{day:012d}"
        finished = f"2026-01-{day:02d}T00:00:00+00:00"
        facts = {"model_version": folder.name, "trained_on_rows": rows, "finished_at": finished}
        write_json(folder / "training.json", facts)
        write_manifest(folder)
    monkeypatch.setattr("geoloc_dagster.dataset.freshness.usable_rows", lambda path, splits: 10_000)
    assert "8,310" in str(evaluate_retraining(graph).skip_message)
    monkeypatch.setattr("geoloc_dagster.dataset.freshness.usable_rows", lambda path, splits: 10_310)
    requests = evaluate_retraining(graph).run_requests
    assert len(requests) == 1
    assert requests[0].run_key == evaluate_retraining(graph).run_requests[0].run_key  # asked for once, not at every tick


def test_the_nightly_schedule_asks_for_the_next_pending_batches_only(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = graph.defs.resolve_schedule_def(f"{graph.region.name}_nightly_collection")
    pending = [f"100m-{n:04d}" for n in range(7)]
    monkeypatch.setattr("geoloc_dagster.imagery.nightly.pending_batches", lambda layout: dict.fromkeys(pending, 3))
    graph.instance.add_dynamic_partitions(graph.region.batches.name, pending)

    def night(day: int) -> list[str | None]:
        """Keys of a night; each run says why."""
        context = dg.build_schedule_context(
            instance=graph.instance,
            scheduled_execution_time=dt.datetime(2026, 1, day, 1, tzinfo=dt.UTC),
            repository_def=graph.defs.get_repository_def(),
        )
        answer = schedule(context)
        if isinstance(answer, dg.SkipReason):
            return []
        assert {request.tags["geoloc/why"] for request in answer} == {"next in rank order, 3 locations to visit"}
        return [request.partition_key for request in answer]

    assert night(1) == pending[:4]
    del pending[:4]
    assert night(2) == pending
    pending.clear()
    assert night(3) == []
