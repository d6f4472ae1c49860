"""A region's configuration: found, read, and refused with the line and the remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from geoloc_dagster.config.loader import claim_data_root, find_config, load_settings, resolved_yaml
from geoloc_dagster.errors import ConfigError, ConfigNotFoundError, DataRootError, IntegrityError, SchemaVersionError
from geoloc_dagster.object_storage.binding import working_copy_at, working_copy_of
from geoloc_dagster.object_storage.store import ObjectStore

MINIMAL = """\
version: 1
region:
  name: oslo
  boundary: region.geojson
  start_point: [59.91, 10.75]
"""


@pytest.fixture
def region(tmp_path: Path) -> Path:
    (tmp_path / "geoloc.yaml").write_text(MINIMAL)
    return tmp_path


def refused(folder: Path, text: str, environ: dict[str, str] | None = None) -> str:
    """The message with which a configuration is refused."""
    (folder / "geoloc.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(folder / "geoloc.yaml", environ=environ or {})
    assert caught.value.code == "GEO-101"
    return str(caught.value)


class TestFinding:
    def test_option_wins_over_environment_and_working_directory(self, region: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.yaml"
        other.write_text(MINIMAL.replace("oslo", "bergen"))
        environ = {"GEOLOC_CONFIG": str(region / "geoloc.yaml")}
        assert load_settings(other, environ=environ, cwd=region).region.name == "bergen"

    def test_environment_wins_over_working_directory(self, region: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.yaml"
        other.write_text(MINIMAL.replace("oslo", "bergen"))
        assert load_settings(environ={"GEOLOC_CONFIG": str(other)}, cwd=region).region.name == "bergen"

    def test_working_directory_is_the_last_resort(self, region: Path) -> None:
        assert load_settings(environ={}, cwd=region).region.name == "oslo"

    def test_a_folder_stands_for_its_geoloc_yaml(self, region: Path) -> None:
        assert find_config(region, {}, Path("/")) == region / "geoloc.yaml"

    def test_nothing_found_names_all_three_ways(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigNotFoundError) as caught:
            load_settings(environ={}, cwd=tmp_path)
        for way in ("--config", "GEOLOC_CONFIG", "geoloc.yaml", str(tmp_path)):
            assert way in str(caught.value)

    @pytest.mark.parametrize("by", ["option", "environment"])
    def test_a_named_file_that_is_missing_is_not_replaced_by_another(self, region: Path, by: str) -> None:
        missing = region / "missing.yaml"
        path, environ = (missing, {}) if by == "option" else (None, {"GEOLOC_CONFIG": str(missing)})
        with pytest.raises(ConfigNotFoundError, match=r"missing\.yaml"):
            load_settings(path, environ=environ, cwd=region)


class TestBrokenFiles:
    def test_broken_yaml_names_the_line(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL + "grid: {spacing_m: 10\ncrops: {}\n")
        assert "geoloc.yaml, line 7: not valid YAML" in message

    def test_unknown_key_names_the_line_and_what_was_meant(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL + "grid:\n  spacing: 20\n")
        assert "line 7: grid.spacing: unknown key; did you mean `spacing_m`?" in message

    def test_unknown_section_names_the_line_and_what_was_meant(self, tmp_path: Path) -> None:
        assert "line 6: bufers: unknown key; did you mean `buffers`?" in refused(tmp_path, MINIMAL + "bufers: {}\n")

    def test_unknown_key_that_resembles_nothing_lists_the_known_ones(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL + "grid: {zzz: 1}\n")
        assert "line 6: grid.zzz: unknown key; known here: spacing_m, max_points" in message

    def test_wrong_type_names_the_line_the_key_and_the_value(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL + "buffers:\n  spacings_m: [100, 75]\n  batch_size: many\n")
        assert "line 8: buffers.batch_size: should be a valid integer" in message
        assert "not 'many'" in message

    def test_wrong_item_of_a_list_is_counted_from_its_own_line(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL + "buffers:\n  spacings_m:\n    - 100\n    - -5\n")
        assert "line 9: buffers.spacings_m[1]: should be greater than 0, not -5" in message

    def test_out_of_range_position(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL.replace("59.91", "159.91"))
        assert "line 5: region.start_point[0]: should be less than or equal to 90, not 159.91" in message

    def test_rule_over_several_values_is_at_its_section(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL + "buffers: {spacings_m: [35, 100]}\n")
        assert "line 6: buffers: spacings_m must go down" in message

    def test_missing_key_is_at_its_section(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL.replace("  boundary: region.geojson\n", ""))
        assert "line 2: region.boundary: required, but not given" in message

    def test_every_problem_is_named_at_once_in_the_order_of_lines(self, tmp_path: Path) -> None:
        message = refused(
            tmp_path, "verion: 1\n" + MINIMAL.removeprefix("version: 1\n") + "grid: {spacing_m: 0}\nx: 1\ny: 2\nz: 3\n"
        )
        assert message.index("line 1: verion") < message.index("line 6: grid.spacing_m") < message.index("line 7: x")
        assert "and 2 more" in message

    def test_key_given_twice(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL + "grid:\n  spacing_m: 10\n  spacing_m: 20\n")
        assert "line 8: grid.spacing_m: already set in line 7" in message

    def test_fields_of_the_loader_cannot_be_set(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL + "folder: /tmp\n")
        assert "line 6: folder: unknown key" in message
        assert message.count("folder") == 1, "it must not be listed as a known key either"

    @pytest.mark.parametrize("text", ["", "just words\n", "- a\n- b\n", "# only a comment\n"])
    def test_a_file_that_is_no_mapping(self, tmp_path: Path, text: str) -> None:
        assert "holds no configuration" in refused(tmp_path, text)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("a: &a [x, x]\nb: *a\n", "line 2: aliases"),
            ("a: &a [*a]\n", "line 1: aliases"),
            ("a: !!python/object/apply:os.system [ls]\n", "line 1: not valid YAML"),
            ("a: " + "[" * 5_000 + "\n", "nested too deeply"),
            ("a: \x00\n", "not valid YAML"),
        ],
        ids=["alias", "endless alias", "python tag", "deep", "control character"],
    )
    def test_hostile_yaml(self, tmp_path: Path, text: str, reason: str) -> None:
        assert reason in refused(tmp_path, text)

    def test_text_in_another_encoding_names_the_line(self, tmp_path: Path) -> None:
        (tmp_path / "geoloc.yaml").write_bytes(MINIMAL.encode() + "# Malmö\n".encode("latin-1"))
        with pytest.raises(ConfigError, match="line 6: not UTF-8"):
            load_settings(tmp_path, environ={})

    def test_a_huge_file_is_not_parsed(self, tmp_path: Path) -> None:
        assert "2,000,000 bytes" in refused(tmp_path, "#" * 2_000_000)


class TestVersions:
    def test_newer_configuration_is_refused_with_upgrade_as_remedy(self, tmp_path: Path) -> None:
        (tmp_path / "geoloc.yaml").write_text(MINIMAL.replace("version: 1", "version: 2"))
        with pytest.raises(SchemaVersionError, match=r"line 1: version 2; this package reads 1\. Upgrade"):
            load_settings(tmp_path, environ={})

    def test_nonsense_version_is_a_line_error(self, tmp_path: Path) -> None:
        assert "line 1: version" in refused(tmp_path, MINIMAL.replace("version: 1", "version: one"))

    def test_newer_data_root_is_refused(self, region: Path) -> None:
        settings = load_settings(region, environ={})
        settings.data_root.mkdir()
        (settings.data_root / "geoloc.json").write_text(json.dumps({"region": "oslo", "schema_version": 99}))
        with pytest.raises(SchemaVersionError, match="99"):
            claim_data_root(settings)


class TestPaths:
    def test_paths_are_relative_to_the_file(self, region: Path) -> None:
        settings = load_settings(region, environ={}, cwd=Path("/"))
        assert settings.data_root == region / "data"
        assert settings.resolve(settings.region.boundary) == region / "region.geojson"

    def test_data_root_option_is_relative_to_the_working_directory(self, region: Path, tmp_path: Path) -> None:
        settings = load_settings(region, data_root=Path("elsewhere"), environ={}, cwd=tmp_path / "work")
        assert settings.data_root == tmp_path / "work" / "elsewhere"

    def test_data_root_option_wins_over_environment_wins_over_file(self, region: Path) -> None:
        environ = {"GEOLOC_DATA_ROOT": "/from/environment"}
        assert load_settings(region, environ=environ).data_root == Path("/from/environment")
        assert load_settings(region, data_root=Path("/from/option"), environ=environ).data_root == Path("/from/option")

    @pytest.mark.parametrize(
        "url", ["https://host/x", "gs://bucket/x", "s3://B/x", "s3://bucket/../x", "s3://bucket/.x", "s3:///x"]
    )
    def test_another_url_is_refused_rather_than_written_to_a_folder_of_that_name(self, region: Path, url: str) -> None:
        (region / "geoloc.yaml").write_text(MINIMAL + f"data_root: {url}\n")
        with pytest.raises(DataRootError, match="neither a local folder nor s3://bucket/prefix"):
            load_settings(region, environ={})
        with pytest.raises(DataRootError, match="neither a local folder nor s3://bucket/prefix"):
            load_settings(region, data_root=Path(url), environ={})
        assert not (region / "working_copy").exists()

    def test_a_data_root_in_object_storage_has_a_working_copy(self, region: Path, tmp_path: Path) -> None:
        said = "data_root: s3://bucket/a/b/\nobject_storage: {endpoint: 'http://127.0.0.1:1/', region: eu-1}\n"
        (region / "geoloc.yaml").write_text(MINIMAL + said)
        settings = load_settings(region, environ={})
        assert (settings.data_root, settings.data_url) == (region / "working_copy" / "bucket" / "a" / "b", "s3://bucket/a/b")
        copy = working_copy_at(settings.data_root)
        assert copy is not None
        assert copy.store == ObjectStore("bucket", "a/b", "http://127.0.0.1:1", "eu-1")
        assert working_copy_of(settings.data_root / "index" / "x" / "y.parquet") == copy
        child = load_settings(region, environ={"GEOLOC_DATA_ROOT": str(settings.data_root)})  # as services of a stack are told
        assert (child.data_root, child.data_url) == (settings.data_root, settings.data_url)
        elsewhere = load_settings(region, data_root=Path("s3://bucket"), environ={"GEOLOC_CACHE": "cache"}, cwd=tmp_path)
        assert (elsewhere.data_root, elsewhere.data_url) == (tmp_path / "cache" / "bucket", "s3://bucket")
        assert yaml.safe_load(resolved_yaml(elsewhere))["data_root"] == "s3://bucket"

    @pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "http://key:secret@host", "https://host/path"])
    def test_an_endpoint_is_an_address_without_credentials(self, region: Path, endpoint: str) -> None:
        (region / "geoloc.yaml").write_text(MINIMAL + f"object_storage: {{endpoint: '{endpoint}'}}\n")
        with pytest.raises(ConfigError, match=r"object_storage\.endpoint"):
            load_settings(region, environ={})
        (region / "geoloc.yaml").write_text(MINIMAL + "data_root: s3://bucket/a\n")
        with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL"):
            load_settings(region, environ={"AWS_ENDPOINT_URL": endpoint})

    def test_where_the_data_lie_does_not_change_the_fingerprint(self, region: Path) -> None:
        roots = [Path("/a"), Path("/b"), Path("s3://bucket/c")]
        assert len({load_settings(region, data_root=root, environ={}).config_hash() for root in roots}) == 1

    def test_variables_in_values(self, region: Path) -> None:
        (region / "geoloc.yaml").write_text(MINIMAL + "capture: {sources: ['${PICTURES:-fallback}/a.tar']}\n")
        assert load_settings(region, environ={}).capture.sources == [Path("fallback/a.tar")]
        assert load_settings(region, environ={"PICTURES": "/mnt"}).capture.sources == [Path("/mnt/a.tar")]

    def test_unset_variable_names_the_line(self, tmp_path: Path) -> None:
        message = refused(tmp_path, MINIMAL.replace("region.geojson", "${NOT_SET}/r.geojson"))
        assert "line 4: region.boundary: the environment variable NOT_SET is not set" in message

    def test_resolved_settings_can_be_read_again_and_mean_the_same(self, region: Path, tmp_path: Path) -> None:
        settings = load_settings(region, environ={})
        copy = tmp_path / "copy" / "resolved.yaml"
        copy.parent.mkdir()
        copy.write_text(resolved_yaml(settings))
        again = load_settings(copy, environ={})
        assert again.region.boundary == region / "region.geojson"
        assert again.model_dump(exclude={"region"}) == settings.model_dump(exclude={"region"})
        assert set(yaml.safe_load(copy.read_text())) >= {"version", "data_root", "region", "grid", "splits", "recipes"}


class TestDataRoot:
    def test_claiming_twice_changes_nothing(self, region: Path) -> None:
        settings = load_settings(region, environ={})
        layout = claim_data_root(settings)
        before = layout.marker.read_bytes()
        assert claim_data_root(settings) == layout
        assert layout.marker.read_bytes() == before
        assert [path.name for path in layout.root.iterdir()] == ["geoloc.json"]

    def test_two_regions_on_one_data_root_are_refused(self, region: Path) -> None:
        claim_data_root(load_settings(region, environ={}))
        (region / "geoloc.yaml").write_text(MINIMAL.replace("oslo", "bergen"))
        with pytest.raises(DataRootError, match="belongs to region 'oslo', this is 'bergen'"):
            claim_data_root(load_settings(region, environ={}))

    def test_a_file_in_its_place(self, region: Path) -> None:
        (region / "data").write_text("in the way")
        with pytest.raises(DataRootError, match="is a file, not a folder"):
            claim_data_root(load_settings(region, environ={}))
        assert (region / "data").read_text() == "in the way"

    def test_a_file_above_it(self, region: Path) -> None:
        (region / "up").write_text("")
        with pytest.raises(DataRootError, match="cannot write"):
            claim_data_root(load_settings(region, data_root=region / "up" / "data", environ={}))

    def test_a_file_system_that_takes_no_folders(self, region: Path) -> None:
        with pytest.raises(DataRootError, match="cannot write /proc/"):
            claim_data_root(load_settings(region, data_root=Path("/proc/geoloc"), environ={}))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the file and /proc cases cover it")
    def test_a_folder_without_permission(self, region: Path) -> None:
        (region / "data").mkdir(mode=0o500)
        with pytest.raises(DataRootError, match="cannot write"):
            claim_data_root(load_settings(region, environ={}))

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"region": 3}'])
    def test_a_damaged_marker_is_not_overwritten(self, region: Path, content: str) -> None:
        settings = load_settings(region, environ={})
        settings.data_root.mkdir()
        marker = settings.data_root / "geoloc.json"
        marker.write_text(content)
        with pytest.raises(IntegrityError, match=r"geoloc\.json"):
            claim_data_root(settings)
        assert marker.read_text() == content
