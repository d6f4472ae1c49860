"""`python -m geoloc_dagster.emulator --origin LAT,LNG …` serves an emulated city until it is stopped.

Once it serves, it writes one line to its standard output: `{"pid": …, "port": …, "url": "http://127.0.0.1:…"}`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from geoloc_dagster.emulator.faults import FaultScript
from geoloc_dagster.emulator.limits import Quota
from geoloc_dagster.emulator.options import EmulatorOptions
from geoloc_dagster.emulator.server import HOST, EmulatorServer
from geoloc_dagster.errors import GeolocError


class _AnnouncingServer(EmulatorServer):
    """Says where it is as soon as it can be asked."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        line = json.dumps({"pid": os.getpid(), "port": self.port, "url": f"http://{HOST}:{self.port}"})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM, SIGINT or, where asked for, the end of the process that started this one."""
    parsed = _parser().parse_args(arguments)
    options = EmulatorOptions(
        origin=parsed.origin,
        seed=parsed.seed,
        today=parsed.today,
        port=parsed.port,
        latency_ms=parsed.latency_ms,
        key=parsed.key,
        secret=parsed.secret,
        quotas=tuple(parsed.quota),
        faults=parsed.faults,
        hands=parsed.hands,
        host=parsed.host,
    )
    try:
        server = _AnnouncingServer(options)
    except (OSError, GeolocError) as error:
        sys.exit(f"the emulated city cannot be served at port {parsed.port}: {error}")

    def stop() -> None:
        server.should_exit = True

    # The server has handlers of its own while it runs and hands the signal on afterwards: to these, which end the process well.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
    if parsed.with_parent:
        threading.Thread(target=_outlive_parent, args=(os.getppid(), stop), daemon=True).start()
    server.run()


def _outlive_parent(parent_pid: int, then: Callable[[], None]) -> None:
    """Wait until the parent is gone: its end of our standard input is closed, or another process has adopted us.

    The pipe tells at once; the second sign is for pipes whose other end a sibling has inherited.
    """
    while os.getppid() == parent_pid:
        readable, _, _ = select.select([0], [], [], 1.0)
        if readable and not os.read(0, 4096):
            break
    then()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m geoloc_dagster.emulator", description="Serve an emulated city.")
    parser.add_argument("--origin", type=_origin, required=True, metavar="LAT,LNG", help="where the city lies, degrees")
    parser.add_argument("--seed", type=int, default=0, help="which city")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--host", default=HOST, help="address to listen on; others than the default are open to a network")
    parser.add_argument(
        "--today", type=dt.date.fromisoformat, metavar="YYYY-MM-DD", help="date in the city; the real one if absent"
    )
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every answer")
    parser.add_argument("--hands", type=int, default=1, help="processes that draw pictures")
    parser.add_argument("--key", help="refuse requests without this key")
    parser.add_argument("--secret", help="refuse requests that are not signed with this secret (URL-safe base64)")
    parser.add_argument("--quota", type=Quota.parse, action="append", default=[], metavar="ENDPOINT=N/day|minute")
    parser.add_argument("--faults", type=_script, default=FaultScript(), metavar="FILE", help="JSON script of what goes wrong")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input or the parent process does")
    return parser


def _origin(text: str) -> tuple[float, float]:
    lat_deg, lng_deg = (float(part) for part in text.split(","))
    return lat_deg, lng_deg


def _script(path: str) -> FaultScript:
    try:
        return FaultScript.model_validate_json(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from None


if __name__ == "__main__":
    main()
