from __future__ import annotations

from pathlib import Path

import pytest

from geoloc_dagster_tests.retrieval.city import City, build_city


@pytest.fixture
def city(tmp_path: Path) -> City:
    return build_city(tmp_path)
