"""Which pictures an export holds, in which order, at which version of the tables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute

from geoloc_dagster.config import Layout
from geoloc_dagster.errors import ExportError, IntegrityError
from geoloc_dagster.tables import open_table

pc: Any = pyarrow.compute  # its functions are made at run time
What = Literal["captures", "crops"]
_FACTS = [
    "capture_id", "batch", "provider", "pano_id", "location_id", "lat_deg", "lng_deg", "captured_on", "heading_deg", "pitch_deg",
    "fov_deg", "licence", "attribution", "creator", "source_url",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted.

    Attributes:
        what: pictures as collected, or the square crops.
        batches: only these; all where empty.
        series: only batches of these series, e.g. `100m`; all where empty.
        licences: only pictures under these; all where empty.
        restricted: also pictures that may not be passed on.
    """

    what: What = "captures"
    batches: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    restricted: bool = False

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class Pictures:
    """The selected rows of one version of a table, ordered by batch and capture_id.

    Args:
        layout: of the region.
        selection: what is wanted.
        version: of the table; the newest where None.

    Raises:
        ExportError: nothing matches.
        IntegrityError: the table is missing or damaged, or that version of it is gone.
    """

    def __init__(self, layout: Layout, selection: Selection, version: int | None = None) -> None:
        path = layout.panoramas if selection.what == "captures" else layout.crops
        self._table = _open(path, version)
        self.version = int(self._table.version)
        self.facts = _select(_facts(layout, self._table, selection.what), selection)
        if not self.facts.num_rows:
            raise ExportError("no picture matches", "Leave out --batch, --series or --licence, or collect them first.")

    def __len__(self) -> int:
        return self.facts.num_rows

    def licences(self) -> Counter[str]:
        """Pictures by licence."""
        return Counter(self.facts["licence"].to_pylist())

    def rows(self, first: int, count: int) -> list[dict[str, Any]]:
        """So many rows with their bytes under `image`, in order.

        Raises:
            IntegrityError: bytes are not those whose checksum was recorded when they came.
        """
        some = self.facts.slice(first, count)
        images = self._table.take(some["offset"].to_pylist(), columns=["capture_id", "sha256", "image"]).to_pylist()
        facts = some.drop_columns(["offset"]).to_pylist()
        for row, picture in zip(facts, images, strict=True):
            if row["capture_id"] != picture["capture_id"]:
                raise IntegrityError(f"row {row['capture_id']} is not where the table said")
            if hashlib.sha256(picture["image"]).hexdigest() != picture["sha256"]:
                raise IntegrityError(
                    f"the picture {row['capture_id']} is not the one that was stored: its checksum differs",
                    "Forget it with `geoloc forget --pano`, or restore the table from a backup.",
                )
            row["image"] = picture["image"]
        return facts

    def records(self, first: int, count: int) -> list[dict[str, Any]]:
        """The facts alone of so many rows, in order."""
        return self.facts.slice(first, count).drop_columns(["offset"]).to_pylist()


def _open(path: Path, version: int | None) -> Any:
    table = open_table(path, version)
    if table is None:
        raise IntegrityError(f"{path} is missing", "Collect pictures first: materialise `panoramas` and `crops`.")
    return table


def _facts(layout: Layout, table: Any, what: What) -> pa.Table:
    """Everything but the bytes, with the offset of each row; of crops completed by what their captures say."""
    known = set(table.schema.names)
    own = table.to_table(columns=[name for name in [*_FACTS, "image"] if name in known and name != "image"])
    own = own.append_column("offset", pa.array(range(own.num_rows), pa.int64()))
    if what == "captures":
        status = table.to_table(columns=["status", "sha256"])
        return own.filter(pc.and_(pc.equal(status["status"], "ok"), pc.is_valid(status["sha256"])))
    own = own.filter(pc.is_valid(table.to_table(columns=["sha256"])["sha256"]))
    missing = [name for name in _FACTS if name not in known]
    captures = _open(layout.panoramas, None).to_table(columns=["capture_id", *missing])
    return own.join(captures, keys="capture_id", join_type="left outer")


def _select(facts: pa.Table, selection: Selection) -> pa.Table:
    if selection.batches:
        facts = _only(facts, "batch", selection.batches)
    if selection.licences:
        facts = _only(facts, "licence", selection.licences)
    if selection.series:
        series = pc.list_element(pc.split_pattern(facts["batch"], "-", max_splits=1, reverse=True), 0)
        facts = facts.filter(pc.is_in(series, pa.array(selection.series)))
    return facts.select([*_FACTS, "offset"]).sort_by([("batch", "ascending"), ("capture_id", "ascending")])


def _only(facts: pa.Table, column: str, wanted: Sequence[str]) -> pa.Table:
    known = set(facts[column].unique().to_pylist())
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise ExportError(f"no picture has the {column} {unknown[0]!r}", f"There are: {', '.join(sorted(known)) or 'none'}.")
    return facts.filter(pc.is_in(facts[column], pa.array(wanted)))
