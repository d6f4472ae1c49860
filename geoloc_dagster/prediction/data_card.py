"""The data card: which pictures a region holds, whose they are, what was taken down, and what may be done with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from geoloc_dagster import storage
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.evaluation.tables import NONE, markdown_table
from geoloc_dagster.imagery.licences import is_reserved
from geoloc_dagster.prediction.cards import Card, publish_card
from geoloc_dagster.tables import open_table, table_version

_LISTED: Final = 40  # rows of a table; the facts have all of them
_COLUMNS: Final = ["provider", "source", "licence", "attribution", "captured_on", "status", "redacted_boxes"]


def make_data_card(settings: Settings, layout: Layout) -> Card:
    """Write the card of the captures and of the catalog as they are.

    Raises:
        IntegrityError: there is no catalog yet, or a table is damaged.
        DataRootError, DiskFullError: it cannot be written.
    """
    catalog = storage.read_parquet(layout.catalog, ["split", "usable", "year", "district", "licence", "location_id", "flags"])
    facts = {
        "region": settings.region.name,
        "permission": settings.capture.permission,
        "versions": {
            "panoramas": table_version(layout.panoramas),
            "crops": table_version(layout.crops),
            "catalog_sha256": storage.sha256_file(layout.catalog),
        },
        "captures": _captures(layout),
        "catalog": _catalog(catalog),
        "taken_down": taken_down(layout),
    }
    return publish_card(layout, "data_card", _markdown(facts), facts)


def taken_down(layout: Layout) -> dict[str, int]:
    """How many captures were taken down, and by how many requests of which kind; whom they were about is not told."""
    table = open_table(layout.tombstones)
    if table is None:
        return {"captures": 0}
    kinds = Counter(table.to_table(columns=["kind"])["kind"].to_pylist())
    requests = {f"requests_{kind}": count for kind, count in sorted(kinds.items()) if kind != "capture"}
    return {"captures": kinds["capture"], **requests}


def _captures(layout: Layout) -> dict[str, Any]:
    table = open_table(layout.panoramas)
    if table is None:
        return {"rows": 0, "failed": 0, "blurred": 0, "by_source": {}, "by_licence": {}, "attributions": []}
    whole = table.to_table(columns=_COLUMNS)
    rows = whole.filter(pc.field("status") == "ok")
    sources = [f"{provider}: {source}" for provider, source in zip(*(rows[c].to_pylist() for c in _COLUMNS[:2]), strict=True)]
    named = rows.group_by(["attribution", "licence"]).aggregate([([], "count_all")]).to_pylist()
    attributions = [[row["attribution"], row["licence"], row["count_all"]] for row in named]
    blurred = rows.filter(pc.field("redacted_boxes") > 0).num_rows
    return {
        "rows": rows.num_rows,
        "failed": whole.num_rows - rows.num_rows,
        "blurred": blurred,
        "by_source": _counts(sources),
        "by_licence": _counts(rows["licence"].to_pylist()),
        "attributions": sorted(attributions, key=lambda one: (-one[2], one[0], one[1])),
    }


def _catalog(rows: pa.Table) -> dict[str, Any]:
    usable = rows.filter(pc.field("usable"))
    years = ["undated" if year is None else str(year) for year in usable["year"].to_pylist()]
    flags = Counter(flag for row in rows["flags"].to_pylist() for flag in row)
    return {
        "rows": rows.num_rows,
        "usable": usable.num_rows,
        "locations": len(set(usable["location_id"].to_pylist())),
        "by_split": _counts(usable["split"].to_pylist()),
        "by_year": dict(sorted(_counts(years).items())),
        "by_district": _counts(usable["district"].to_pylist()),
        "flags": dict(sorted(flags.items())),
    }


def _counts(values: Sequence[str]) -> dict[str, int]:
    """How often each value occurs, the commonest first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _markdown(facts: Mapping[str, Any]) -> str:
    captures, catalog, versions = facts["captures"], facts["catalog"], facts["versions"]
    lead = (
        f"{captures['rows']:,} captures, {captures['failed']:,} views without a picture. The catalog has {catalog['rows']:,} "
        f"rows, {catalog['usable']:,} of them usable, at {catalog['locations']:,} locations."
    )
    parts = [
        f"# Data card: {facts['region']}",
        lead,
        f"Captures table version {versions['panoramas']}, crops table version {versions['crops']}, catalog sha256 "
        f"`{versions['catalog_sha256'][:12]}`.",
        "## Whose they are",
        _table("licence", captures["by_licence"], "captures"),
        _attributions(captures["attributions"]),
        "\n".join(f"- {line}" for line in _terms(facts)),
        "## Where they are from",
        _table("source", captures["by_source"], "captures"),
        "## What they show",
        _table("capture year", catalog["by_year"], "usable rows"),
        _table("district", catalog["by_district"], "usable rows"),
        _table("split", catalog["by_split"], "usable rows"),
        _table("flag", catalog["flags"], "rows") if catalog["flags"] else "No row carries a flag.",
        "## What was taken down",
        _taken_down(facts["taken_down"]),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(facts)),
    ]
    return "\n\n".join(parts) + "\n"


