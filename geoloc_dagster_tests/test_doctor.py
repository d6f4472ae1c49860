"""The doctor: one line per check, and a failing one says what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from geoloc_dagster import doctor, starter
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.loader import load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    starter.write_region(tmp_path / "oslo")
    return load_settings(tmp_path / "oslo", environ={})


def with_sources(settings: Settings) -> Settings:
    """The region with one empty file for each source that it needs."""
    for name in ("locations.csv", "pictures.tar"):
        (settings.folder / name).touch()
    capture = settings.capture.model_copy(update={"sources": [Path("pictures.tar")]})
    coverage = settings.coverage.model_copy(update={"files": [Path("locations.csv")]})
    return settings.model_copy(update={"capture": capture, "coverage": coverage})


def test_a_complete_region_on_a_complete_machine_passes_every_check(settings: Settings) -> None:
    checks = list(doctor.examine(lambda: with_sources(settings), min_free_bytes=1))
    assert [str(check) for check in checks if check.status != "ok"] == []
    assert [check.name for check in checks] == [
        "python", "packages", "libraries", "engine", "config", "sources", "service", "recipes", "data root", "disk space",
        "sqlite",
    ]  # fmt: skip
    assert [path.name for path in settings.data_root.iterdir()] == ["geoloc.json"], "checking leaves nothing else behind"


def test_without_a_configuration_the_rest_is_skipped_by_name(tmp_path: Path) -> None:
    checks = {check.name: check for check in doctor.examine(lambda: load_settings(environ={}, cwd=tmp_path))}
    assert checks["config"].status == "FAIL"
    assert "--config" in checks["config"].remedy
    assert {name for name, check in checks.items() if check.status == "skip"} == {
        "sources", "service", "recipes", "data root", "disk space", "sqlite",
    }  # fmt: skip


def test_an_unwritable_data_root_fails_that_line_and_skips_what_needs_it(settings: Settings) -> None:
    settings.data_root.write_text("in the way")
    checks = {check.name: check for check in doctor.examine(lambda: settings)}
    assert checks["data root"].status == "FAIL"
    assert str(settings.data_root) in checks["data root"].detail
    assert checks["disk space"].status == checks["sqlite"].status == "skip"


def live(settings: Settings, provider: str, **capture: object) -> Settings:
    return settings.model_copy(
        update={
            "coverage": settings.coverage.model_copy(update={"provider": provider}),
            "capture": settings.capture.model_copy(update={"provider": provider, **capture}),
        }
    )


def test_a_live_service_needs_its_key_and_a_permission_and_the_emulator_neither(settings: Settings) -> None:
    google = live(settings, "google")
    assert "GEOLOC_SERVICE_KEY is not set" in doctor.check_service(google, environ={}).detail
    with_key = {"GEOLOC_SERVICE_KEY": "k-1"}
    assert "do not allow storing and training" in doctor.check_service(google, environ=with_key).detail
    allowed = doctor.check_service(live(settings, "google", permission="contract 12"), environ=with_key)
    assert (allowed.status, "k-1" in str(allowed)) == ("ok", False)
    assert doctor.check_service(live(settings, "emulator"), environ={}).status == "ok"
    assert doctor.check_sources(live(settings, "emulator")).status == "ok"


def test_the_browser_needs_its_programs_and_a_permission_and_says_what_to_install(settings: Settings, tmp_path: Path) -> None:
    programs = {name: tmp_path / name for name in ("chromium", "chromedriver")}
    for program in programs.values():
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    browser = settings.browser.model_copy(update={"binary": programs["chromium"], "driver": programs["chromedriver"]})
    walking = live(settings, "google_maps").model_copy(update={"browser": browser})
    assert "do not allow storing and training" in doctor.check_service(walking, environ={}).detail
    permitted = live(walking, "google_maps", permission="contract 12")
    assert doctor.check_service(permitted, environ={}).status == "ok"
    programs["chromedriver"].unlink()
    check = doctor.check_service(permitted, environ={})
    assert (check.status, str(programs["chromedriver"]) in check.detail) == ("FAIL", True)
    assert "apt-get install chromium chromium-driver" in check.remedy


def test_missing_sources_are_named_with_their_key_and_full_path(settings: Settings) -> None:
    complete = with_sources(settings)
    (settings.folder / "pictures.tar").unlink()
    check = doctor.check_sources(complete)
    assert check.status == "FAIL"
    assert f"capture.sources: {settings.folder / 'pictures.tar'}" in check.detail
    assert "locations.csv" not in check.detail


def test_a_region_without_pictures_or_locations_is_not_ready(settings: Settings) -> None:
    assert "capture.sources" in doctor.check_sources(settings).detail
    complete = with_sources(settings)
    no_locations = complete.model_copy(update={"coverage": settings.coverage})
    assert "coverage.files nor buffers.files" in doctor.check_sources(no_locations).detail


def test_an_unknown_recipe_fails(settings: Settings) -> None:
    check = doctor.check_recipes(settings.model_copy(update={"recipes": ["nosuch"]}))
    assert check.status == "FAIL"
    assert "nosuch" in check.detail


def test_too_little_space_says_how_much_is_there_and_how_much_is_needed(tmp_path: Path) -> None:
    check = doctor.check_disk_space(tmp_path, min_free_bytes=10**18)
    assert check.status == "FAIL"
    assert "GiB free" in check.detail
    assert "931,322,574.6 GiB" in check.remedy


def test_a_database_that_is_none_fails(tmp_path: Path) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    database.parent.mkdir()
    database.write_bytes(b"not a database at all, but long enough to have a header" * 20)
    check = doctor.check_sqlite(Layout(tmp_path))
    assert check.status == "FAIL"
    assert "not a database" in check.detail
    database.unlink()
    sqlite3.connect(database).close()
    assert doctor.check_sqlite(Layout(tmp_path)).status == "ok"


def test_an_old_python_fails() -> None:
    assert doctor.check_python((3, 10, 4)).status == "FAIL"
    assert doctor.check_python((3, 11, 0)).status == "ok"


def test_a_package_that_is_not_installed_fails() -> None:
    check = doctor.check_requirements("no-such-distribution")
    assert check.status == "FAIL"
    assert check.remedy


@pytest.mark.parametrize(("requirement", "problem"), [("rich>=9999", "is not >=9999"), ("no-such-thing>=1", "is missing")])
def test_a_wrong_version_and_a_missing_requirement_are_named(
    monkeypatch: pytest.MonkeyPatch, requirement: str, problem: str
) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: [requirement, 'other>=1; extra == "dev"'])
    check = doctor.check_requirements()
    assert check.status == "FAIL"
    assert problem in check.detail
    assert "other" not in check.detail, "extras are not required"


def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_NATIVE", ("no_such_library",))
    check = doctor.check_native_packages()
    assert check.status == "FAIL"
    assert "no_such_library does not load" in check.detail
