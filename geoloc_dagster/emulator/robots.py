"""What the emulated services ask of robots, at `/robots.txt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from geoloc_dagster.emulator.answers import Answer, text_answer
from geoloc_dagster.emulator.desk import Desk
from geoloc_dagster.emulator.options import EmulatorOptions

if TYPE_CHECKING:
    from geoloc_dagster.emulator.city import City

ROBOTS = "User-agent: *\nDisallow: /maps/private/\nDisallow: /sorry/\nDisallow: /photos/private/\n"


def robots(city: City, options: EmulatorOptions, desk: Desk) -> ASGIApp:
    """The application at `/robots.txt`, for every page and picture of this server."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def answer() -> Answer:
            return text_answer(200, ROBOTS, "OK")

        await desk.serve(desk.wire(scope, receive, send), "robots", "robots.txt", answer, (0, 0))

    return application
