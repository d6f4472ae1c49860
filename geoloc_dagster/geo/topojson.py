"""Decoding TopoJSON, in which polygons share their borders as arcs.

Source: https://github.com/topojson/topojson-specification (sections 2.1.2 to 2.1.4: transforms, arcs, arc indexes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Ring = list[list[float]]


def to_features(topology: dict[str, Any]) -> list[dict[str, Any]]:
    """The polygons of a topology as GeoJSON features, in the order of its objects.

    Raises:
        ValueError: an arc is missing or malformed.
        KeyError, TypeError, IndexError: a required member is missing or of another type.
    """
    arcs = _decode_arcs(topology)
    return [
        feature
        for name, entry in topology["objects"].items()
        for feature in _features(entry, arcs, {"object": name})  # the object's name stands in for missing properties
    ]


def _decode_arcs(topology: dict[str, Any]) -> list[Ring]:
    """Arcs in degrees: with a transform, their points are scaled steps from the point before."""
    transform: dict[str, Any] | None = topology.get("transform")
    arcs: list[Ring] = []
    for number, arc in enumerate(topology["arcs"]):
        points = np.asarray([point[:2] for point in arc], dtype=np.float64)
        if points.ndim != 2 or points.shape[0] < 2 or points.shape[1] != 2:
            raise ValueError(f"arc {number} is not a list of two or more positions")
        if transform is not None:
            points = np.cumsum(points, axis=0) * np.asarray(transform["scale"]) + np.asarray(transform["translate"])
        arcs.append(points.tolist())
    return arcs


def _features(entry: dict[str, Any], arcs: list[Ring], fallback: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind: Any = entry.get("type")
    properties: dict[str, Any] = fallback | (entry.get("properties") or {})
    if kind == "GeometryCollection":
        for part in entry["geometries"]:
            yield from _features(part, arcs, properties)
    elif kind == "Polygon":
        geometry = {"type": kind, "coordinates": _polygon(entry["arcs"], arcs)}
        yield {"type": "Feature", "properties": properties, "geometry": geometry}
    elif kind == "MultiPolygon":
        geometry = {"type": kind, "coordinates": [_polygon(rings, arcs) for rings in entry["arcs"]]}
        yield {"type": "Feature", "properties": properties, "geometry": geometry}


def _polygon(rings: list[list[int]], arcs: list[Ring]) -> list[Ring]:
    return [_ring(indexes, arcs) for indexes in rings]


def _ring(indexes: list[int], arcs: list[Ring]) -> Ring:
    """Join arcs end to end; ~i stands for arc i backwards, and joints are named twice."""
    ring: Ring = []
    for index in indexes:
        number = ~index if index < 0 else index
        if number >= len(arcs):
            raise ValueError(f"arc {number} does not exist; there are {len(arcs)}")
        arc = arcs[number][::-1] if index < 0 else arcs[number]
        ring.extend(arc[1:] if ring else arc)
    return ring
