"""`geoloc stack`: everything that production runs, as processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import claim_data_root, load_settings
from geoloc_dagster.stack.folder import Monitoring, StackFolder, StackOptions

_LAST_PORT = 65_533


def stack(
    region: Annotated[Path, typer.Argument(metavar="REGION_FOLDER", help="With geoloc.yaml and definitions.py.")] = Path("demo"),
    data_root: Annotated[Path | None, typer.Option(help="In place of the file's data_root.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Database, secrets, logs and MLflow's files. Default: `stack` in the data root.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=1024, max=_LAST_PORT, help="Of the Dagster UI; MLflow has the next one, the explorer the third.")
    ] = 8080,
    host: Annotated[str, typer.Option(help="The proxy listens here; passwords cross other networks in the clear.")] = "127.0.0.1",
    name: Annotated[list[str] | None, typer.Option(help="Another name of this host, as browsers ask for it; repeatable.")] = None,
    explorer: Annotated[bool, typer.Option("--explorer/--no-explorer", help="Serve the explorer.")] = True,
    mlflow: Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="Log trainings to an MLflow server.")] = True,
    max_runs: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 2,
    max_hours: Annotated[float, typer.Option(min=0.01, help="A run that takes longer is ended.")] = 24.0,
    poll_s: Annotated[int, typer.Option(min=1, help="Seconds between two looks at the runs.")] = 10,
    grace_s: Annotated[int, typer.Option(min=1, help="Seconds that the code server may be out of reach.")] = 30,
    ray: Annotated[
        str | None, typer.Option(help="Jobs API of a Ray cluster, http://HOST:8265: backfills that collect nothing run there.")
    ] = None,
    free_slots_s: Annotated[int, typer.Option(min=1, help="Seconds until a lost run's places in pools are free.")] = 60,
) -> None:
    """Run everything that production needs for a region, behind one login, until it is interrupted."""
    from geoloc_dagster.stack.run import started_stack

    settings = load_settings(region, data_root=data_root)
    layout: Layout = claim_data_root(settings)
    place = StackFolder((folder or layout.root / "stack").resolve())
    monitoring = Monitoring(poll_s=poll_s, grace_s=grace_s, free_slots_s=free_slots_s, max_runtime_s=round(max_hours * 3600))
    options = StackOptions(port, host, tuple(name or ()), explorer, mlflow, max_runs, monitoring, ray)
    stop = _until_interrupted()
    with started_stack(settings, place, options, os.environ, _say, stop.is_set) as running:
        if running is not None:
            _show(place, options)
            running.run(stop.is_set)
        _say("ending")


def _until_interrupted() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _show(folder: StackFolder, options: StackOptions) -> None:
    from geoloc_dagster.stack.ports import page_ports

    for page, port in page_ports(options).items():
        _say(f"{page}: http://{options.host}:{port}/")
    _say(f"user and password of all pages: {folder.login}")
    _say(f"logs: {folder.logs}; what runs: {folder.status}; Ctrl+C ends everything")


def _say(line: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)
