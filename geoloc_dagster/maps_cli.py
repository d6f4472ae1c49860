"""`geoloc maps`: class maps of crops, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geoloc_dagster.config.loader import load_settings, open_data_root
from geoloc_dagster.photo_cli import Config, DataRoot
from geoloc_dagster.storage import write_bytes

SHEET_BYTES = 2_000_000
app = typer.Typer(no_args_is_help=True, help="What each pixel of the crops shows.")


@app.callback()
def maps() -> None:
    """A group of commands, also while there is one."""


@app.command("show")
def show(
    batch: Annotated[str, typer.Option("--batch", help="Key of the batch, e.g. 100m-0000.")],
    out: Annotated[Path, typer.Option("--out", help="The JPEG to write.")],
    count: Annotated[int, typer.Option("--count", min=1, max=120, help="Pictures, evenly spread over the batch.")] = 18,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """Write a sheet of crops with their class maps beside them, and a legend."""
    from geoloc_dagster.dataset.class_maps import CLASSES, COLOURS
    from geoloc_dagster.errors import IntegrityError
    from geoloc_dagster.geo.batches import BatchKey
    from geoloc_dagster.viz.class_maps import segmentation_sheet

    BatchKey.parse(batch)
    layout = open_data_root(load_settings(config, data_root=data_root))
    legend = list(zip(CLASSES, COLOURS, strict=True))
    sheet = segmentation_sheet(layout.crops, layout.segmentation_maps, batch, legend, count=count, max_bytes=SHEET_BYTES)
    if sheet is None:
        cause = f"no crop of {batch} has a class map in {layout.segmentation_maps}"
        raise IntegrityError(cause, "Materialise `segmentation_maps` for this batch, with a section `segmentation:`.")
    write_bytes(out, sheet)
    typer.echo(f"wrote {out}", err=True)
