"""The command line as a person meets it: in its own process, by exit code, stdout and stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from geoloc_dagster import cli, starter
from geoloc_dagster.errors import ConfigError, DataRootError, IntegrityError, NoReleaseError, RecipeError, StepFailedError


def geoloc(*arguments: str | Path, cwd: Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `geoloc` in a process of its own, without this process's GEOLOC_ variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GEOLOC_")}
    clean |= {"XDG_STATE_HOME": str(cwd / "state"), **(environ or {})}
    command = [sys.executable, "-c", "from geoloc_dagster.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=120, check=False)


def one_error_line(result: subprocess.CompletedProcess[str], code: str) -> str:
    """The single line of a user error; anything else fails the test."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(f"error {code} ")
    return lines[0]


@pytest.fixture
def region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("GEOLOC_CONFIG", raising=False)
    monkeypatch.delenv("GEOLOC_DATA_ROOT", raising=False)
    starter.write_region(tmp_path / "oslo")
    return tmp_path / "oslo"


class TestErrors:
    def test_no_configuration_is_one_line_that_names_all_three_ways(self, tmp_path: Path) -> None:
        line = one_error_line(geoloc("check-config", cwd=tmp_path), "GEO-102")
        assert "--config" in line
        assert "GEOLOC_CONFIG" in line
        assert "geoloc.yaml" in line

    def test_broken_configuration_is_one_line_with_the_line_number(self, region: Path) -> None:
        text = (region / "geoloc.yaml").read_text().replace("spacing_m: 10 ", "spacing: 10 ")
        number = next(i for i, line in enumerate(text.splitlines(), start=1) if "spacing: 10" in line)
        (region / "geoloc.yaml").write_text(text)
        line = one_error_line(geoloc("run", cwd=region), "GEO-101")
        assert f"line {number}: grid.spacing: unknown key; did you mean `spacing_m`?" in line
        assert not (region / "data").exists(), "a refused configuration must not leave a data root behind"

    @pytest.mark.parametrize("select", ["*catalog", "nosuch", "crops and and catalog"])
    def test_a_selection_that_names_nothing_says_what_there_is(self, region: Path, select: str) -> None:
        line = one_error_line(geoloc("run", "--select", select, cwd=region), "GEO-101")
        assert f"--select {select}" in line
        assert ("buffer_csvs" if select == "nosuch" else "`+name`") in line

    def test_debug_shows_the_traceback_and_keeps_the_line_and_the_code(self, tmp_path: Path) -> None:
        result = geoloc("check-config", "--debug", cwd=tmp_path)
        assert result.returncode == 2
        assert "Traceback" in result.stderr
        assert result.stderr.strip().splitlines()[-1].startswith("error GEO-102")

    @pytest.mark.parametrize(
        "arguments",
        [["nosuch"], ["run", "--nosuch"], ["train"], ["backfill"], ["predict"], ["predict", "a.jpg", "b.jpg", "--map", "m.png"]],
        ids=" ".join,
    )
    def test_wrong_usage_exits_with_2_and_says_so(self, arguments: list[str]) -> None:
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 2
        assert "Usage" in result.output

    def test_an_unexpected_error_is_one_line_too_and_exits_with_1(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            cli._fail(ZeroDivisionError("division by zero"), debug=False)
        assert caught.value.code == 1
        assert (
            capsys.readouterr().err == "unexpected error: ZeroDivisionError: division by zero (`geoloc --debug …` shows where)\n"
        )

    def test_a_user_error_inside_another_exception_is_still_the_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        wrapped = RuntimeError("step failed")
        wrapped.__cause__ = IntegrityError("index.faiss has changed")
        with pytest.raises(SystemExit) as caught:
            cli._fail(wrapped, debug=False)
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith("error GEO-503 index.faiss has changed.")

    def test_an_error_of_many_lines_is_still_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        step = StepFailedError(
            "ValueError: no\nthis way\n\nStack Trace:\n  File a.py, line 3\n", asset="crops", partition="100m-0000"
        )
        with pytest.raises(SystemExit):
            cli._fail(step, debug=False)
        shown = capsys.readouterr().err
        assert shown.startswith("error GEO-507 crops[100m-0000]: ValueError: no this way")
        assert shown.count("\n") == 1
        assert "Stack Trace" not in shown

    def test_predicting_without_a_release_says_what_to_do(self, region: Path) -> None:
        result = CliRunner().invoke(cli.app, ["predict", str(region / "photo.jpg"), "--config", str(region)])
        assert isinstance(result.exception, NoReleaseError)
        assert "geoloc run" in str(result.exception)

    def test_training_an_unlisted_recipe_names_the_listed_ones(self, region: Path) -> None:
        result = CliRunner().invoke(cli.app, ["train", "--recipe", "retreival", "--config", str(region)])
        assert isinstance(result.exception, RecipeError)
        assert "'retreival' is not one of this region's: retrieval." in str(result.exception)

    def test_backfilling_an_unknown_series_names_the_known_ones(self, region: Path) -> None:
        result = CliRunner().invoke(cli.app, ["backfill", "--series", "17m", "--config", str(region)])
        assert result.exit_code == 2
        assert "none yet" in " ".join(result.output.replace("│", " ").split())


class TestInit:
    def test_what_it_writes_is_a_valid_region_named_after_the_folder(self, tmp_path: Path) -> None:
        assert geoloc("init", "New York", cwd=tmp_path).returncode == 0
        folder = tmp_path / "New York"
        assert sorted(path.name for path in folder.iterdir()) == [
            "definitions.py",
            "geoloc.yaml",
            "region.geojson",
            "workspace.yaml",
        ]
        result = geoloc("check-config", cwd=folder)
        assert result.returncode == 0, result.stderr
        assert yaml.safe_load(result.stdout)["region"]["name"] == "new_york"
        assert (
            yaml.safe_load((folder / "workspace.yaml").read_text())["load_from"][0]["python_file"]["location_name"] == "new_york"
        )

    def test_its_polygon_is_one_that_the_package_reads(self, region: Path) -> None:
        from geoloc_dagster.geo.boundary import contains, load_boundary

        boundary = load_boundary(region / "region.geojson", name="oslo", max_area_km2=10)
        config = yaml.safe_load((region / "geoloc.yaml").read_text())
        lat, lng = config["region"]["start_point"]
        assert contains(boundary, lat, lng).all(), "the start point lies in the example polygon"

    def test_every_value_it_writes_out_is_the_default(self, region: Path) -> None:
        """The comments of the file are documentation, so its values must not contradict what omitting them means."""
        from geoloc_dagster.config import Settings

        written = yaml.safe_load((region / "geoloc.yaml").read_text())
        spelled_out = Settings.model_validate(written)
        omitted = Settings.model_validate({"region": written["region"]})
        assert spelled_out == omitted

    def test_nothing_is_overwritten_and_nothing_else_is_written(self, tmp_path: Path) -> None:
        (tmp_path / "definitions.py").write_text("precious = 1\n")
        with pytest.raises(ConfigError, match=r"definitions\.py exists already"):
            starter.write_region(tmp_path, "oslo")
        assert [path.name for path in tmp_path.iterdir()] == ["definitions.py"]
        assert (tmp_path / "definitions.py").read_text() == "precious = 1\n"

    def test_an_empty_file_may_be_filled(self, tmp_path: Path) -> None:
        (tmp_path / "geoloc.yaml").touch()
        starter.write_region(tmp_path, "oslo")
        assert "name: oslo" in (tmp_path / "geoloc.yaml").read_text()

    @pytest.mark.parametrize("name", ["Oslo", "1st", "a" * 33, "no/slash", "no-dash"])
    def test_a_name_that_assets_cannot_carry_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match="cannot name a region"):
            starter.write_region(tmp_path / "x", name)
        assert not (tmp_path / "x").exists()

    def test_a_folder_below_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataRootError, match="cannot write"):
            starter.write_region(tmp_path / "file" / "oslo")


