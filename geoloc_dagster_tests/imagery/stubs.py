"""Servers of a few lines: a SOCKS5 proxy that counts, and a Tor control port that answers by the book."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field


@dataclass
class Stub:
    """A listening server; `seen` holds what it was asked for, in order."""

    port: int
    seen: list[str] = field(default_factory=list[str])


@contextlib.contextmanager
def serve(handle: Callable[[socket.socket, list[str]], None]) -> Generator[Stub]:
    """Serve each connection in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    stub = Stub(listener.getsockname()[1])

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            handle(connection, stub.seen)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield stub
    finally:
        listener.close()


def socks5(connection: socket.socket, seen: list[str]) -> None:
    """CONNECT without authentication, names resolved here; everything is on this machine."""

    def read(count: int) -> bytes:  # no byte more: a client may send its request before it has our answer
        data = b""
        while len(data) < count and (piece := connection.recv(count - len(data))):
            data += piece
        return data

    _, methods = read(2)
    read(methods)
    connection.sendall(b"\x05\x00")
    _, _, _, kind = read(4)
    host = socket.inet_ntoa(read(4)) if kind == 1 else read(read(1)[0]).decode()
    port = int.from_bytes(read(2), "big")
    seen.append(f"{host}:{port}")
    with socket.create_connection((host, port)) as upstream:
        connection.sendall(b"\x05\x00\x00\x01" + socket.inet_aton("127.0.0.1") + (0).to_bytes(2, "big"))
        back = threading.Thread(target=_pump, args=(upstream, connection), daemon=True)
        back.start()
        _pump(connection, upstream)
        back.join(5)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def control_port(password: str) -> Callable[[socket.socket, list[str]], None]:
    """Tor's control protocol as far as authentication and signals go."""

    def handle(connection: socket.socket, seen: list[str]) -> None:
        authenticated = False
        for raw in connection.makefile("rb"):
            line = raw.decode().strip()
            seen.append(line.replace(password, "…"))
            word = line.split()[0].upper()
            if word == "PROTOCOLINFO":
                answer = '250-PROTOCOLINFO 1\r\n250-AUTH METHODS=HASHEDPASSWORD\r\n250-VERSION Tor="0.4.9.11"\r\n250 OK'
            elif word == "AUTHENTICATE":
                authenticated = line == f'AUTHENTICATE "{password}"'
                answer = "250 OK" if authenticated else "515 Authentication failed: Password did not match"
            elif word == "QUIT":
                answer = "250 closing connection"
            elif not authenticated:
                answer = "514 Authentication required."
            elif word == "SIGNAL":
                answer = "250 OK" if line.endswith("NEWNYM") else '552 Unrecognized signal code "FOO"'
            elif line.upper() == "GETINFO VERSION":
                answer = "250-version=0.4.9.11\r\n250 OK"
            else:
                answer = '510 Unrecognized command "' + word + '"'
            connection.sendall(answer.encode() + b"\r\n")
            if answer.startswith("515") or word == "QUIT":
                return

    return handle
