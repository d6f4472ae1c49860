"""The champion: the one trained model that is embedded, indexed and served; a pointer names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.errors import IntegrityError, NoReleaseError
from geoloc_dagster.guards import inside
from geoloc_dagster.retrieval.embedding import EmbeddingResult, embed_batch
from geoloc_dagster.retrieval.pointer import read_pointer, write_pointer
from geoloc_dagster.scale.engine import LOCAL, Engine

if TYPE_CHECKING:
    from geoloc_dagster.learning.encoder import Encoder

_PROMOTE_AGAIN = "Materialise `champion` again; the last good release stays served."
_RETRAIN = (
    "Restore that folder from a backup, or materialise `checkpoints` and `champion` again; the last good release stays served."
)


@dataclass(frozen=True, slots=True)
class Champion:
    """The promoted model: where it lies, and why it was promoted."""

    model_version: str
    recipe: str
    folder: Path
    promoted_at: str
    reason: str
    evaluation: dict[str, Any]


def promote(
    layout: Layout,
    model_version: str,
    evaluation: dict[str, Any],
    now: datetime,
    reason: str,
    pointer: Path | None = None,
) -> Champion:
    """Make a trained model the champion, after checking its files.

    Args:
        layout: The region's paths.
        model_version: Name of its folder below `checkpoints/<recipe>/`.
        evaluation: Plain numbers to keep beside it, e.g. its recall.
        now: Time of the promotion.
        reason: Why, in words.
        pointer: Of its kind; that of retrieval without it.

    Raises:
        IntegrityError: the model is not there, or one of its files has changed.
    """
    found = sorted(layout.checkpoints.glob(f"*/{model_version}/{storage.MANIFEST}"))
    if len(found) != 1:
        where = "no folder" if not found else f"{len(found)} folders"
        raise IntegrityError(f"{where} below {layout.checkpoints} holds model {model_version}", _RETRAIN)
    folder = found[0].parent
    storage.verify_manifest(folder, remedy=_RETRAIN)
    fields = {
        "model_version": model_version,
        "recipe": folder.parent.name,
        "folder": str(folder.relative_to(layout.root)),
        "manifest_sha256": storage.sha256_file(folder / storage.MANIFEST),
        "promoted_at": now.isoformat(),
        "reason": reason,
        "evaluation": evaluation,
    }
    write_pointer(pointer or layout.champion, fields)
    return _champion(layout, fields)


def read_champion(layout: Layout, pointer: Path | None = None) -> Champion:
    """The promoted model, every byte of it checked; of retrieval, or of the kind whose pointer is given.

    Raises:
        NoReleaseError: nothing has been promoted yet.
        IntegrityError: the pointer or a file of the model has changed.
        UnsafeFileError: the model does not lie in the data root.
    """
    pointer = pointer or layout.champion
    if not pointer.exists():
        raise NoReleaseError(f"{pointer} does not exist: no model has been promoted")
    fields = read_pointer(pointer, _PROMOTE_AGAIN)
    verify_folder(_folder(layout, fields), fields["manifest_sha256"], _RETRAIN)
    return _champion(layout, fields)


def embed_champion(
    layout: Layout, batch: str, progress: Callable[[int, int], None] | None = None, engine: Engine = LOCAL
) -> EmbeddingResult:
    """Embed the crops of a batch with the champion; raises as `read_champion` and `embed_batch` do."""
    folder = read_champion(layout).folder  # refused before torch is even imported
    return embed_batch(
        open_encoder(folder), layout.crops, layout.embeddings, batch, progress=progress, engine=engine, model_folder=folder
    )


def open_encoder(folder: Path) -> Encoder:
    """The network of retrieval in a folder, ready to embed; torch is imported here and not before."""
    from geoloc_dagster.learning.encoder import load_encoder

    return load_encoder(folder)


def verify_folder(folder: Path, manifest_sha256: str, remedy: str) -> None:
    """Check every file of a folder, the manifest by the sha256 that was recorded elsewhere and the rest by the manifest."""
    manifest = folder / storage.MANIFEST
    if not manifest.is_file():
        raise IntegrityError(f"{manifest} is missing", remedy)
    if storage.sha256_file(manifest) != manifest_sha256:
        raise IntegrityError(f"{manifest} has changed since it was written (sha256 differs)", remedy)
    storage.verify_manifest(folder, remedy=remedy)


def _champion(layout: Layout, fields: dict[str, Any]) -> Champion:
    return Champion(
        model_version=fields["model_version"],
        recipe=fields["recipe"],
        folder=_folder(layout, fields),
        promoted_at=fields["promoted_at"],
        reason=fields["reason"],
        evaluation=fields["evaluation"],
    )


def _folder(layout: Layout, fields: dict[str, Any]) -> Path:
    return inside(layout.root, fields["folder"], may_link=True)