class TestCheckConfig:
    def test_prints_only_yaml_on_stdout(self, region: Path) -> None:
        result = geoloc("check-config", "--data-root", "elsewhere", cwd=region)
        assert result.returncode == 0, result.stderr
        assert yaml.safe_load(result.stdout)["data_root"] == str(region / "elsewhere")
        assert result.stderr == "ok\n"
        assert not (region / "elsewhere").exists(), "checking writes nothing"

    def test_an_unknown_recipe_is_refused(self, region: Path) -> None:
        text = (region / "geoloc.yaml").read_text().replace("recipes: [retrieval]", "recipes: [retreival]")
        (region / "geoloc.yaml").write_text(text)
        assert "retreival" in one_error_line(geoloc("check-config", cwd=region), "GEO-501")


class TestBackfill:
    def test_lists_the_explicit_keys_of_one_series_in_order(self, region: Path) -> None:
        import geopandas as gpd
        from shapely.geometry import Point

        from geoloc_dagster.config import Layout
        from geoloc_dagster.storage import write_geoparquet

        batches = ["100m-0001", "35m-0000", "100m-0000", "100m-0000", "100m-0010"]
        frame = gpd.GeoDataFrame(
            {"location_id": list("abcde"), "series": [key.split("-")[0] for key in batches], "batch": batches},
            geometry=[Point(0, 0)] * 5,
            crs=4326,
        )
        write_geoparquet(Layout(region / "data").locations, frame)
        arguments = ["backfill", "--config", str(region), "--dry-run", "--series"]
        result = CliRunner().invoke(cli.app, [*arguments, "100m"])
        assert result.stdout.split() == ["100m-0000", "100m-0001", "100m-0010"], result.exception
        unknown = CliRunner().invoke(cli.app, [*arguments, "75m"])
        assert unknown.exit_code == 2
        assert "100m, 35m" in unknown.output


