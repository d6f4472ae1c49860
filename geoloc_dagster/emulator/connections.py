"""The open connections of the server, so that one can be cut in the middle of an answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

Peer = tuple[str, int]
_NO_LINGER = struct.pack("ii", 1, 0)


class Connections:
    """Every open connection by the address of its client, which is what ASGI calls a connection by."""

    def __init__(self) -> None:
        self._transports: dict[Peer, asyncio.Transport] = {}

    def protocol(self) -> type[asyncio.Protocol]:
        """Uvicorn's HTTP protocol, entering its connections here."""
        transports = self._transports

        class Registered(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # whichever parser is installed
            """Knows nothing but that it is open."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self._peer = _peer(transport)
                transports[self._peer] = cast("asyncio.Transport", transport)
                # asyncio leaves it off for sockets made by `create_server`; every answer would wait 40 ms for an acknowledgement.
                transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                super().connection_made(cast("asyncio.Transport", transport))

            def connection_lost(self, exc: Exception | None) -> None:
                transports.pop(self._peer, None)
                super().connection_lost(exc)

        return Registered

    def close(self, peer: Peer) -> None:
        """End a connection after what has been written; the client reads an end of file."""
        transport = self._transports.get(peer)
        if transport is not None:
            transport.close()

    def reset(self, peer: Peer) -> None:
        """Tear a connection down at once; the client's next read fails."""
        transport = self._transports.get(peer)
        if transport is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            transport.abort()

    def reset_all(self) -> None:
        """Tear all of them down."""
        for peer in list(self._transports):
            self.reset(peer)


def _peer(transport: asyncio.BaseTransport) -> Peer:
    host, port = transport.get_extra_info("peername")[:2]
    return str(host), int(port)
