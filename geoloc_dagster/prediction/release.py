"""A release: one encoder and one index that belong together, under one immutable manifest; `CURRENT.json` says which is served.

Trust runs down a chain of sha256: the pointer seals itself and names the release's manifest, that names the manifests of
model and index, and those name every file. Nothing is opened before the chain down to it has been checked. The pointer
is replaced last, so whatever fails or is killed before, the previous release stays served.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.errors import IntegrityError, ModelMismatchError, NoReleaseError, SchemaVersionError
from geoloc_dagster.guards import inside
from geoloc_dagster.learning.onnx_folder import export_name, read_export
from geoloc_dagster.prediction.cards import newest_card
from geoloc_dagster.prediction.champion import read_champion, verify_folder
from geoloc_dagster.prediction.parts import BESIDE, CLASSIFIERS, is_model, named_members, onnx_part, remedy_of
from geoloc_dagster.prediction.photo import as_picture, read_photo
from geoloc_dagster.prediction.protocol import Prediction
from geoloc_dagster.prediction.retrieval import RetrievalPredictor
from geoloc_dagster.prediction.runtimes import EncoderLoader, Runtime, encoder_opener
from geoloc_dagster.retrieval.encoder import Encoder
from geoloc_dagster.retrieval.index import GalleryIndex, latest_index, load_index, verify_index
from geoloc_dagster.retrieval.pointer import read_pointer, write_pointer
from geoloc_dagster.retrieval.rerank import VoteSettings

logger = logging.getLogger(__name__)
_CURRENT = "CURRENT.json"
_AGAIN = "Materialise `release` again, or activate an earlier one."
_LATEST = "LATEST.json"


@dataclass(frozen=True, slots=True)
class PublishedRelease:
    """A release that is now served: its id, its folder, what it holds, and whether the pointer moved."""

    release_id: str
    folder: Path
    model_version: str
    rows: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Release:
    """A verified release in memory."""

    release_id: str
    manifest: dict[str, Any]
    encoder: Encoder
    index: GalleryIndex

    @property
    def model_version(self) -> str:
        """The model of encoder and index."""
        return self.encoder.model_version

    def predictor(self, vote: VoteSettings | None = None) -> RetrievalPredictor:
        """A predictor over this release."""
        return RetrievalPredictor(self.encoder, self.index, vote or VoteSettings())


# --- publishing ------------------------------------------------------------------------------------------------------
def publish_release(layout: Layout, *, region: str, config_hash: str, now: datetime) -> PublishedRelease:
    """Release the champion with the index that was built last, and the champion among classifiers of cells; serve them.

    The same parts give the same release, and then nothing is written.

    Raises:
        ModelMismatchError: the index holds vectors of another model than the champion.
        NoReleaseError: there is no champion or no index yet.
        IntegrityError: a part has changed since it was written.
    """
    parts: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for kind in reversed(CLASSIFIERS):
        if layout.champion_of(kind).exists():
            model = read_champion(layout, layout.champion_of(kind))
            parts[kind] = _part(layout, model.folder)
            rows = int(storage.read_json(model.folder / "training.json")["trained_on_rows"])
            said = {"model_version": model.model_version, "recipe": model.recipe, "rows": rows}
    if layout.champion.exists() or not parts:
        champion = read_champion(layout)
        index_folder = latest_index(layout.indexes)
        index = verify_index(index_folder)
        if index["model_version"] != champion.model_version:
            raise ModelMismatchError(
                f"{index_folder} holds vectors of {index['model_version']}, the champion is {champion.model_version}"
            )
        parts |= {"model": _part(layout, champion.folder), "index": _part(layout, index_folder)}
        said = {"model_version": champion.model_version, "recipe": champion.recipe, "rows": index["rows"]}
    parts |= _fusion_parts(layout, parts)
    parts |= _onnx_parts(layout, parts)
    parts |= _card_parts(layout, parts)
    manifest = {
        "schema_version": storage.SCHEMA_VERSION,
        "kind": "release",
        "region": region,
        "config_hash": config_hash,
        **said,
        "catalog_sha256": storage.sha256_file(layout.catalog) if layout.catalog.is_file() else None,
        "parts": parts,
    }
    return _serve(layout, manifest, now)


def _fusion_parts(layout: Layout, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The newest fusion and its ensemble, where it was fitted with exactly these models; none where they have changed since."""
    folder = newest_fusion(layout)
    if folder is None:
        return {}
    fitted: Mapping[str, str] = storage.verify_manifest(folder, remedy=remedy_of("fusion"))["experts"]
    ours = {kind: Path(parts[kind]["folder"]).name for kind in CLASSIFIERS if kind in parts}
    if "model" in parts:
        ours |= dict.fromkeys(("retrieval", "places"), Path(parts["model"]["folder"]).name)
        held = storage.read_json(layout.root / parts["index"]["folder"] / storage.MANIFEST).get("local_features")
        ours |= {"verification": held} if held else {}
    beside: dict[str, Any] = {}
    for recipe, version in named_members(fitted, "retrieval").items():
        index = latest_index(layout.indexes_of(recipe))
        held = verify_index(index)["model_version"]
        ours |= {f"{expert}{BESIDE}{recipe}": held for expert in ("retrieval", "places")}
        model = layout.checkpoints / recipe / version
        beside |= {f"model{BESIDE}{recipe}": _part(layout, model), f"index{BESIDE}{recipe}": _part(layout, index)}
    for kind in CLASSIFIERS:
        for recipe, version in named_members(fitted, kind).items():
            expert = f"{kind}{BESIDE}{recipe}"
            ours[expert] = version
            beside[expert] = _part(layout, layout.checkpoints / recipe / version)
    if fitted != ours:
        logger.warning("%s was fitted with other models than those of today; it is left out of the release", folder)
        return {}
    return {"fusion": _part(layout, folder), **beside}


