"""The way out of this machine that the user chose: direct, a proxy, or Tor. It never changes how fast anybody is asked.

A proxy is `http://`, `https://`, `socks5://` (names are resolved here) or `socks5h://` (by the proxy), host and port; a user name
and a password come from the environment, never from the configuration. Tor is its SOCKS port, or Privoxy before it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from geoloc_dagster.errors import ConfigError

SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Egress:
    """One way out.

    Attributes:
        scheme: of the proxy; None for none.
        host: likewise.
        port: likewise.
        credentials: (user, password) for it; never shown.
    """

    scheme: str | None = None
    host: str = ""
    port: int = 0
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, proxy: str | None, credentials_variable: str = "GEOLOC_PROXY_CREDENTIALS") -> Egress:
        """From the configuration's words and the environment's `user:password`.

        Raises:
            ConfigError: it is no proxy's address, or carries a password.
        """
        if proxy is None:
            return cls()
        parts = urlsplit(proxy)
        if parts.username or parts.password:
            raise ConfigError("egress.proxy carries credentials", f"Put user:password into {credentials_variable} instead.")
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme not in SCHEMES or not parts.hostname or port is None or parts.path not in ("", "/") or parts.query:
            raise ConfigError(f"egress.proxy {proxy!r} is no proxy", f"Write {'|'.join(SCHEMES)}://host:port.")
        user, separator, password = os.environ.get(credentials_variable, "").partition(":")
        return cls(parts.scheme, parts.hostname, port, (user, password) if separator else None)

    @property
    def address(self) -> str | None:
        """`scheme://host:port`; None where it is direct."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return None if self.scheme is None else f"{self.scheme}://{host}:{self.port}"

    def proxy(self) -> httpx2.Proxy | None:
        """For an HTTP client."""
        return None if self.address is None else httpx2.Proxy(self.address, auth=self.credentials)

    def browser_proxy(self) -> dict[str, Any] | None:
        """For a browser's user context (WebDriver `proxy` capability). Loopback goes through it as well.

        Raises:
            ConfigError: the proxy wants a password, which a browser cannot be given in advance.
        """
        if self.scheme is None:
            return None
        if self.credentials is not None:
            raise ConfigError("a browser cannot be given the password of a proxy", "Use a local proxy that knows it.")
        where = f"{self.host}:{self.port}"
        common = {"proxyType": "manual", "noProxy": ["<-loopback>"]}
        if self.scheme.startswith("socks"):
            return {**common, "socksProxy": where, "socksVersion": 5}
        return {**common, "httpProxy": where, "sslProxy": where}
