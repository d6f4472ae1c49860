"""An S3-compatible server on this machine (SeaweedFS), and a proxy before it that can cut connections."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4

import boto3

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": uuid4().hex}
BUCKET = "regions"


@contextlib.contextmanager
def object_server(folder: Path) -> Iterator[str]:
    """A server that keeps its objects below a folder, with an empty bucket; its address."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "tester", "credentials": [identity], "actions": actions}]})
    )
    (folder / "objects").mkdir(exist_ok=True)
    ports = _free_ports(8)
    names = ["s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
    options = dict(zip([*names, "filer.port", "filer.port.grpc"], ports, strict=True)) | {
        "dir": folder / "objects",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3": "true",
        "s3.config": folder / "s3.json",
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "filer.localSocket": folder / "filer.sock",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.max": 100,
    }
    weed = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    command = [weed, "server", *(f"-{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{ports[0]}"
    try:
        _await(url, process, folder / "log")
        yield url
    finally:
        process.kill()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a bucket can be made and written to: the gateway answers before there is a place for bytes."""
    client = client_of(url)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):
                client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
                client.delete_object(Bucket=BUCKET, Key="ready")
                return
        except Exception:  # noqa: BLE001 - whatever it says while it starts
            threading.Event().wait(0.2)
    raise AssertionError(f"the object server did not start: {log.read_text()[-2000:]}")


def client_of(url: str):
    """A client of another library than the project's own."""
    keys = {"aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class CuttingProxy:
    """Passes bytes on until it is told to cut: then a connection ends without a word, as when a cable is pulled.

    Attributes:
        target: address of the server.
        cuts: how many requests are still to be cut; -1 cuts all.
        match: only requests in which this pattern is found.
        how: `request` ends in the middle of the request, `answer` after the server has got it and before its answer has come.
        cut: how many were cut.
    """

    target: str
    cuts: int = 0
    match: bytes = b""
    how: Literal["request", "answer"] = "request"
    cut: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> CuttingProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        host, _, port = self.target.removeprefix("http://").partition(":")
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                pair = _Pair(client, socket.create_connection((host, int(port))))
                threading.Thread(target=self._requests, args=(pair,), daemon=True).start()
                threading.Thread(target=self._answers, args=(pair,), daemon=True).start()

    def _requests(self, pair: _Pair) -> None:
        for part in pair.parts(pair.client):
            doomed = self._is_to_be_cut(part)
            pair.silent = pair.silent or (doomed and self.how == "answer")
            if doomed and self.how == "request":
                pair.pass_on(pair.server, part[: len(part) // 2])
                break
            pair.pass_on(pair.server, part)
        pair.end()

    def _answers(self, pair: _Pair) -> None:
        for part in pair.parts(pair.server):
            if pair.silent:
                break
            pair.pass_on(pair.client, part)
        pair.end()

    def _is_to_be_cut(self, part: bytes) -> bool:
        with self._lock:
            if self.cuts == 0 or re.search(self.match, part) is None:
                return False
            self.cuts -= 1
            self.cut += 1
            return True


@dataclass
class _Pair:
    """Both ends of a connection that goes through."""

    client: socket.socket
    server: socket.socket
    silent: bool = False

    def parts(self, source: socket.socket) -> Iterator[bytes]:
        """What comes, as it comes, until the end."""
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 20):
                yield part

    def pass_on(self, sink: socket.socket, part: bytes) -> None:
        """Send it to the other end, which may be gone."""
        with contextlib.suppress(OSError):
            sink.sendall(part)

    def end(self) -> None:
        """Reset both connections."""
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            one.close()
