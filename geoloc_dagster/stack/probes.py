"""Whether a service answers: quick questions, each false where the answer is not the expected one."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Callable
from typing import Any

Probe = Callable[[], bool]
_TIMEOUT_S = 2.0
_GRPC_SERVICE = "DagsterApi"


def http_status(port: int, path: str, expected: int = 200) -> Probe:
    """A page of the loopback interface answers with the expected status."""

    def probe() -> bool:
        answer = _ask(port, "GET", path)
        return answer is not None and answer[0] == expected

    return probe


def database_ready(program: str, port: int) -> Probe:
    """PostgreSQL takes connections; `program` is its `pg_isready`."""

    def probe() -> bool:
        command = [program, "--quiet", "--host=127.0.0.1", f"--port={port}", "--timeout=2"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    return probe


def code_server_ready(port: int) -> Probe:
    """Dagster's code server says that it serves."""

    def probe() -> bool:
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        pb2: Any = health_pb2
        stub: Any = health_pb2_grpc.HealthStub
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                request = pb2.HealthCheckRequest(service=_GRPC_SERVICE)
                answer: Any = stub(channel).Check(request, timeout=_TIMEOUT_S)
            except grpc.RpcError:
                return False
        return answer.status == pb2.HealthCheckResponse.SERVING

    return probe


def daemons_healthy(webserver_port: int) -> Probe:
    """Every daemon that is needed has given a sign of life, says the webserver."""
    question = "{instance{daemonHealth{allDaemonStatuses{required healthy}}}}"

    def probe() -> bool:
        answer = _ask(webserver_port, "POST", "/graphql", json.dumps({"query": question}))
        if answer is None or answer[0] != 200:
            return False
        statuses = json.loads(answer[1])["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(status["healthy"] for status in statuses if status["required"])

    return probe


def _ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
