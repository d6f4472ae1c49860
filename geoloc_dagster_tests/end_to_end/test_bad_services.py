"""Services that fail in every way: one clear error each, nothing half-written, and the next run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs.headless import Event, run_headless
from geoloc_dagster.defs.region import Region
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.errors import StepFailedError
from geoloc_dagster.tables import open_table, verify_table
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY, StubCity
from geoloc_dagster_tests.end_to_end.nights import rectangle, write_region

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KEY = "k-77-secret"
LOOKUPS = "region_boundary,grid_points,street_view_metadata"
COLLECTION = "buffer_csvs,panoramas"


@dataclass
class Place:
    """A region of a dozen places at a stub city whose service wants a key."""

    folder: Path
    service: EmulatorThread

    def settings(self) -> Settings:
        return load_settings(self.folder / "geoloc.yaml", environ={})

    def allow(self, deadline_s: str) -> None:
        config = self.folder / "geoloc.yaml"
        before = config.read_text()
        config.write_text(before.replace("deadline_s: 0.7", f"deadline_s: {deadline_s}"))
        assert config.read_text() != before

    def run(self, select: str) -> None:
        run_headless(self.settings(), select=select, report=lambda event: None)

    def error_of(self, select: str) -> str:
        with pytest.raises(StepFailedError) as error:
            self.run(select)
        return str(error.value)

    def failure_of(self, name: str) -> tuple[str, dict[str, Any]]:
        """(partition, metadata) of the step that failed last, as the UI shows them; the partition counts as failed there."""
        layout = Layout(self.settings().data_root)
        with dg.DagsterInstance.from_config(str(layout.dagster_home)) as instance:
            region = Region(self.settings())
            run = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1)[0]
            (event,) = [e.dagster_event for e in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)]
            assert event is not None
            assert event.step_failure_data.user_failure_data is not None
            partition = run.tags["dagster/partition"]
            statuses = instance.get_status_by_partition(region.key(name), [partition], region.batches)
            assert statuses is not None
            assert statuses[partition] == AssetPartitionStatus.FAILED
            return partition, {key: entry.value for key, entry in event.step_failure_data.user_failure_data.metadata.items()}

    def rows(self, table: str) -> int:
        path = self.folder / "data" / "tables" / f"{table}.lance"
        dataset = open_table(path)
        if dataset is None:
            return 0
        verify_table(path)
        return int(dataset.count_rows())

    def leftovers(self) -> list[Path]:
        return [path for path in (self.folder / "data").rglob("*") if path.name.endswith((".part", ".tmp"))]


@pytest.fixture(scope="module")
def service() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, key=KEY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def place(tmp_path: Path, service: EmulatorThread, monkeypatch: pytest.MonkeyPatch) -> Place:
    service.set_faults({})
    service.clear_hits()
    monkeypatch.setenv("GEOLOC_EMULATOR_URL", service.url)
    monkeypatch.setenv("GEOLOC_SERVICE_KEY", KEY)
    lat, lng = ORIGIN
    write_region(
        tmp_path,
        boundary=rectangle((lat - 0.0005, lng - 0.0005), (lat + 0.0065, lng + 0.0065)),
        region={"start_point": [lat, lng]},
        grid={"spacing_m": 60},
        coverage={"radius_m": 60},
        buffers={"spacings_m": [100], "batch_size": 6},
        service={"deadline_s": 0.7, "attempts": 2, "max_bytes": 1_000_000, "requests_per_second": 400},
    )
    return Place(tmp_path, service)


def fail(place: Place, fault: str, endpoint: str, **rule: Any) -> None:
    place.service.set_faults({"rules": [{"fault": fault, "endpoint": endpoint, **rule}]})


def test_a_missing_and_a_refused_key_are_said_before_anything_is_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOLOC_SERVICE_KEY", "wrong-1234")
    refused = place.error_of(LOOKUPS)
    assert refused.startswith("GEO-306 ")
    assert "refused" in refused
    assert "wrong-1234" not in refused
    config = (place.folder / "geoloc.yaml").read_text().replace("provider: emulator", "provider: google")
    (place.folder / "geoloc.yaml").write_text(config)
    monkeypatch.delenv("GEOLOC_SERVICE_KEY")
    place.service.clear_hits()
    missing = place.error_of(LOOKUPS)
    assert missing.startswith("GEO-306 ")
    assert "GEOLOC_SERVICE_KEY is not set" in missing
    assert place.service.hits()["requests"] == []  # nobody was asked
    assert place.rows("street_view_metadata") == 0
    assert place.leftovers() == []


PROBLEMS = {  # fault -> what the one line says; all of them mean that the service will not or cannot go on
    "refused_status_500": ("GEO-308 ", "times in a row"),
    "slow": ("GEO-308 ", "no complete answer within 0.7 s"),
    "drip": ("GEO-308 ", "no complete answer within 0.7 s"),
    "reset": ("GEO-308 ", "times in a row"),
    "html": ("GEO-307 ", "a page for people"),
    "request_denied": ("GEO-306 ", "refused"),
}


@pytest.mark.parametrize("fault", PROBLEMS)
def test_lookups_end_with_one_clear_error_and_keep_what_was_answered(place: Place, fault: str) -> None:
    fail(place, fault, "metadata", first=30)
    error = place.error_of(LOOKUPS)
    code, text = PROBLEMS[fault]
    assert error.startswith(code)
    assert text in error
    assert "\n" not in error
    kept = place.rows("street_view_metadata")
    assert 0 < kept <= 30
    assert place.leftovers() == []
    asked = goes_on(place, LOOKUPS, "metadata")
    assert asked == place.rows("street_view_metadata") - kept  # nothing that was answered is asked again


def goes_on(place: Place, select: str, endpoint: str) -> int:
    """Run again with a service that works, and with time for a busy machine: how many different things are asked for."""
    place.service.set_faults({})
    place.allow("10")
    place.service.clear_hits()
    place.run(select)
    return len({hit["what"] for hit in place.service.hits()["requests"] if hit["endpoint"] == endpoint})


QUOTA = {"over_query_limit": ("GEO-315 ", "its quota is spent")}  # lookups take it for the end of a night, a batch for a failure
CLASSES = {"html": "bot", "request_denied": "key", "over_query_limit": "quota"}


@pytest.mark.parametrize("fault", PROBLEMS | QUOTA)
def test_collection_ends_with_one_clear_error_and_keeps_what_it_has(place: Place, fault: str) -> None:
    place.run(LOOKUPS)
    fail(place, fault, "image", first=40)
    error = place.error_of(COLLECTION)
    code, text = (PROBLEMS | QUOTA)[fault]
    assert error.startswith(code)
    assert text in error
    kept = place.rows("panoramas")
    assert 0 < kept <= 40
    assert place.leftovers() == []
    partition, said = place.failure_of("panoramas")
    assert (said["class"], said["code"]) == (CLASSES.get(fault, "network"), code.strip())
    assert said["cause"] in error
    assert said["remedy"].rstrip(".") in error
    table = open_table(place.folder / "data" / "tables" / "panoramas.lance")
    assert said["rows_kept"] == table.count_rows(filter=f"batch = '{partition}'")
    assert 0 < said["rows_new"] <= said["rows_kept"]
    assert (said["table_version"], said["bytes"] > 0, said["pending"] > 0) == (table.version, True, True)
    assert ("evidence" in said) == (fault == "html")
    if fault == "html":
        assert "unusual traffic" in Path(said["evidence"]).read_text().lower()
    assert KEY not in repr(said)
    assert goes_on(place, COLLECTION, "image") == place.rows("panoramas") - kept


def test_each_batch_says_what_the_day_has_cost_and_what_is_left(place: Place) -> None:
    config = place.folder / "geoloc.yaml"
    limits = "requests_per_day: 5000\n  bytes_per_day: 9000000\n  dollars_per_day: 3\n  images_per_day: 500\n"
    config.write_text(config.read_text().replace("service:\n", f"service:\n  {limits}", 1))
    place.run(LOOKUPS)
    place.run(COLLECTION)
    hits = place.service.hits()["requests"]
    images = sum(hit["endpoint"] == "image" for hit in hits)
    with dg.DagsterInstance.from_config(str(Layout(place.settings().data_root).dagster_home)) as instance:
        region = Region(place.settings())
        last = instance.get_latest_materialization_event(region.key("panoramas"))
    assert last is not None
    assert last.asset_materialization is not None
    said = {key: entry.value for key, entry in last.asset_materialization.metadata.items()}
    assert (said["today_pictures"], said["limit_pictures"], said["left_pictures"]) == (images, 500, 500 - images)
    assert (said["today_requests"], said["left_requests"]) == (len(hits), 5000 - len(hits))
    assert said["left_bytes"] == 9_000_000 - said["today_bytes"] < 9_000_000
    assert said["today_dollars"] == 0  # this city is free
    assert "limit_dollars" not in said
    assert said["picture"].startswith("![picture](data:image/jpeg;base64,")


def test_a_batch_that_the_budget_stops_says_so_where_the_run_was_started(place: Place) -> None:
    config = place.folder / "geoloc.yaml"
    config.write_text(config.read_text().replace("service:\n", "service:\n  images_per_day: 10\n", 1))
    place.run(LOOKUPS)
    events: list[Event] = []
    run_headless(place.settings(), select=COLLECTION, report=events.append)
    done = [event.message for event in events if event.kind == "done" and event.asset == "panoramas"]
    said = [message for message in done if message is not None]
    assert said
    assert all("budget" in message and "wait for another run" in message for message in said)


@pytest.mark.parametrize(("fault", "kind"), [("huge", "too_large"), ("not_json", "not_an_image"), ("grey", "no_imagery")])
def test_what_is_no_picture_becomes_a_row_that_says_so_and_is_not_asked_for_again(place: Place, fault: str, kind: str) -> None:
    place.allow("10")  # a machine that is busy must not make a slow answer of a large one
    place.run(LOOKUPS)
    fail(place, fault, "image", count=3)
    place.run(COLLECTION)
    dataset = open_table(place.folder / "data" / "tables" / "panoramas.lance")
    failed = dataset.to_table(columns=["failure", "image"], filter="status = 'failed'").to_pylist()
    assert failed == [{"failure": kind, "image": None}] * 3
    place.service.set_faults({})
    place.service.clear_hits()
    place.run(COLLECTION)
    assert not any(hit["endpoint"] == "image" for hit in place.service.hits()["requests"])


def test_buffers_asked_for_too_early_say_what_is_missing(place: Place) -> None:
    config = place.folder / "geoloc.yaml"
    config.write_text(config.read_text().replace("lookups_per_run: 1000", "lookups_per_run: 20"))
    place.run(LOOKUPS)
    error = place.error_of("buffer_csvs")
    assert error.startswith("GEO-309 ")
    assert "grid points have not been looked up yet" in error
    assert not (place.folder / "data" / "buffers").exists()
