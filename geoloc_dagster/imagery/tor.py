"""Tor's control port: a fresh circuit for each browser session, and nothing else.

A fresh circuit keeps sessions of one user apart from each other. It is no way around a block: after one, there are no more. It
does not change any rate, and comes no more often than Tor itself allows (every ten seconds).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from geoloc_dagster.errors import EgressError, ServiceBlockedError


class Tor:
    """One authenticated connection to a control port; a context manager.

    Args:
        port: of the control port.
        host: likewise.
        password: of the control port; its cookie file is used where None.
        sleep: waits; replaced in tests.

    Raises:
        EgressError: nothing listens there, or the password is refused.
    """

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        password: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import stem
        import stem.connection
        import stem.control

        self._sleep = sleep
        self._block: str | None = None
        try:
            self._controller: Any = stem.control.Controller.from_port(address=host, port=port)  # type: ignore[arg-type]
        except (stem.SocketError, ValueError) as error:
            raise EgressError(f"no Tor control port answers at {host}:{port}: {error}") from None
        try:
            self._controller.authenticate(password=password)
        except stem.connection.AuthenticationFailure:
            self._controller.close()
            raise EgressError(f"the Tor control port at {host}:{port} refused the password or the cookie") from None
        except stem.SocketError as error:
            self._controller.close()
            raise EgressError(f"the Tor control port at {host}:{port} hung up: {error}") from None

    def fresh_circuit(self) -> None:
        """Let connections from now on take another way; waits until Tor allows it.

        Raises:
            ServiceBlockedError: a service has blocked us, and a new identity would be a way around that.
            EgressError: Tor is gone.
        """
        import stem

        if self._block is not None:
            raise ServiceBlockedError(f"no fresh circuit after a block ({self._block})")
        try:
            wait_s = float(self._controller.get_newnym_wait())
            if wait_s > 0:
                self._sleep(wait_s)
            self._controller.signal("NEWNYM")
        except stem.ControllerError as error:
            raise EgressError(f"Tor gave no fresh circuit: {error}") from None

    def blocked(self, cause: str) -> None:
        """Remember that a service blocked us; there are no fresh circuits from now on."""
        self._block = cause

    def version(self) -> str:
        """Of Tor."""
        return str(self._controller.get_version())

    def close(self) -> None:
        """Hang up."""
        self._controller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Circuits:
    """Fresh circuits on demand; connects to the control port when the first one is wanted.

    Args:
        connect: opens the control port.
    """

    def __init__(self, connect: Callable[[], Tor]) -> None:
        self._connect = connect
        self._tor: Tor | None = None
        self._block: str | None = None

    def fresh(self) -> None:
        """As `Tor.fresh_circuit`; raises as that, and as `Tor`."""
        if self._tor is None:
            self._tor = self._connect()
            if self._block is not None:
                self._tor.blocked(self._block)
        self._tor.fresh_circuit()

    def blocked(self, cause: str) -> None:
        """As `Tor.blocked`."""
        self._block = cause
        if self._tor is not None:
            self._tor.blocked(cause)

    def close(self) -> None:
        """Hang up, where there is a connection; the next circuit makes another."""
        tor, self._tor = self._tor, None
        if tor is not None:
            tor.close()


def fresh_circuits(port: int, password: str | None) -> Circuits:
    """Of the Tor whose control port that is, on this machine."""
    return Circuits(lambda: Tor(port, password=password))
