"""A stack in a process of its own, driven as its user drives it: the pages with a login, files, and signals."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoloc_dagster import starter
from geoloc_dagster.stack.folder import StackFolder

HERE = Path(__file__).parent
MARGIN = 8  # steps before its end, from which on a partition may be done before anything can be done to it
LAUNCH = """mutation($names: [String!]!) { launchPartitionBackfill(backfillParams: {
    partitionNames: $names, assetSelection: [{path: ["slow", "steps"]}], fromFailure: false}) {
    ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } ... on UnauthorizedError { message } } }"""
BACKFILL = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
RUNS = """{ runsOrError { ... on Runs { results { runId status startTime endTime tags { key value } } } } }"""
SLOTS = """{ instance { concurrencyLimit(concurrencyKey: "trial") { slotCount claimedSlots { runId } } } }"""
LIMIT = 'mutation($n: Int!) { setConcurrencyLimit(concurrencyKey: "trial", limit: $n) }'


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_base_port() -> int:
    """A port that is free, as are the two after it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port: int = server.getsockname()[1]
        if port > 65_000:
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in range(3):
                stack.enter_context(socket.create_server(("127.0.0.1", port + number)))
            return port


@contextlib.contextmanager
def open_folder() -> Generator[Path]:
    """A folder that every account may enter, which those of pytest are not; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="geoloc-stack-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_slow_region(folder: Path) -> Path:
    """A region whose one asset takes its time."""
    region = folder / "slow"
    starter.write_region(region, "slow")
    shutil.copy(HERE / "slow_region.py", region / "definitions.py")
    return region


@dataclass
class RunningStack:
    """A stack that was started by its command, and how to ask it things."""

    region: Path
    port: int
    process: subprocess.Popen[str]
    folder: StackFolder
    output: Path

    @property
    def credentials(self) -> str:
        """user:password."""
        return self.folder.login.read_text().strip()

    def request(
        self, method: str, path: str, body: str | None = None, *, port: int | None = None, login: bool = True, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of an answer of the proxy; underscores in the names of headers are hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if login:
            sent["Authorization"] = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port if port is None else port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def graphql(self, query: str, **variables: Any) -> Any:
        """The data of an answer of Dagster."""
        body = json.dumps({"query": query, "variables": variables})
        status, _, content = self.request("POST", "/graphql", body, content_type="application/json")
        if status != 200:
            raise ConnectionError(f"{status} {content[:200]!r}")
        answer = json.loads(content)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def backfill(self, *partitions: str) -> str:
        """Ask for partitions of the slow asset; the backfill's id."""
        return self.graphql(LAUNCH, names=list(partitions))["launchPartitionBackfill"]["backfillId"]

    def backfill_status(self, backfill: str) -> str:
        """As the UI shows it."""
        return self.graphql(BACKFILL, id=backfill)["partitionBackfillOrError"]["status"]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, newest first, with their partition."""
        found = self.graphql(RUNS)["runsOrError"]["results"]
        for run in found:
            run["partition"] = {tag["key"]: tag["value"] for tag in run["tags"]}.get("dagster/partition")
        return found

    def slots(self) -> list[dict[str, Any]]:
        """Places of the pool that are held, with the run of each."""
        return self.graphql(SLOTS)["instance"]["concurrencyLimit"]["claimedSlots"]

    def claimed_slots(self) -> int:
        """How many places of the pool are held."""
        return len(self.slots())

    def steps(self, partition: str) -> list[tuple[int, int, str]]:
        """What was done of a partition: step, process and run of each."""
        path = self.region / "progress" / f"{partition}.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(number), int(pid), run) for number, pid, run in (line.split() for line in lines)]

    def worker(self, partition: str) -> int:
        """The process that works on a partition, or did last."""
        return self.steps(partition)[-1][1]

    def working(self, partitions: Iterable[str], ticks: int) -> list[str]:
        """The partitions whose worker lives and has something to do still."""
        begun = [name for name in partitions if 0 < len(self.steps(name)) < ticks - MARGIN]
        return [name for name in begun if is_alive(self.worker(name))]

    def status(self) -> dict[str, Any]:
        """What the stack says of itself."""
        return json.loads(self.folder.status.read_text())

    def pid(self, service: str) -> int:
        """Of a service."""
        return self.status()["services"][service]["pid"]

    def kill(self, service: str) -> None:
        """End a service without a warning."""
        os.kill(self.pid(service), signal.SIGKILL)

    def hold(self, service: str) -> None:
        """Keep a service down."""
        (self.folder.hold / service).touch()
        self.wait_for(lambda: self.status()["services"][service]["state"] == "held", f"{service} held")

    def release(self, service: str) -> None:
        """Let it start again."""
        (self.folder.hold / service).unlink()

    def all_ready(self) -> bool:
        """Whether every service is, but those that are kept down."""
        return all(service["state"] in ("ready", "held") for service in self.status()["services"].values())

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 120.0) -> float:
        """Wait until something is so; the seconds that it took. Pages may be out of reach meanwhile."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            assert self.process.poll() is None, f"the stack ended while waiting for {what}:\n{self.output.read_text()}"
            with contextlib.suppress(ConnectionError, OSError, http.client.HTTPException):
                if condition():
                    return time.monotonic() - began
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.output.read_text()[-3000:]}\n{self._state()}")

    def interrupt(self) -> int:
        """Ctrl+C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(90)

    def _state(self) -> str:
        with contextlib.suppress(Exception):
            return "\n".join(f"{run['partition']} {run['status']} {run['runId'][:8]}" for run in self.runs())
        return "(the pages do not answer)"


@contextlib.contextmanager
def running_stack(
    region: Path, *arguments: str, held: tuple[str, ...] = (), wait_s: float = 240.0, **environment: str
) -> Generator[RunningStack]:
    """Start a stack and wait until everything is ready, but what is held; end it with the block."""
    folder, port = StackFolder((region / "data" / "stack").resolve()), free_base_port()
    for service in held:
        folder.hold.mkdir(parents=True, exist_ok=True)
        (folder.hold / service).touch()
    output = region.parent / "stack.out"
    command = [sys.executable, "-m", "geoloc_dagster", "stack", str(region), "--port", str(port), *arguments]
    with output.open("a") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            text=True,
        )
    stack = RunningStack(region, port, process, folder, output)
    try:
        stack.wait_for(
            lambda: stack.folder.status.exists() and stack.all_ready() and "Ctrl+C" in output.read_text(), "ready", wait_s
        )
        yield stack
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
