"""Checks that come out of the same pass over the data as the asset, and checks on whether a fan-in is still up to date.

Blocking checks sit on unpartitioned assets only: on partitioned ones a failure of one batch would hold up the others.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

import dagster as dg

from geoloc_dagster.defs.region import Region

if TYPE_CHECKING:
    from geoloc_dagster.dataset.registration import Registration


def coverage_complete(region: Region, points_left: int) -> dg.AssetCheckResult:
    """Whether every grid point has an answer; a warning, because a city takes several nights."""
    return dg.AssetCheckResult(
        check_name="complete",
        asset_key=region.key("street_view_metadata"),
        passed=points_left == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"not_looked_up": points_left},
    )


def spacing_check(region: Region, registration: "Registration") -> list[dg.AssetCheckResult]:
    """Spacing (a warning for imported CSVs, which are kept as published) and containment of the registered locations."""
    close = registration.close_pairs
    severity = dg.AssetCheckSeverity.WARN if registration.imported else dg.AssetCheckSeverity.ERROR
    return [
        dg.AssetCheckResult(
            check_name="spacing",
            asset_key=region.key("buffer_csvs"),
            passed=sum(close.values()) == 0,
            severity=severity,
            metadata={"pairs_too_close": sum(close.values()), **{f"pairs_{series}": n for series, n in close.items()}},
        ),
        dg.AssetCheckResult(
            check_name="inside_boundary",
            asset_key=region.key("buffer_csvs"),
            passed=registration.outside == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"locations_outside": registration.outside},
        ),
    ]


def cells_check_spec(region: Region) -> dg.AssetCheckSpec:
    """The check of `cells_check`; only where the region has grid cells."""
    return dg.AssetCheckSpec(
        "cells", asset=region.key("buffer_csvs"), description="Every cell has as many locations as it wants."
    )


def cells_check(region: Region, registration: "Registration") -> list[dg.AssetCheckResult]:
    """How many cells are short of locations and by how many: a warning, because a desert has no more street views than it has."""
    counts = registration.cells
    if counts is None:
        return []
    return [
        dg.AssetCheckResult(
            check_name="cells",
            asset_key=region.key("buffer_csvs"),
            passed=counts.cells_short == 0 and counts.samples_renumbered == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=asdict(counts),
        )
    ]


def drift_check_spec(region: Region) -> dg.AssetCheckSpec:
    """The check of `drift_check`."""
    return dg.AssetCheckSpec(
        "drift", asset=region.key("champion"), description="The champion does as well on what is new as it did before."
    )


def drift_check(region: Region) -> dg.AssetCheckResult:
    """Whether any champion is shown to do worse on what is new; a warning, because what is served is still the best there is."""
    from geoloc_dagster.prediction.drift import measure_drift
    from geoloc_dagster.prediction.parts import KINDS

    numbers: dict[str, float | int | str] = {}
    worse: list[str] = []
    for kind in KINDS:
        pointer = region.layout.champion_of(kind)
        for drift in measure_drift(region.layout, region.settings.drift, pointer) if pointer.is_file() else []:
            name = f"{kind}_{drift.window.split()[0]}"
            numbers[name] = drift.said
            if drift.new is not None and drift.earlier is not None:
                numbers |= {
                    f"{name}_share": drift.new.mean,
                    f"{name}_earlier": drift.earlier.mean,
                    f"{name}_at_best": drift.at_best,
                }
                numbers[f"{name}_queries"] = drift.new.n_queries
            worse += [f"{kind}: {drift.said}"] if drift.worse else []
    return dg.AssetCheckResult(
        check_name="drift",
        asset_key=region.key("champion"),
        passed=not worse,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(worse) or None,
        metadata=numbers,
    )


def build_checks(region: Region) -> list[dg.AssetChecksDefinition]:
    """Whether the fan-ins have seen the newest version of the tables they read; the UI's own badge gives up at 100 partitions."""

    @dg.asset_check(asset=region.key("catalog"), name="up_to_date", description="The catalog was built from the newest crops.")
    def catalog_up_to_date(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return _compare(context, region, "catalog", "crops_version", region.layout.crops)

    @dg.asset_check(
        asset=region.key("faiss_index"), name="up_to_date", description="The index was built from the newest embeddings."
    )
    def index_up_to_date(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return _compare(context, region, "faiss_index", "embeddings_version", region.layout.embeddings)

    return [catalog_up_to_date, *([index_up_to_date] if region.recipes_of("retrieval") else [])]


def _compare(context: dg.AssetCheckExecutionContext, region: Region, asset: str, fact: str, table: object) -> dg.AssetCheckResult:
    from pathlib import Path

    from geoloc_dagster.dataset.table_upkeep import content_version
    from geoloc_dagster.tables import table_version

    event = context.instance.get_latest_materialization_event(region.key(asset))
    seen = None
    if event is not None and event.asset_materialization is not None:
        entry = event.asset_materialization.metadata.get(fact)
        seen = None if entry is None else entry.value
    newest = table_version(Path(str(table)))
    return dg.AssetCheckResult(
        passed=seen in (newest, content_version(Path(str(table)))),  # the same rows in fewer files are no news
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"built_from_version": str(seen), "newest_version": str(newest)},
    )
