"""One region and one running explorer for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.explorer.app import create_app
from geoloc_dagster_tests.explorer.city import build_region, loaded, region_settings


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return region_settings(tmp_path_factory.mktemp("explorer"), photos_per_minute=100_000)


@pytest.fixture(scope="session")
def layout(settings: Settings) -> Layout:
    return build_region(settings)


@pytest.fixture(scope="session")
def app(settings: Settings, layout: Layout) -> FastAPI:
    return create_app(settings, layout, load=lambda: loaded(settings, layout))


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1:8050", raise_server_exceptions=False) as client:
        app.state.explorer.serving.refresh()
        yield client
