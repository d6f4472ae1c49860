"""`geoloc explorer`, and `geoloc predict --url` which asks one that runs."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from geoloc_dagster.config.loader import load_settings, open_data_root
from geoloc_dagster.photo_cli import Config, DataRoot

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
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before anything loads them
        os.environ.setdefault(name, "1")
    import uvicorn

    from geoloc_dagster.explorer.app import create_app

    settings = load_settings(config, data_root=data_root)
    _require_free(host, port)
    app = create_app(settings, open_data_root(settings))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    typer.echo(f"{settings.region.name}: http://{host}:{port} (Ctrl-C ends it)", err=True)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_keep_alive=_IDLE_S, server_header=False, access_log=False)


def _require_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise typer.BadParameter(f"{host}:{port} cannot be listened on: {error.strerror}", param_hint="--port") from error


def ask_url(
    url: str,
    photos: list[Path],
    folders: list[Path],
    out: Path | None,
    *,
    coverage: float,
    expert: str | None,
    top: int,
    as_json: bool,
) -> None:
    """`geoloc predict --url`: a table of each photo, or a file or lines of them."""
    from geoloc_dagster.explorer.client import ask_explorer, write_answers
    from geoloc_dagster.prediction.photo import find_photos

    files = photos + ([path for _, path in find_photos(folders)] if folders else [])
    if not files:
        raise typer.BadParameter("name photos, or a folder with --image-dir", param_hint="PHOTOS")
    if out is not None and out.suffix.lower() not in (".csv", ".jsonl", ".ndjson"):
        raise typer.BadParameter("a .csv, or .jsonl for a line of JSON each", param_hint="--out")
    answers = ask_explorer(url, files, coverage=coverage, expert=expert, top=top)
    if out is None and not as_json:
        for answer in answers:
            _show(answer)
        return
    count, refused = write_answers(answers, out)
    if out is not None:
        typer.echo(f"{count - refused:,} photos answered: {out}", err=True)
    if refused:
        typer.echo(f"{refused:,} photos could not be used", err=True)
        raise typer.Exit(1)


def _show(answer: dict[str, Any]) -> None:
    from geoloc_dagster.evaluation.tables import probability

    if "error" in answer:
        typer.echo(f"{answer['photo']}: {answer['error']['detail']}")
        return
    typer.echo(f"{answer['photo']}: {answer['lat_deg']:.6f}, {answer['lng_deg']:.6f} (lat, lng)")
    if answer["refusal"]:
        typer.echo(f"  not answered: {answer['refusal']}")
    for radius, within in (answer["probability_within_m"] or {}).items():
        typer.echo(f"  within {int(radius):,} m: {probability(within)}")
    for one in answer["candidates"]:
        typer.echo(f"  {one['rank']}. place {one['location_id']}: {one['lat_deg']:.6f}, {one['lng_deg']:.6f}")
