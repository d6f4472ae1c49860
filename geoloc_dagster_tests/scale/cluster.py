"""A Ray cluster of several nodes in a network of its own, in which there is nothing but a loopback interface.

Ray listens beyond loopback whatever it is told, so nothing here starts outside of `isolated`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from geoloc_dagster.imagery.processes import marked_processes

INSIDE = "GEOLOC_TESTS_ISOLATED"
_NODE = "GEOLOC_TESTS_NODE"
GCS_PORT, JOBS_PORT = 6379, 8265
ADDRESS, JOBS = f"127.0.0.1:{GCS_PORT}", f"http://127.0.0.1:{JOBS_PORT}"
_STORE_BYTES = 100_000_000
# Where cores are shared half a minute is too short for a node, and workers that give way to everybody get nowhere.
_PATIENT = {"RAY_raylet_start_wait_time_s": "180", "RAY_worker_niceness": "0"}


def isolation() -> list[str]:
    """What a command is put behind so that it runs in a network and among processes of its own, which end with it."""
    options = ["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    return ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), *options]


def can_be_isolated() -> bool:
    """Whether this machine allows that."""
    try:
        return subprocess.run([*isolation(), "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def isolated(module: str, *arguments: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a module with only a loopback interface."""
    script = 'ip link set lo up && exec "$0" -m "$@"'
    command = [*isolation(), "sh", "-c", script, sys.executable, module, *arguments]
    return subprocess.run(command, env={**os.environ, INSIDE: "1"}, timeout=timeout_s, check=False, text=True)


@dataclass
class Node:
    """One node of a cluster."""

    number: int
    process: subprocess.Popen[bytes]

    def processes(self) -> list[int]:
        """All of its living processes."""
        return marked_processes(_NODE, str(self.number))

    def works_on(self, task: str) -> bool:
        """Whether one of its workers is at a task of this name."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if f"ray::{task}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return True
        return False

    def kill(self) -> None:
        """End it as a power cut would."""
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.05)


@dataclass
class Cluster:
    """Its nodes, the head first."""

    folder: Path
    dashboard: bool
    environment: dict[str, str]
    nodes: list[Node] = field(default_factory=list[Node])

    def add_node(self, cpus: int = 1) -> Node:
        """Start another node; the first one is the head."""
        number = len(self.nodes)
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--num-cpus={cpus}"]
        command += [f"--node-ip-address=127.0.0.{number + 1}", f"--object-store-memory={_STORE_BYTES}"]
        if number:
            command += [f"--address={ADDRESS}"]
        else:
            command += ["--head", f"--port={GCS_PORT}", f"--include-dashboard={str(self.dashboard).lower()}"]
            command += [f"--dashboard-port={JOBS_PORT}", f"--temp-dir={self.folder}"]
        log = (self.folder.parent / f"node{number}.log").open("wb")
        environment = {**os.environ, **self.environment, _NODE: str(number)}
        node = Node(number, subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
        self.nodes.append(node)
        if number == 0:
            wait_for(lambda: answers(GCS_PORT) and (not self.dashboard or answers(JOBS_PORT)), "the head")
        return node


def answers(port: int) -> bool:
    """Whether something listens."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def wait_for(condition: Callable[[], object], what: str, seconds: float = 240.0) -> float:
    """Wait until something is so; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def require_started(cluster: Cluster) -> None:
    """Refuse a node that has ended by itself; says why."""
    for node in cluster.nodes:
        if node.process.poll() is not None:
            raise AssertionError((cluster.folder.parent / f"node{node.number}.log").read_text()[-3000:])


@contextlib.contextmanager
def running_cluster(*, dashboard: bool = False, **environment: str) -> Generator[Cluster]:
    """The head of a cluster, which ends with the block, as do the nodes that were added to it."""
    assert os.environ.get(INSIDE), "only in a network of its own"
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: sockets lie there
    folder.chmod(0o755)
    cluster = Cluster(folder / "r", dashboard, {**_PATIENT, "RAY_USAGE_STATS_ENABLED": "0", **environment})
    cluster.folder.mkdir()
    try:
        cluster.add_node()
        yield cluster
    finally:
        for node in cluster.nodes[::-1]:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)
