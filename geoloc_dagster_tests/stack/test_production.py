"""Production on one machine: a login before every page, secrets nowhere but in their files, and faults that lose nothing.

One stack serves all tests of this file, in their order: first what it is like while all is well, then the faults.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websocket import WebSocketBadStatusException, create_connection

from geoloc_dagster.stack import secrets
from geoloc_dagster_tests.docker import finder
from geoloc_dagster_tests.stack.driver import LIMIT, RunningStack, open_folder, running_stack, write_slow_region

KEPT = {  # what the user's environment holds for the code server, beside the passwords that the stack makes
    "GEOLOC_SERVICE_KEY": "sesame-of-the-user",
    "GEOLOC_SERVICE_SECRET": "c2VzYW1lLXRoYXQtc2lnbnM=",
    "GEOLOC_PROXY_CREDENTIALS": "user:sesame-of-the-way-out",
}
TICKS_OF = """{ sensorOrError(sensorSelector: {repositoryName: "__repository__", repositoryLocationName: "slow",
    sensorName: "slow_failure_alerts"}) { ... on Sensor { sensorState { ticks(limit: 20) { skipReason } } } } }"""
REFUSE = """mutation { launchPipelineExecution(executionParams: {mode: "default", runConfigData: {}, selector: {
    repositoryLocationName: "slow", repositoryName: "__repository__", pipelineName: "__ASSET_JOB",
    assetSelection: [{path: ["slow", "refused"]}]}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TICKS, PARTITIONS = 32, ("oslo", "bergen", "tromso")
OUTAGE_S = 15.0
JSON = "application/json"
LAUNCH_BY_GET = "/graphql?query=mutation%7BsetConcurrencyLimit(concurrencyKey%3A%22x%22%2Climit%3A1)%7D"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def require_programs() -> None:
    """Skip without the programs, but not where tests must not be skipped."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") and list(
        Path("/usr/lib/postgresql").glob("*/bin/initdb")
    )
    if not found:
        assert os.environ.get("CI") != "true", "PostgreSQL or nginx is missing: apt-get install postgresql nginx-light"
        pytest.skip("PostgreSQL or nginx is missing: apt-get install postgresql nginx-light")


class Hook(BaseHTTPRequestHandler):
    """A webhook that refuses what it is told."""

    told: list[tuple[str, str]] = []  # noqa: RUF012 - of the class on purpose: a handler lives for one connection

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.told.append((self.path, said["run_id"]))
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def hook() -> Generator[str]:
    """The address of a webhook, which is a secret."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hooks/sesame-of-the-webhook"
        server.shutdown()


@pytest.fixture(scope="module")
def stack(hook: str) -> Generator[RunningStack]:
    require_programs()
    quick = ["--no-mlflow", "--poll-s", "2", "--free-slots-s", "5", "--grace-s", "10", "--max-runs", "2"]
    with open_folder() as folder:
        region = write_slow_region(folder)
        trial = {"TRIAL_TICKS": str(TICKS), "TRIAL_TICK_S": "0.2", "GEOLOC_WEBHOOK_URL": hook, **KEPT}
        with running_stack(region, *quick, held=("daemon",), **trial) as up:
            up.graphql(LIMIT, n=2)
            yield up


def ports(stack: RunningStack) -> dict[str, int]:
    """Of the pages that this stack serves."""
    return {"dagster": stack.port, "explorer": stack.port + 2}


def test_no_page_opens_without_the_login(stack: RunningStack) -> None:
    for page, port in ports(stack).items():
        assert stack.request("GET", "/", port=port, login=False)[0] == 401, page
        wrong = "Basic " + base64.b64encode(b"geoloc:guess").decode()
        assert stack.request("GET", "/", port=port, login=False, authorization=wrong)[0] == 401, page
        assert stack.request("GET", "/", port=port)[0] == 200, page
    body = json.dumps({"query": "{version}"})
    assert stack.request("POST", "/graphql", body, login=False, content_type=JSON)[0] == 401
    assert stack.graphql("{version}")["version"].startswith("1.")


def test_another_name_of_the_host_is_refused(stack: RunningStack) -> None:
    for page, port in ports(stack).items():
        assert stack.request("GET", "/", port=port, host="rebound.example")[0] == 421, page
        assert stack.request("GET", "/", port=port, host=f"localhost:{port}")[0] == 200, page


@pytest.mark.parametrize(
    "path", [LAUNCH_BY_GET, LAUNCH_BY_GET.replace("/graphql", "//graphql"), LAUNCH_BY_GET.replace("l?", "l/?")]
)
def test_no_mutation_comes_with_a_get(stack: RunningStack, path: str) -> None:
    status, headers, _ = stack.request("GET", path)
    assert (status, headers.get("allow")) == (405, "POST")


def test_a_mutation_is_json(stack: RunningStack) -> None:
    assert stack.request("POST", LAUNCH_BY_GET, "", content_type="text/plain")[0] == 415
    form = "application/x-www-form-urlencoded"
    assert stack.request("POST", "/graphql", "query=%7Bversion%7D", content_type=form)[0] == 415
    limits = stack.graphql("{instance{concurrencyLimits{concurrencyKey}}}")["instance"]["concurrencyLimits"]
    assert {limit["concurrencyKey"] for limit in limits} == {"trial"}, "a refused mutation was carried out"


def test_pages_of_other_sites_cannot_use_the_login(stack: RunningStack) -> None:
    body = json.dumps({"query": "{version}"})
    for page, port in ports(stack).items():
        assert stack.request("GET", "/", port=port, sec_fetch_site="cross-site")[0] == 403, page
        assert stack.request("POST", "/", body, port=port, content_type=JSON, origin="http://elsewhere.example")[0] == 403, page
    own = f"http://127.0.0.1:{stack.port}"
    assert stack.request("POST", "/graphql", body, content_type=JSON, origin=own, sec_fetch_site="same-origin")[0] == 200


def test_subscriptions_pass_with_the_login_only(stack: RunningStack) -> None:
    address = f"ws://127.0.0.1:{stack.port}/graphql"
    login = "Authorization: Basic " + base64.b64encode(stack.credentials.encode()).decode()
    socket = create_connection(address, header=[login], subprotocols=["graphql-ws"], timeout=20)
    socket.send(json.dumps({"type": "connection_init", "payload": {}}))
    assert json.loads(socket.recv())["type"] == "connection_ack"
    socket.close()
    for headers, origin in (([], None), ([login], "http://elsewhere.example")):
        with pytest.raises(WebSocketBadStatusException):
            create_connection(address, header=headers, origin=origin, subprotocols=["graphql-ws"], timeout=20)


def test_a_second_stack_on_the_folder_is_refused(stack: RunningStack) -> None:
    command = [sys.executable, "-m", "geoloc_dagster", "stack", str(stack.region)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "GEO-604" in done.stderr
    assert stack.all_ready()


def test_faults_lose_nothing_repeat_nothing_and_hold_nothing_up(stack: RunningStack) -> None:
    """A worker killed; code server and workers killed; PostgreSQL away for a while, and a worker killed meanwhile."""
    first = stack.backfill(*PARTITIONS)
    again = stack.backfill("oslo")  # of the same partition: has to wait for its turn
    stack.release("daemon")  # which looks at backfills when it starts, and then twice a minute
    stack.wait_for(lambda: len(stack.steps("oslo")) >= 3, "oslo under way")
    os.kill(stack.worker("oslo"), signal.SIGKILL)

    stack.wait_for(lambda: len({run for _, _, run in stack.steps("oslo")}) >= 2, "oslo taken up by another run")
    stack.kill("code")
    stack.wait_for(lambda: stack.status()["services"]["code"]["starts"] >= 2, "code server started again")

    stack.wait_for(lambda: stack.working(PARTITIONS, TICKS), "work goes on")
    victim = stack.worker(stack.working(PARTITIONS, TICKS)[0])
    stack.hold("postgres")
    away = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while time.monotonic() - away < OUTAGE_S:
        assert stack.process.poll() is None
        time.sleep(0.5)
    stack.release("postgres")

    stack.wait_for(lambda: stack.backfill_status(first) == "COMPLETED_SUCCESS", "backfill complete", 240)
    stack.wait_for(lambda: stack.backfill_status(again) == "COMPLETED_SUCCESS", "second backfill complete", 120)
    for name in PARTITIONS:
        assert [number for number, _, _ in stack.steps(name)] == list(range(TICKS)), f"{name}: lost or repeated"
    assert not list((stack.region / "progress").glob("*.two-at-once"))
    stack.wait_for(lambda: stack.claimed_slots() == 0, "no place of the pool held", 20)
    assert_one_at_a_time(stack.runs())


def assert_one_at_a_time(runs: list[dict[str, object]]) -> None:
    """No two runs of a partition overlap; a run that was lost ends when that is noticed, before it is repeated."""
    for name in PARTITIONS:
        spans = sorted((run["startTime"], run["endTime"]) for run in runs if run["partition"] == name and run["startTime"])
        assert spans, name
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), spans


def test_a_failed_run_is_told_and_a_webhook_that_refuses_is_said_without_its_address(stack: RunningStack) -> None:
    answer = stack.graphql(REFUSE)["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    told = ("/hooks/sesame-of-the-webhook", answer["run"]["runId"])
    stack.wait_for(lambda: told in Hook.told, "the webhook told", 180)
    stack.wait_for(lambda: "the webhook answered HTTP 503" in tick_of(stack), "said by the sensor's tick", 60)


def tick_of(stack: RunningStack) -> str:
    """What the last evaluations of the sensor of failed runs said."""
    answer = stack.graphql(TICKS_OF)["sensorOrError"]
    return repr([tick["skipReason"] for tick in answer["sensorState"]["ticks"]])


def test_the_databases_can_be_dumped_with_postgresqls_own_programs(stack: RunningStack) -> None:
    environment = {**os.environ, "PGSERVICEFILE": str(stack.folder.database_services)}
    dump = stack.region / "dagster.dump"
    subprocess.run(["pg_dump", "--format=custom", f"--file={dump}", "service=dagster"], check=True, env=environment)
    plain = stack.region / "dagster.sql"
    subprocess.run(["pg_dump", "--format=plain", f"--file={plain}", "service=dagster"], check=True, env=environment)
    assert b"the service refused the key" in plain.read_bytes(), "the text of the event log is searched below"
    listed = subprocess.run(["pg_restore", "--list", dump], check=True, capture_output=True, text=True).stdout
    assert "TABLE DATA public event_logs dagster" in listed
    asked = subprocess.run(
        ["psql", "service=dagster", "-Atc", "select count(*) from runs"],
        check=True,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert int(asked.stdout) == len(stack.runs()) >= len(PARTITIONS)


def test_no_secret_is_in_arguments_environments_logs_or_the_event_log(stack: RunningStack, hook: str) -> None:
    passwords = {stack.credentials.partition(":")[2], *(secrets.role_password(stack.folder, role) for role in secrets.ROLES)}
    assert all(len(password) >= 32 for password in passwords)
    hidden = {password.encode() for password in passwords}
    marked = [place for place in Path("/proc").glob("[0-9]*") if str(stack.folder.root).encode() in content(place / "environ")]
    assert len(marked) >= 6
    for place in marked:
        for name in ("cmdline", "environ"):
            assert not [secret for secret in hidden if secret in content(place / name)], place
    arguments = b"".join(content(place / "cmdline") for place in Path("/proc").glob("[0-9]*"))
    assert not [secret for secret in hidden if secret in arguments]
    key = KEPT["GEOLOC_SERVICE_KEY"].encode()
    told = {name: key in content(Path(f"/proc/{stack.pid(name)}/environ")) for name in stack.status()["services"]}
    assert {name for name, knows in told.items() if knows} == {"code"}, "the user's keys are for the code server only"
    search = finder.load().Search(
        {*passwords, *KEPT.values(), KEPT["GEOLOC_PROXY_CREDENTIALS"].partition(":")[2], hook}, rules={}
    )
    for path in (stack.region, stack.output):  # logs, configuration, the database, its dumps, and what the command has said
        search.path(path)
    assert {place for place, _ in search.found.secrets} == {str(path) for path in stack.folder.secrets.iterdir()}
    for path in stack.folder.secrets.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert stack.folder.secrets.stat().st_mode & 0o777 == 0o700


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_ctrl_c_ends_everything_in_order(stack: RunningStack) -> None:
    pids = {name: stack.pid(name) for name in stack.status()["services"]}
    assert stack.interrupt() == 0
    ended = [line.split()[1] for line in stack.output.read_text().splitlines() if line.endswith(" ended")]
    assert ended == ["proxy", "explorer", "daemon", "webserver", "code", "postgres"]
    assert not [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()]
    mark = f"GEOLOC_STACK={stack.folder.root}".encode()
    assert not [place for place in Path("/proc").glob("[0-9]*") if mark in content(place / "environ")]
