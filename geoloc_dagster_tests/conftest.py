"""Fixtures that more than one part of the tests needs."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests share cores with each other; threads that spin starve their neighbours
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["GEOLOC_STATE"] = tempfile.mkdtemp(prefix="geoloc-state-")  # what this host's real collections share is left alone

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs; tests that need it are skipped, with the reason, where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GEOLOC_SHARED_DATA", default))
    if not (folder / "stockholm").is_dir():
        pytest.skip(f"real inputs not found at {folder}; set GEOLOC_SHARED_DATA to their folder")
    return folder
