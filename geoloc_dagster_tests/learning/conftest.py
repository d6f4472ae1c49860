"""The tiny city, written once."""

from __future__ import annotations

import pytest

from geoloc_dagster_tests.learning.city import City, make_city


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return make_city(tmp_path_factory.mktemp("city"), locations=9, dev_locations=3)