def _table(name: str, counts: Mapping[str, int], what: str) -> str:
    shown = list(counts.items())[:_LISTED]
    rows = [[key, f"{count:,}"] for key, count in shown] or [[NONE, "0"]]
    rest = len(counts) - len(shown)
    more = f"\n\nand {rest:,} more with {sum(list(counts.values())[_LISTED:]):,}" if rest > 0 else ""
    return markdown_table([name, what], rows) + more


def _attributions(named: Sequence[Sequence[Any]]) -> str:
    rows = [[str(who), str(licence), f"{count:,}"] for who, licence, count in named[:_LISTED]]
    rest = len(named) - len(rows)
    more = f"\n\nand {rest:,} more, all of them in `facts.json`" if rest > 0 else ""
    return markdown_table(["whom to name", "licence", "captures"], rows or [[NONE, NONE, "0"]]) + more


def _terms(facts: Mapping[str, Any]) -> list[str]:
    licences: Mapping[str, int] = facts["captures"]["by_licence"]
    reserved = sum(count for licence, count in licences.items() if is_reserved(licence))
    unknown = licences.get("NOASSERTION", 0)
    lines = [f"{reserved:,} captures are proprietary and may not be passed on."] if reserved else []
    lines += [f"Nobody has said under which licence {unknown:,} captures are."] if unknown else []
    if facts["permission"]:
        lines.append(f"Storing them and training on them is permitted by: {facts['permission']}.")
    return lines or ["Every capture is under a licence that allows keeping it; name whom the table names."]


def _taken_down(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return "Nothing was asked to be taken down."
    requests = ", ".join(f"{count:,} by {kind.removeprefix('requests_')}" for kind, count in counts.items() if kind != "captures")
    return f"{counts['captures']:,} captures, on these requests: {requests}. They are deleted, and never fetched again."


def _limits(facts: Mapping[str, Any]) -> list[str]:
    captures, catalog = facts["captures"], facts["catalog"]
    dated = {year: count for year, count in catalog["by_year"].items() if year != "undated"}
    lines: list[str] = []
    if dated:
        year, count = max(dated.items(), key=lambda item: item[1])
        oldest, newest = min(dated), max(dated)
        lines.append(
            f"Captured from {oldest} to {newest}; {count / max(1, catalog['usable']):.0%} of the usable rows are of {year}."
        )
    if catalog["by_year"].get("undated"):
        lines.append(f"{catalog['by_year']['undated']:,} usable rows have no date.")
    if catalog["by_district"]:
        name, count = next(iter(catalog["by_district"].items()))
        lines.append(f"District {name} holds {count / max(1, catalog['usable']):.0%} of the usable rows; districts are not even.")
    lines.append(
        f"Parts of {captures['blurred']:,} captures were blurred here; what else their providers blur is theirs, and people and "
        "number plates can be seen where neither did."
    )
    return lines
