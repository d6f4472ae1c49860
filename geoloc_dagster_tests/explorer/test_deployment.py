"""After a release: do the explorers that run serve it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.explorer import ExplorerSettings
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.errors import ExplorerUnreachableError
from geoloc_dagster.explorer.app import create_app
from geoloc_dagster.explorer.deployment import await_served
from geoloc_dagster.prediction.release import served_id
from geoloc_dagster_tests.defs.conftest import make_region as make_region
from geoloc_dagster_tests.explorer.city import loaded
from geoloc_dagster_tests.explorer.server import running


@pytest.fixture(scope="module")
def port(settings: Settings, layout: Layout) -> Iterator[int]:
    # One of its own: an app ends for good with the server that ran it.
    with running(create_app(settings, layout, load=lambda: loaded(settings, layout))) as port:
        yield port


def health(*served: str | None, problem: str | None = None) -> httpx2.MockTransport:
    """An explorer that says at each question the next of these releases, and the last for ever."""
    left = list(served)

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/health"
        said = left.pop(0) if len(left) > 1 else left[0]
        return httpx2.Response(200, json={"status": "ok", "release": said, "problem": problem})

    return httpx2.MockTransport(answer)


def test_an_explorer_that_runs_serves_what_was_released(port: int, layout: Layout):
    release = served_id(layout)
    (one,) = await_served([f"http://127.0.0.1:{port}/"], release, most_s=30)
    assert one.seconds < 30


def test_it_waits_until_the_release_is_loaded():
    (one,) = await_served(["http://explorer"], "new", most_s=30, transport=health("old", None, "new"))
    assert one.seconds >= 1


@pytest.mark.parametrize(
    ("transport", "why"),
    [
        (health("other"), "it serves other, perhaps of another region"),
        (health(None), "it serves none yet"),
        (health("other", problem="a file has changed."), "a file has changed"),
        (httpx2.MockTransport(lambda _: httpx2.Response(200, text="<html>")), "no explorer .status 200"),
        (httpx2.MockTransport(lambda _: httpx2.Response(401, json={"detail": "no"})), "no explorer .status 401"),
    ],
)
def test_one_that_does_not_serve_it_is_named_and_why(transport: httpx2.MockTransport, why: str):
    with pytest.raises(ExplorerUnreachableError, match=f"http://explorer does not serve release new: .*{why}") as refused:
        await_served(["http://explorer"], "new", most_s=0.1, transport=transport)
    assert "explorer_deployment" in refused.value.remedy


def test_one_that_is_not_there_is_named():
    with pytest.raises(ExplorerUnreachableError, match=r"it does not answer \(ConnectError\)"):
        await_served(["http://127.0.0.1:9"], "new", most_s=0.1)


def test_the_graph_waits_for_explorers_only_where_some_are_named(make_region: Callable[..., Any]):
    def assets(**explorer: Any) -> dict[str, set[str]]:
        graph = build_definitions(settings=make_region(explorer=explorer).settings).resolve_asset_graph()
        return {key.path[-1]: {up.path[-1] for up in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()}

    assert "explorer_deployment" not in assets()
    assert assets(urls=["http://127.0.0.1:8050"])["explorer_deployment"] == {"release"}


@pytest.mark.parametrize("url", ["127.0.0.1:8050", "ftp://a", "http://name:word@host", "http://host?x=1"])
def test_an_address_that_cannot_be_one_is_refused(url: str):
    with pytest.raises(ValueError, match="an address such as"):
        ExplorerSettings(urls=[url])
