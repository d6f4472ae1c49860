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
        named: URLs of the list; their hosts may be anywhere.
    """

    def __init__(self, named: Iterable[str] = ()) -> None:
        self._named: set[str] = set()
        self.name(named)

    def name(self, urls: Iterable[str]) -> None:
        """Further URLs of the list."""
        self._named.update(host for url in urls if (host := host_of(url)) is not None)

    def check(self, url: str) -> None:
        """Raise `RequestFailedError` (`disallowed`) where a URL must not be asked for."""
        parts = split_url(url)
        if parts is None:
            raise RequestFailedError("disallowed", f"a redirect leads to {url[:80]!r}, which is no web address", retryable=False)
        host = parts.hostname or ""
        if host in self._named:
            return
        if host.rstrip(".") in _LOCAL_NAMES or host.endswith(".localhost") or not _is_public(host):
            raise RequestFailedError("disallowed", f"a redirect leads to {host}, inside this network", retryable=False)

    def may_connect(self, host: str, address: str) -> bool:
        """Whether a host may be reached at an address."""
        return host.lower() in self._named or _is_public(address)


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


def host_of(url: str) -> str | None:
    """The host of an http(s) URL, in lower case; None for anything else."""
    parts = split_url(url)
    return None if parts is None else parts.hostname


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
