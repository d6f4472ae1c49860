"""What an emulated service is started with, in this process or in another one."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from geoloc_dagster.emulator.faults import FaultScript
from geoloc_dagster.emulator.limits import Quota


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """Everything that can be chosen.

    Attributes:
        origin: (lat, lng) of the city, degrees.
        seed: of the city, its panorama ids and their changes.
        today: the date in the city; the real one (UTC), day after day, where None.
        port: at that address; any free one where 0.
        latency_ms: added to every answer of the street-view API.
        key: the only valid one; requests need none where None.
        secret: for the signatures of requests, URL-safe base64; they need none where None.
        quotas: beyond which requests are refused.
        faults: which requests go wrong at first; it can be replaced later.
        hands: processes that draw pictures.
        host: address to listen on; others than 127.0.0.1 are open to a network.
    """

    origin: tuple[float, float]
    seed: int = 0
    today: dt.date | None = None
    port: int = 0
    latency_ms: float = 0
    key: str | None = None
    secret: str | None = None
    quotas: tuple[Quota, ...] = ()
    faults: FaultScript = field(default_factory=FaultScript)
    hands: int = 1
    host: str = "127.0.0.1"

    def arguments(self) -> list[str]:
        """The command line of the same service; without the faults, which go to it by HTTP."""
        lat_deg, lng_deg = self.origin
        optional = {
            "today": None if self.today is None else self.today.isoformat(),
            "key": self.key,
            "secret": self.secret,
        }
        return [
            f"--origin={lat_deg!r},{lng_deg!r}",
            f"--seed={self.seed}",
            f"--port={self.port}",
            f"--latency-ms={self.latency_ms}",
            f"--hands={self.hands}",
            f"--host={self.host}",
            *(f"--{name}={value}" for name, value in optional.items() if value is not None),
            *(f"--quota={quota}" for quota in self.quotas),
        ]