def _onnx_parts(layout: Layout, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The exports of the models that there are; one without is served through torch."""
    found: dict[str, Any] = {}
    for model in [part for name, part in parts.items() if is_model(name)]:
        version = Path(model["folder"]).name
        folder = layout.onnx_models / export_name(version)
        if (folder / storage.MANIFEST).is_file() and read_export(folder).model_manifest_sha256 == model["manifest_sha256"]:
            found[onnx_part(version)] = _part(layout, folder)
        else:
            logger.info("%s has no export for ONNX Runtime; it is served through torch", version)
    return found


def _card_parts(layout: Layout, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The newest cards; a model card of other models than these is left out, as there will be one of these soon."""
    found: dict[str, Any] = {}
    data, model = newest_card(layout, "data_card"), newest_card(layout, "model_card")
    if data is not None:
        found["data_card"] = _part(layout, data.folder)
    served = {Path(parts[name]["folder"]).name for name in ("model", *CLASSIFIERS) if name in parts}
    if model is not None and {one["model_version"] for one in model.facts["models"].values()} == served:
        found["model_card"] = _part(layout, model.folder)
    return found


def newest_fusion(layout: Layout) -> Path | None:
    """The fusion that was made last; None where none was."""
    pointer = layout.fusions / _LATEST
    return inside(layout.fusions, read_pointer(pointer, remedy_of("fusion")).get("fusion")) if pointer.exists() else None


def activate_release(layout: Layout, release_id: str, now: datetime) -> PublishedRelease:
    """Serve an earlier release again, after checking all of its files."""
    folder = layout.releases / release_id
    manifest = _verified_manifest(layout, release_id, storage.sha256_file(folder / storage.MANIFEST) if folder.is_dir() else "")
    return _serve(layout, manifest, now)


def _part(layout: Layout, folder: Path) -> dict[str, Any]:
    """Where a part lies, and the sha256 of its manifest, which holds those of its files."""
    return {"folder": str(folder.relative_to(layout.root)), "manifest_sha256": storage.sha256_file(folder / storage.MANIFEST)}


def _serve(layout: Layout, manifest: dict[str, Any], now: datetime) -> PublishedRelease:
    content = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    digest = hashlib.sha256(content).hexdigest()
    release_id = digest[:12]
    folder = layout.releases / release_id
    file = folder / storage.MANIFEST
    if not file.is_file() or storage.sha256_file(file) != digest:
        with storage.atomic_folder(folder) as temporary:
            storage.write_bytes(temporary / storage.MANIFEST, content)
    changed = _served_digest(layout) != digest
    if changed:
        fields = {"release": release_id, "manifest_sha256": digest, "activated_at": now.isoformat()}
        write_pointer(layout.releases / _CURRENT, fields)
    return PublishedRelease(release_id, folder, manifest["model_version"], int(manifest["rows"]), changed)


def _served_digest(layout: Layout) -> str | None:
    """What is served now; None where nothing is, or where the pointer is damaged and is to be replaced."""
    try:
        return str(read_pointer(layout.releases / _CURRENT, _AGAIN)["manifest_sha256"])
    except IntegrityError:
        return None


# --- asking -----------------------------------------------------------------------------------------------------------
def predict_photo(release: Release, photo: bytes | Path, *, vote: VoteSettings | None = None) -> Prediction:
    """Where was this photo taken?

    Args:
        release: What is served.
        photo: Encoded JPEG, PNG or WebP, or the path of one.
        vote: How the hits vote; the defaults otherwise.

    Raises:
        ImageError: there is no such file, or it cannot be used as a picture.
    """
    picture = as_picture(read_photo(photo), release.encoder.image_size)
    answer = release.predictor(vote).predict(picture[None])[0]
    return replace(answer, release=release.release_id)


# --- loading ---------------------------------------------------------------------------------------------------------
def load_release(layout: Layout, *, encoder_loader: EncoderLoader | None = None, runtime: Runtime = "onnx") -> Release:
    """Load what is served, after checking every byte of it.

    Args:
        layout: The region's paths.
        encoder_loader: Opens the model by its folder, in place of the runtime.
        runtime: `onnx` asks exports where the release has them, `torch` the models themselves.

    Raises:
        NoReleaseError: nothing has been released yet.
        IntegrityError: a file is missing or has changed; names it and says what to do.
        UnsafeFileError: a part does not lie in the data root, or a file of it claims what it cannot hold.
        ModelMismatchError: encoder and index are of different models.
        SchemaVersionError: the release was written by newer code.
    """
    release_id, manifest = served_manifest(layout)
    folders = {name: layout.root / part["folder"] for name, part in manifest["parts"].items()}
    if "index" not in folders:
        raise NoReleaseError(
            f"release {release_id} has no index to look photos up in, only a classifier of cells",
            "Ask it with `geoloc predict --image-dir FOLDER --out FILE.csv`.",
        )
    return release_of(release_id, manifest, folders, encoder_loader or encoder_opener(folders, runtime))


def release_of(release_id: str, manifest: dict[str, Any], folders: Mapping[str, Path], encoder_loader: EncoderLoader) -> Release:
    """Encoder and index of a release whose files have been checked; raises ModelMismatchError."""
    index = load_index(folders["index"])
    encoder = encoder_loader(folders["model"])
    release = Release(release_id, manifest, encoder, index)
    release.predictor()  # refuses an encoder and an index of different models
    return release


def served_manifest(layout: Layout) -> tuple[str, dict[str, Any]]:
    """The id and the manifest of what is served, with every file that it stands for checked; raises as `load_release`."""
    fields = _pointer(layout)
    return str(fields["release"]), _verified_manifest(layout, fields["release"], fields["manifest_sha256"])


def served_id(layout: Layout) -> str:
    """Which release is served; nothing of it is checked.

    Raises:
        NoReleaseError: nothing has been released yet.
        IntegrityError: the pointer is damaged.
    """
    return str(_pointer(layout)["release"])


def _pointer(layout: Layout) -> dict[str, Any]:
    pointer = layout.releases / _CURRENT
    if not pointer.exists():
        raise NoReleaseError(f"{pointer} does not exist: nothing has been released")
    return read_pointer(pointer, _AGAIN)


def served_parts(layout: Layout) -> set[str]:
    """What the served release consists of; nothing of it is checked yet. Raises as `served_id`, also for its manifest."""
    release_id = served_id(layout)
    return set(storage.read_json(layout.releases / release_id / storage.MANIFEST)["parts"])


def cells_model_folder(layout: Layout) -> Path:
    """The released classifier of cells.

    Raises:
        NoReleaseError: nothing has been released, or no such classifier with it.
        IntegrityError: a file is missing or has changed.
    """
    release_id, manifest = served_manifest(layout)
    if "cells" not in manifest["parts"]:
        raise NoReleaseError(
            f"release {release_id} has no classifier of cells", "Name a model with --checkpoint, or add a recipe of kind `cells`."
        )
    return layout.root / manifest["parts"]["cells"]["folder"]


def _verified_manifest(layout: Layout, release_id: str, digest: str) -> dict[str, Any]:
    """The manifest of a release, with every file that it stands for checked."""
    file = layout.releases / release_id / storage.MANIFEST
    if not file.is_file():
        raise IntegrityError(f"{file} is missing", _AGAIN)
    if storage.sha256_file(file) != digest or digest[:12] != release_id:
        raise IntegrityError(f"{file} has changed since it was written (sha256 differs)", _AGAIN)
    manifest: dict[str, Any] = storage.read_json(file)
    if manifest["schema_version"] > storage.SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{file} has schema version {manifest['schema_version']}, this code knows {storage.SCHEMA_VERSION}"
        )
    for name, part in manifest["parts"].items():
        verify_folder(inside(layout.root, part["folder"], may_link=True), part["manifest_sha256"], remedy_of(name))
    return manifest
