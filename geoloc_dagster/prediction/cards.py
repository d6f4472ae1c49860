"""Cards as folders that never change: Markdown for people, the same as JSON, and a manifest, so that a release can name them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geoloc_dagster import storage
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.guards import inside
from geoloc_dagster.retrieval.pointer import read_pointer, write_pointer

CardKind = Literal["model_card", "data_card"]
_REMEDY = "Materialise `model_card` and `data_card` again; the last good release stays served."


@dataclass(frozen=True, slots=True)
class Card:
    """A card as it was written.

    Attributes:
        folder: holds `CARD.md` and `facts.json` under a manifest.
        text: of `CARD.md`.
        facts: of `facts.json`.
    """

    kind: CardKind
    folder: Path
    text: str
    facts: dict[str, Any]


def publish_card(layout: Layout, kind: CardKind, text: str, facts: Mapping[str, Any]) -> Card:
    """Write a card below the data root and make it the newest of its kind; the same content gives the same folder.

    Raises:
        DataRootError, DiskFullError: it cannot be written.
    """
    content = json.dumps({"text": text, "facts": facts}, sort_keys=True).encode()
    folder = layout.cards / f"{kind.replace('_', '-')}-{hashlib.sha256(content).hexdigest()[:12]}"
    if not (folder / storage.MANIFEST).is_file():
        with storage.atomic_folder(folder) as temporary:
            storage.write_bytes(temporary / "CARD.md", text.encode())
            storage.write_json(temporary / "facts.json", dict(facts))
            storage.write_manifest(temporary, kind=kind)
    write_pointer(_pointer(layout, kind), {"card": folder.name})
    return Card(kind, folder, text, dict(facts))


def newest_card(layout: Layout, kind: CardKind) -> Card | None:
    """The newest card of a kind, checked; None where none was written.

    Raises:
        IntegrityError: a file of it has changed.
    """
    if not _pointer(layout, kind).is_file():
        return None
    folder = inside(layout.cards, read_pointer(_pointer(layout, kind), _REMEDY).get("card"))
    storage.verify_manifest(folder, remedy=_REMEDY)
    return Card(kind, folder, (folder / "CARD.md").read_text(), storage.read_json(folder / "facts.json"))


def _pointer(layout: Layout, kind: CardKind) -> Path:
    return layout.cards / f"{kind}.json"
