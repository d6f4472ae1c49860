"""Polygons, grids, spacing, distances and partition keys: pure functions, numpy in and out."""
