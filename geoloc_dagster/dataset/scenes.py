"""The scenes that photos are divided into, in the order of their numbers."""

from __future__ import annotations

SCENES = ("indoor", "natural", "urban")
PROBABILITIES = tuple(f"prob_{scene}" for scene in SCENES)
"""Columns of how likely each is."""
