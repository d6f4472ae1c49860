"""A failed run is told to a webhook on this machine: what is said, what is not, and that a broken webhook breaks nothing."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from geoloc_dagster.alerts import Alert, post_alert
from geoloc_dagster.defs.region import Region
from geoloc_dagster.errors import ServiceUnavailableError
from geoloc_dagster_tests.defs.conftest import BATCHES, Graph

SECRET = "s3cr3t-token"
ALERT = Alert(
    "aland", "job", "crops", "100m-0000", "GateError", "GEO-403", "quality", "run-1", "http://ui/runs/run-1", "2026-01-01"
)


@dataclass
class Receiver:
    """A webhook that remembers what it was sent and answers as it is told."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    delay_s: float = 0
    got: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            state.got.append({"path": self.path, "type": self.headers["Content-Type"], **json.loads(content)})
            released.wait(state.delay_s)
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/hooks/{SECRET}"
    yield state
    released.set()
    server.shutdown()
    server.server_close()


def test_an_alert_is_one_json_document(receiver: Receiver) -> None:
    assert post_alert(receiver.url, ALERT, timeout_s=5) is None
    (got,) = receiver.got
    assert (got["path"], got["type"]) == (f"/hooks/{SECRET}", "application/json")
    assert (got["region"], got["asset"], got["partition"]) == ("aland", "crops", "100m-0000")
    assert got["text"] == "aland: crops [100m-0000] failed: GEO-403 GateError, http://ui/runs/run-1"


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_is_told_by_its_status(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": receiver.url}
    assert post_alert(receiver.url, ALERT, timeout_s=5) == f"the webhook answered HTTP {status}"
    assert len(receiver.got) == 1  # and a redirect is not followed


def test_a_webhook_that_does_not_answer_is_given_up_in_time(receiver: Receiver) -> None:
    receiver.delay_s = 20
    started = time.monotonic()
    problem = post_alert(receiver.url, ALERT, timeout_s=0.5)
    assert time.monotonic() - started < 5
    assert problem in ("the webhook did not answer within 0.5 s", "the webhook cannot be reached (TimeoutError)")


def test_one_that_drips_a_byte_at_a_time_is_given_up_too() -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                while not ended.wait(0.05):
                    connection.send(b"H")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/{SECRET}"
        assert post_alert(address, ALERT, timeout_s=1) == "the webhook did not answer within 1 s"
        ended.set()
        thread.join(5)


@pytest.mark.parametrize(
    "address", [f"http://127.0.0.1:1/{SECRET}", f"ftp://x/{SECRET}", f"/{SECRET}", f"http://[{SECRET}", f"http://a b/{SECRET}"]
)
def test_a_broken_address_is_a_sentence_without_the_address(address: str) -> None:
    problem = post_alert(address, ALERT, timeout_s=5)
    assert problem
    assert SECRET not in problem


# --- the sensor -------------------------------------------------------------------------------------------------------
def fail(graph: Graph, monkeypatch: pytest.MonkeyPatch, error: Exception) -> dg.RunFailureSensorContext:
    """A run of `crops` that fails with this error, as the sensor is told of it."""
    import geoloc_dagster.dataset.crops as module

    def write_crops(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(module, "write_crops", write_crops)
    job = graph.defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=graph.instance,
        asset_selection=[graph.region.key("crops")],
        partition_key=BATCHES[0],
        raise_on_error=False,
    )
    context = dg.build_run_status_sensor_context(
        f"{graph.region.name}_failure_alerts",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=graph.instance,
        dagster_run=result.dagster_run,
        resources={"webhook": graph.defs.resources["webhook"]},
    )
    return context.for_run_failure()


def tell(graph: Graph, context: dg.RunFailureSensorContext) -> str | None:
    """What the sensor says: nothing where the webhook took it."""
    answer = graph.defs.resolve_sensor_def(f"{graph.region.name}_failure_alerts")(context)
    return answer.skip_message if isinstance(answer, dg.SkipReason) else None


def test_a_failed_step_is_told_with_its_class_and_without_what_its_message_says(
    graph: Graph, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOLOC_WEBHOOK_URL", receiver.url)
    error = ServiceUnavailableError("could not read /home/ann/private/key.txt of ann@example.org")
    context = fail(graph, monkeypatch, error)
    assert tell(graph, context) is None
    (got,) = receiver.got
    run_id = context.dagster_run.run_id
    assert {name: got[name] for name in ("region", "asset", "partition", "error_class", "code", "failure_class")} == {
        "region": "aland", "asset": "crops", "partition": BATCHES[0], "error_class": "ServiceUnavailableError", "code": "GEO-308",
        "failure_class": "network",
    }  # fmt: skip
    assert got["url"] == f"http://127.0.0.1:3000/runs/{run_id}"
    assert got["failed_at"].startswith("20")
    assert not [word for word in ("ann", "private", "example.org") if word in json.dumps(got)]


def test_an_unexpected_error_is_told_by_its_class(graph: Graph, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOLOC_WEBHOOK_URL", receiver.url)
    assert tell(graph, fail(graph, monkeypatch, ZeroDivisionError("1 / 0"))) is None
    (got,) = receiver.got
    assert (got["error_class"], got["code"]) == ("ZeroDivisionError", None)


def test_the_link_is_that_of_the_configuration(
    make_region: Callable[..., Region], instance: dg.DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_HOOK", receiver.url)
    sections = {"explorer": {"dagster_url": "https://dagster.example.org"}, "alerts": {"webhook_variable": "MY_HOOK"}}
    graph = Graph(make_region(**sections), instance)
    context = fail(graph, monkeypatch, ValueError("x"))
    tell(graph, context)
    assert receiver.got[0]["url"] == f"https://dagster.example.org/runs/{context.dagster_run.run_id}"


def test_a_failing_webhook_is_said_and_raises_nothing_and_the_secret_is_in_no_log(
    graph: Graph, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 503
    monkeypatch.setenv("GEOLOC_WEBHOOK_URL", receiver.url)
    with caplog.at_level(logging.DEBUG):
        context = fail(graph, monkeypatch, ValueError("x"))
        assert tell(graph, context) == "the webhook answered HTTP 503"
    events = graph.instance.all_logs(context.dagster_run.run_id)
    assert SECRET not in caplog.text + "".join(str(event) for event in events)
    assert graph.instance.get_runs_count() == 1


def test_without_an_address_nobody_is_told_and_that_is_said(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEOLOC_WEBHOOK_URL", raising=False)
    assert tell(graph, fail(graph, monkeypatch, ValueError("x"))) == "GEOLOC_WEBHOOK_URL is not set, so nobody is told"
