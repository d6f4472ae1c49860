"""Ports: the private ones are chosen once and kept, the ones of the pages are the user's choice."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from geoloc_dagster.errors import GeolocError, PortTakenError
from geoloc_dagster.stack.folder import StackFolder, StackOptions
from geoloc_dagster.storage import read_json, write_json

LOOPBACK = "127.0.0.1"
PRIVATE = ("postgres", "mlflow", "emulator", "code", "webserver", "explorer")
PAGES = ("dagster", "mlflow", "explorer")


def page_ports(options: StackOptions) -> dict[str, int]:
    """The port of each page that is served."""
    served = {"dagster": True, "mlflow": options.mlflow, "explorer": options.explorer}
    return {page: options.port + number for number, page in enumerate(PAGES) if served[page]}


def require_free(host: str, ports: Iterable[tuple[str, int]]) -> None:
    """Make sure that the pages' ports can be listened on.

    Raises:
        PortTakenError: naming the first that cannot.
    """
    for page, port in ports:
        if not is_free(host, port):
            raise PortTakenError(f"port {port} of {host}, for the page of {page}, is in use by another program")


def is_free(host: str, port: int) -> bool:
    """Whether nothing listens on a port."""
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False


def private_ports(folder: StackFolder) -> dict[str, int]:
    """A port of the loopback interface for each service: the one of the last start where it is free still."""
    kept = _kept(folder)
    chosen: dict[str, int] = {}
    for name in PRIVATE:
        port = kept.get(name)
        if port is None or port in chosen.values() or not is_free(LOOPBACK, port):
            port = _any_free(chosen.values())
        chosen[name] = port
    write_json(folder.ports, chosen)
    return chosen


def _kept(folder: StackFolder) -> dict[str, int]:
    try:
        content = read_json(folder.ports)
    except (OSError, GeolocError):
        return {}
    return {str(name): int(port) for name, port in content.items()} if isinstance(content, dict) else {}


def _any_free(taken: Iterable[int]) -> int:
    while True:
        with socket.create_server((LOOPBACK, 0)) as server:
            port: int = server.getsockname()[1]
        if port not in set(taken):
            return port
