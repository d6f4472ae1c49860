"""Where a list of URLs may lead: to web hosts of the world, and inside this network only where the list itself says so."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from geoloc_dagster.imagery.provider import RequestFailedError

_LOCAL_NAMES = ("localhost", "localhost.localdomain")


class Addresses:
    """Which hosts may be asked.

    Args:
        named: URLs of the list; their hosts, at those ports, may be anywhere.
    """

    def __init__(self, named: Iterable[str] = ()) -> None:
        self._named: set[tuple[str, int]] = set()
        self.name(named)

    def name(self, urls: Iterable[str]) -> None:
        """Further URLs of the list."""
        for url in urls:
            parts = split_url(url)
            if parts is not None:
                self._named.add(_host_and_port(parts))

    def check(self, url: str) -> None:
        """Raise `RequestFailedError` (`disallowed`) where a URL must not be asked for."""
        parts = split_url(url)
        if parts is None:
            raise RequestFailedError("disallowed", f"a redirect leads to {url[:80]!r}, which is no web address", retryable=False)
        host, port = _host_and_port(parts)
        if (host, port) in self._named:
            return
        if host.rstrip(".") in _LOCAL_NAMES or host.endswith(".localhost") or not _is_public(host):
            raise RequestFailedError("disallowed", f"a redirect leads to {host}, inside this network", retryable=False)

    def may_connect(self, host: str, port: int, address: str) -> bool:
        """Whether a host and port may be reached at an address."""
        return (host.lower(), port) in self._named or _is_public(address)


def split_url(url: str) -> SplitResult | None:
    """The parts of an http(s) URL with a host and without user and password; None for anything else."""
    try:
        parts = urlsplit(url)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or not port_is_good:
        return None
    return parts


def _host_and_port(parts: SplitResult) -> tuple[str, int]:
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_public(host: str) -> bool:
    """False for an address that the world does not see; a name is judged by its addresses, when it is resolved."""
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _is_public(str(inner))
    return address.is_global and not address.is_multicast
