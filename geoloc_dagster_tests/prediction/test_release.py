"""What is served is exactly what was released, and stays served when a new release fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.errors import (
    DiskFullError,
    GeolocError,
    IntegrityError,
    ModelMismatchError,
    NoReleaseError,
    SchemaVersionError,
)
from geoloc_dagster.prediction.promotion import promote_best
from geoloc_dagster.prediction.release import activate_release, load_release
from geoloc_dagster.retrieval import pointer
from geoloc_dagster_tests.prediction.world import (
    FIRST,
    NOW,
    SECOND,
    embed_and_index,
    load,
    publish,
    released,
    trained,
    trusting_loader,
)
from geoloc_dagster_tests.retrieval.city import City, FakeEncoder, flip_byte


def release_files(layout: Layout) -> list[Path]:
    """Every file that the served release stands for."""
    release = load(layout)
    folders = [
        layout.releases / release.release_id,
        *(layout.root / part["folder"] for part in release.manifest["parts"].values()),
    ]
    return [layout.releases / "CURRENT.json", *(file for folder in folders for file in sorted(folder.rglob("*")))]


def test_a_release_holds_the_champion_and_its_index(city: City) -> None:
    layout = released(city)
    release = load(layout)
    assert release.model_version == FIRST
    assert release.index.rows.num_rows == 34
    assert release.manifest["region"] == "testville"
    assert release.manifest["catalog_sha256"] == storage.sha256_file(layout.catalog)
    assert {file.name for file in release_files(layout)} == {
        "CURRENT.json",
        "manifest.json",
        "recipe.yaml",
        "rows.parquet",
        "training.json",
        "vectors.faiss",
        "weights.safetensors",
    }


def test_the_same_parts_give_the_same_release_and_nothing_is_written(city: City) -> None:
    layout = released(city)
    pointer_before = (layout.releases / "CURRENT.json").read_bytes()
    again = publish(layout)
    assert not again.changed
    assert again.release_id == load(layout).release_id
    assert (layout.releases / "CURRENT.json").read_bytes() == pointer_before


def test_every_changed_byte_of_every_file_is_refused_by_name_with_what_to_do(city: City) -> None:
    layout = released(city)
    rng = np.random.default_rng(11)
    files = release_files(layout)
    assert len(files) == 9
    for file in files:
        original = file.read_bytes()
        for _ in range(25):
            what = flip_byte(file, rng)
            with pytest.raises(IntegrityError) as refused:
                load(layout)
            assert str(file) in refused.value.cause or file.name == "CURRENT.json", what
            assert "aterialise `" in refused.value.remedy, what
            file.write_bytes(original)
    load(layout)


def test_a_missing_file_is_refused_by_name(city: City) -> None:
    layout = released(city)
    for file in release_files(layout)[1:]:
        hidden = file.rename(file.with_suffix(".hidden"))
        with pytest.raises(IntegrityError, match="is missing") as refused:
            load(layout)
        assert str(file) in refused.value.cause
        hidden.rename(file)


def test_a_truncated_or_extended_file_is_refused(city: City) -> None:
    layout = released(city)
    for file in release_files(layout):
        original = file.read_bytes()
        for changed in (original[:-1], original + b"\n", b""):
            file.write_bytes(changed)
            with pytest.raises(IntegrityError):
                load(layout)
        file.write_bytes(original)


def test_the_encoder_is_not_opened_when_anything_has_changed(city: City) -> None:
    layout = released(city)
    flip_byte(next(layout.indexes.glob("index-*/rows.parquet")), np.random.default_rng(0))
    with pytest.raises(IntegrityError):
        load_release(layout, encoder_loader=lambda folder: pytest.fail(f"opened {folder}"))


def test_an_encoder_that_says_it_is_another_model_is_refused(city: City) -> None:
    layout = released(city)
    with pytest.raises(ModelMismatchError, match=f"vectors of {FIRST}.*encoder is {SECOND}"):
        load_release(layout, encoder_loader=lambda folder: FakeEncoder(SECOND))


def test_what_goes_on_growing_does_not_disturb_what_is_served(city: City) -> None:
    """Crops, embeddings and catalog are rewritten every night; a release does not depend on them."""
    layout = released(city)
    shutil.rmtree(layout.root / "tables")
    layout.catalog.unlink()
    assert load(layout).model_version == FIRST


def test_a_data_root_can_be_moved(city: City, tmp_path: Path) -> None:
    layout = released(city)
    target = tmp_path.with_name(tmp_path.name + "-moved")
    shutil.copytree(layout.root, target)
    shutil.rmtree(layout.root)
    assert load(Layout(target)).model_version == FIRST


def test_without_a_release_there_is_one_clear_error(city: City) -> None:
    layout = Layout(city.root)
    with pytest.raises(NoReleaseError, match="nothing has been released"):
        load(layout)
    with pytest.raises(NoReleaseError, match="no model has been promoted"):
        publish(layout)
    trained(layout, FIRST, 0.7)
    promote_best(layout, ["retrieval"], now=NOW)
    with pytest.raises(NoReleaseError, match="Materialise `faiss_index` first"):
        publish(layout)


def test_a_release_of_newer_code_is_refused(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = released(city)
    monkeypatch.setattr(storage, "SCHEMA_VERSION", 0)
    with pytest.raises(SchemaVersionError, match="schema version 1, this code knows 0"):
        load(layout)


# --- the last good release stays served ------------------------------------------------------------------------------
def with_new_champion(city: City) -> tuple[Layout, str]:
    """A served release, and everything ready for the next one; gives the id of the served one."""
    layout = released(city)
    served = load(layout).release_id
    trained(layout, SECOND, 0.9, day=2)
    promote_best(layout, ["retrieval"], now=NOW)
    embed_and_index(city, layout)
    return layout, served


@pytest.mark.parametrize("step", ["folder", "pointer"])
def test_a_full_disk_leaves_the_last_release_served(city: City, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    layout, served = with_new_champion(city)

    def full(*args: object, **options: object) -> None:
        raise DiskFullError("no space left")

    monkeypatch.setattr(*((storage, "write_bytes", full) if step == "folder" else (pointer.storage, "write_json", full)))
    with pytest.raises(DiskFullError):
        publish(layout)
    monkeypatch.undo()
    assert load(layout).release_id == served
    assert not list(layout.releases.rglob("*.part"))
    publish(layout)
    assert load(layout).model_version == SECOND


@pytest.mark.parametrize("name", ["weights.safetensors", "rows.parquet"])
def test_a_damaged_part_is_not_released(city: City, name: str) -> None:
    layout, served = with_new_champion(city)
    part = layout.checkpoints / "retrieval" / SECOND / name
    if not part.exists():
        part = next(file for file in layout.indexes.glob(f"*/{name}") if SECOND in (file.parent / "manifest.json").read_text())
    flip_byte(part, np.random.default_rng(3))
    with pytest.raises(IntegrityError) as refused:
        publish(layout)
    assert str(part) in refused.value.cause
    assert load(layout).release_id == served


@pytest.mark.slow
@pytest.mark.parametrize("target", ["atomic_folder", "write_pointer"])
def test_killed_at_any_step_the_last_release_stays_served(city: City, target: str) -> None:
    """A real process, killed by SIGKILL where it is about to write the release's folder, and its pointer."""
    layout, served = with_new_champion(city)
    program = f"""
        import os, signal
        from pathlib import Path
        from geoloc_dagster import storage
        from geoloc_dagster.config.layout import Layout
        from geoloc_dagster.prediction import release
        from geoloc_dagster.prediction.release import publish_release
        from datetime import UTC, datetime

        def die(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGKILL)

        module = storage if {target!r} == "atomic_folder" else release
        setattr(module, {target!r}, die)
        layout = Layout(Path({str(layout.root)!r}))
        publish_release(layout, region="testville", config_hash="0" * 16, now=datetime(2026, 11, 20, tzinfo=UTC))
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=os.environ, timeout=250, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert load(layout).release_id == served
    publish(layout)
    assert load(layout).model_version == SECOND


def test_a_damaged_pointer_is_repaired_by_releasing_again(city: City) -> None:
    layout = released(city)
    served = load(layout).release_id
    flip_byte(layout.releases / "CURRENT.json", np.random.default_rng(8))
    assert publish(layout).changed
    assert load(layout).release_id == served


def test_an_earlier_release_can_be_served_again(city: City) -> None:
    layout, first = with_new_champion(city)
    second = publish(layout).release_id
    assert activate_release(layout, first, NOW).changed
    assert (load(layout).release_id, load(layout).model_version) == (first, FIRST)
    flip_byte(layout.releases / second / "manifest.json", np.random.default_rng(9))
    for bad in (second, "000000000000"):
        with pytest.raises(GeolocError):
            activate_release(layout, bad, NOW)
    assert load(layout).release_id == first


def test_trusting_loader_checks_nothing(tmp_path: Path) -> None:
    """Or the tests above would not show that the release itself refuses what has changed."""
    assert trusting_loader(tmp_path / FIRST).model_version == FIRST
