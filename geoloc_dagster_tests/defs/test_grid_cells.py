"""The graph with and without the section `grid_cells`: what it adds, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.defs.region import Region

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIVE = {"coverage": {"provider": "emulator"}, "capture": {"provider": "emulator"}}
LAND = {
    "region_boundary": set(),
    "grid_points": {"region_boundary"},
    "street_view_metadata": {"grid_points"},
    "buffer_csvs": {"region_boundary", "street_view_metadata"},
    "panoramas": {"buffer_csvs"},
}
LAND_CHECKS = {("street_view_metadata", "complete"), ("buffer_csvs", "spacing"), ("buffer_csvs", "inside_boundary")}


def graph_of(region: Region) -> tuple[dict[str, set[str]], set[tuple[str, str]], dict[str, str | None]]:
    """Inputs of each asset up to the pictures, their checks, and what the assets and schedules say of themselves."""
    defs = build_definitions(settings=region.settings)
    graph = defs.resolve_asset_graph()
    inputs = {key.path[-1]: {dep.path[-1] for dep in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()}
    checks = {(key.asset_key.path[-1], key.name) for key in graph.asset_check_keys}
    said = {key.path[-1]: graph.get(key).description for key in graph.get_all_asset_keys()}
    said |= {schedule.name: schedule.description for schedule in defs.schedules or []}
    names = [*LAND, "grid_cells"]
    return {n: inputs[n] for n in names if n in inputs}, {c for c in checks if c[0] in names}, said


def test_without_the_section_the_graph_is_what_it_was(make_region: Callable[..., Region]) -> None:
    inputs, checks, said = graph_of(make_region(**LIVE))
    assert inputs == LAND
    assert checks == LAND_CHECKS
    assert said["aland_nightly_lookups"] == "Asks about the next 20,000 grid points, nearest to the start first."
    assert str(said["grid_points"]).startswith("Points `grid.spacing_m` apart inside the boundary")


def test_the_section_adds_the_cells_and_their_check(make_region: Callable[..., Region]) -> None:
    inputs, checks, said = graph_of(make_region(**LIVE, grid_cells={}))
    assert inputs == {
        **LAND,
        "grid_cells": {"region_boundary"},
        "grid_points": {"region_boundary", "grid_cells"},
        "buffer_csvs": {"region_boundary", "grid_cells", "street_view_metadata"},
    }
    assert checks == LAND_CHECKS | {("buffer_csvs", "cells")}
    assert said["aland_nightly_lookups"] == "Asks about the next 20,000 grid points, in rounds over the cells."


@pytest.mark.parametrize("name", ["geoloc.yaml", "emulator.yaml"])
def test_the_example_of_a_country_loads_and_has_cells(name: str) -> None:
    settings = load_settings(EXAMPLES / "usa" / name, environ={})
    assert (settings.region.boundary_part, settings.capture.headings_deg) == ("largest", [0, 90, 180])
    assert build_definitions(settings=settings).resolve_asset_graph().has(Region(settings).key("grid_cells"))