class TestMemoryOfTheLastRun:
    def test_a_run_is_remembered_although_it_fails(self, region: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def fails(*_: object, **__: object) -> None:
            raise StepFailedError("no", asset="crops")

        monkeypatch.setattr(cli, "_materialise", fails)
        result = CliRunner().invoke(cli.app, ["run", "--config", str(region), "--data-root", str(tmp_path / "root")])
        assert isinstance(result.exception, StepFailedError)
        last = starter.last_run(os.environ)
        assert last == starter.LastRun(region / "geoloc.yaml", tmp_path / "root")

    def test_a_home_that_cannot_be_written_stops_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        environ = {"XDG_STATE_HOME": str(tmp_path / "file")}
        starter.remember_run(environ, tmp_path / "geoloc.yaml", tmp_path)
        assert starter.last_run(environ) is None

    @pytest.mark.parametrize("state", ["", "[]", "{}", json.dumps({"config": "/nowhere/geoloc.yaml", "data_root": "/nowhere"})])
    def test_a_memory_that_is_of_no_use_is_no_memory(self, tmp_path: Path, state: str) -> None:
        (tmp_path / "geoloc").mkdir()
        (tmp_path / "geoloc" / "last-run.json").write_text(state)
        assert starter.last_run({"XDG_STATE_HOME": str(tmp_path)}) is None


class TestDev:
    @pytest.fixture
    def launched(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[list[str], dict[str, str]]]:
        calls: list[tuple[list[str], dict[str, str]]] = []
        monkeypatch.setattr(cli.os, "execve", lambda _program, command, environment: calls.append((command, environment)))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.delenv("GEOLOC_CONFIG", raising=False)
        monkeypatch.chdir(tmp_path)
        return calls

    def test_opens_the_last_data_root_on_loopback_only(
        self, region: Path, tmp_path: Path, launched: list[tuple[list[str], dict[str, str]]]
    ) -> None:
        root = tmp_path / "root"
        starter.remember_run(os.environ, region / "geoloc.yaml", root)
        result = CliRunner().invoke(cli.app, ["dev", "--port", "3123"])
        assert result.exit_code == 0, result.output
        [(command, environment)] = launched
        assert command[2:] == ["dagster", "dev", "-h", "127.0.0.1", "-p", "3123", "-m", "geoloc_dagster.definitions"]
        assert environment["DAGSTER_HOME"] == str(root / "dagster")
        assert environment["GEOLOC_DATA_ROOT"] == str(root)
        assert environment["GEOLOC_CONFIG"] == str(region / "geoloc.yaml")
        assert (root / "dagster").is_dir()

    def test_a_named_region_wins_over_the_last_one(
        self, region: Path, tmp_path: Path, launched: list[tuple[list[str], dict[str, str]]]
    ) -> None:
        starter.write_region(tmp_path / "bergen")
        starter.remember_run(os.environ, region / "geoloc.yaml", tmp_path / "root")
        CliRunner().invoke(cli.app, ["dev", "--config", str(tmp_path / "bergen")])
        assert launched[0][1]["GEOLOC_DATA_ROOT"] == str(tmp_path / "bergen" / "data")

    def test_without_any_region_it_says_how_to_name_one(self, launched: list[tuple[list[str], dict[str, str]]]) -> None:
        result = CliRunner().invoke(cli.app, ["dev"])
        assert "GEO-102" in str(result.exception)
        assert launched == []
