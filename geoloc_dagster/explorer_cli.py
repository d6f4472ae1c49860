"""`geoloc explorer`, and `geoloc predict --url` which asks one that runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="The region's geoloc.yaml. Default: GEOLOC_CONFIG, else ./geoloc.yaml.")
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Where everything is, in place of the file's data_root.")]
_IDLE_S = 30


def explorer(
    config: Config = None,
    data_root: DataRoot = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other ones than 127.0.0.1 are open to a network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 8050,
) -> None:
    """See the place, ask it about a photo, play against it: a page on this machine. It needs no other host."""
    import uvicorn

    from geoloc_dagster.explorer.app import create_app

    settings = load_settings(config, data_root=data_root)
    app = create_app(settings, Layout(settings.data_root))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    typer.echo(f"{settings.region.name}: http://{host}:{port} (Ctrl-C ends it)", err=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_keep_alive=_IDLE_S, server_header=False, access_log=False)
